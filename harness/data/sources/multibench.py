"""The affect pickles of MultiBench (``mosi_raw.pkl``, ``mosei_raw.pkl``, ``humor.pkl``, which is UR-FUNNY's punchlines).

As MulT's, but ``id`` names each clip by one string or number. MultiBench's own loader leaves out clips whose text is all zero;
here they stay, with an empty text, so that the test set is the published one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.data.catalogue import Facts
from harness.data.sources.layout import Opened, Raw, as_text, layouts, single, split_id
from harness.data.sources.mult import PaddedLayout, PaddedPart, id_width, padded_splits


class _Part(PaddedPart):
    def identities(self) -> list[tuple[str, str]]:
        names = [as_text(single(name)) for name in self.column("id")]
        count = Counter(names)
        return _numbered(names) if max(count.values()) > 1 else [split_id(name) for name in names]


def _numbered(videos: Sequence[str]) -> list[tuple[str, str]]:
    """Ids of clips that the file calls by their video alone: numbered in its order."""
    seen: Counter[str] = Counter()
    found = []
    for video in videos:
        found.append((f"{video}_{seen[video]}", video))
        seen[video] += 1
    return found


@layouts.register("multibench")
class MultiBench(PaddedLayout):
    """One pickle whose ids are one string or number per clip."""

    title = "affect pickle of MultiBench"
    part = _Part

    def recognise(self, files: Sequence[Opened]) -> bool:
        widths = {id_width(part) for _, part in padded_splits(files).values()}
        return 1 in widths and widths <= {0, 1}

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        raw = super().read(files, facts)
        texts = raw.features.get("text")
        silent = sum(not len(frames) for frames in texts) if isinstance(texts, list) else 0
        note = {"clips without text": f"{silent} kept, which MultiBench's loader leaves out"} if silent else {}
        return Raw(raw.clips, raw.features, {**raw.notes, **note}, raw.notices)

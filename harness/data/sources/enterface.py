"""The folders of eNTERFACE'05: ``subject N/emotion/sentence K/file.avi``.

Label and speaker come from the folders: 23 files of the archive are misnamed, and those of subject 11 carry another speaker's
number. Files without a sentence folder (subject 6: one long take per emotion) hold several sentences and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from harness.data.catalogue import Facts
from harness.data.sources.layout import Layout, Opened, Raw, class_number, layouts
from harness.data.sources.media import Found, media_kind, must_hold, only_folder

CODES = {"anger": "an", "disgust": "di", "fear": "fe", "happiness": "ha", "sadness": "sa", "surprise": "su"}
PLACE = re.compile(
    rf"(?:.*/)?subject[ _]?(?P<subject>\d+)/(?P<emotion>{'|'.join(CODES)})/(?:sentence[ _]?(?P<sentence>\d+)/)?(?P<file>[^/]+)",
    re.IGNORECASE,
)


@layouts.register("enterface")
class Enterface(Layout):
    """One folder that holds subject folders."""

    title = "folders of eNTERFACE'05"

    def recognise(self, files: Sequence[Opened]) -> bool:
        return any(_match(path) for path in only_folder(files))

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        found = Found()
        whole, misnamed = [], 0
        for path in only_folder(files):
            place, kind = _match(path), media_kind(PurePath(path))
            if place is None or kind is None:
                continue
            if place["sentence"] is None:
                whole.append(path)
                continue
            clip, emotion = _name(place), place["emotion"].lower()
            misnamed += PurePath(path).stem.lower() != clip
            found.add(clip, kind, path, group=f"s{int(place['subject'])}", split="train", label=class_number(emotion, facts.task))
        must_hold(found.rows, files[0].path, "files in sentence folders")
        notes = {"misnamed files": f"{misnamed}: labels and speakers are taken from the folders"} if misnamed else {}
        return found.raw(files[0].path, notes, _notices(whole))


def _match(path: str) -> re.Match[str] | None:
    place = PurePath(path)
    return PLACE.fullmatch(place.as_posix()) if media_kind(place) else None


def _name(place: re.Match[str]) -> str:
    """The clip's id, as the archive means to name its file: ``s1_an_2``."""
    return f"s{int(place['subject'])}_{CODES[place['emotion'].lower()]}_{int(place['sentence'])}"


def _notices(whole: Sequence[str]) -> list[str]:
    if not whole:
        return []
    return [f"{len(whole)} files are left out, since they lie in no sentence folder and hold several sentences, for example {whole[0]}"]

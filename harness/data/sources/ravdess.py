"""A folder of RAVDESS files, at whatever depth: audio, film or both.

Everything stands in a file's name: modality (01 film with sound, 02 film, 03 sound), channel (01 speech, 02 song), emotion,
intensity, statement, repetition, actor. The modalities are the same take: a clip's id is the name with modality 01, its group the
actor. Only the channels that the data set's file lists in ``parts`` (speech, song) are read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from harness.data.catalogue import Facts
from harness.data.sources.layout import Layout, Opened, Raw, class_number, layouts
from harness.data.sources.media import Found, Kind, media_kind, must_hold, only_folder

NAME = re.compile(r"(?P<modality>0[123])-(?P<channel>0[12])-(?P<emotion>0[1-8])-(?P<take>0[12]-(?P<statement>0[12])-0[12])-(?P<actor>\d\d)")
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
CHANNELS = {"01": "speech", "02": "song"}
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
FILM_WITH_SOUND, FILM = "01", "02"


@layouts.register("ravdess")
class Ravdess(Layout):
    """One folder with files named as RAVDESS names them."""

    title = "folder of RAVDESS files"

    def recognise(self, files: Sequence[Opened]) -> bool:
        return any(_match(path) for path in only_folder(files))

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        wanted = facts.parts or tuple(CHANNELS.values())
        found, left = Found(), Counter[str]()
        for path in sorted(only_folder(files), key=_film_with_sound_first):
            name, kind = _match(path), media_kind(PurePath(path))
            if name is None or kind is None:
                continue
            channel = CHANNELS[name["channel"]]
            if channel in wanted:
                _add(found, name, kind, path, facts)
            else:
                left[channel] += 1
        must_hold(found.rows, files[0].path, f"RAVDESS clips of {' or '.join(wanted)}")
        return found.raw(files[0].path, {f"{channel} left out": f"{count} files" for channel, count in left.items()}, [])


def _match(path: str) -> re.Match[str] | None:
    place = PurePath(path)
    return NAME.fullmatch(place.stem) if media_kind(place) else None


def _film_with_sound_first(path: str) -> tuple[bool, str]:
    return not PurePath(path).name.startswith(f"{FILM_WITH_SOUND}-"), path


def _add(found: Found, name: re.Match[str], kind: Kind, path: str, facts: Facts) -> None:
    clip = f"{FILM_WITH_SOUND}-{name['channel']}-{name['emotion']}-{name['take']}-{name['actor']}"
    if kind == "video" and name["modality"] == FILM and clip in found.rows and found.rows[clip]["video"]:
        return  # the same film as the one with sound, not a copy
    label = class_number(EMOTIONS[int(name["emotion"]) - 1], facts.task)
    text = STATEMENTS[name["statement"]]
    found.add(clip, kind, path, group=name["actor"], split="train", label=label, text=text)

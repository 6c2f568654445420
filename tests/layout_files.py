"""The layouts that users have on disk, written from known arrays: what the tests of the sources import and compare."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

SPLITS = {"train": 4, "valid": 2, "test": 3}
DIMS = {"text": 4, "audio": 3, "vision": 2}


@dataclass
class Truth:
    """Clips as they are: what an import of any layout must give back."""

    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    frames: dict[str, list[np.ndarray]] = field(default_factory=lambda: {m: [] for m in DIMS})

    def rows(self, split: str) -> list[int]:
        return [row for row, name in enumerate(self.splits) if name == split]


def truth(*, aligned: bool, classes: int = 0, seed: int = 0) -> Truth:
    """Random clips, float32 frames without zeros; ``classes`` labels from 0 instead of intensities."""
    rng, made = np.random.default_rng(seed), Truth()
    for split, count in SPLITS.items():
        for number in range(count):
            video = f"{split}v{number // 2}"
            made.ids.append(f"{video}_{number}")
            made.groups.append(video)
            made.splits.append(split)
            made.labels.append(float(rng.integers(classes)) if classes else float(np.float32(rng.uniform(-3, 3))))
            length = int(rng.integers(1, 6))
            made.texts.append(" ".join(["word"] * length))
            for modality, dim in DIMS.items():
                steps = length if aligned or modality == "text" else int(rng.integers(1, 9))
                made.frames[modality].append(rng.uniform(1, 2, (steps, dim)).astype(np.float32))
    return made


def padded(frames: list[np.ndarray], steps: int, front: bool) -> np.ndarray:
    """(clips, steps, features) with zeros on one side."""
    sides = [(steps - len(clip), 0) if front else (0, steps - len(clip)) for clip in frames]
    return np.stack([np.pad(clip, (side, (0, 0))) for clip, side in zip(frames, sides, strict=True)])


def mult(known: Truth, *, aligned: bool, front: bool = True, ids: bool = True) -> dict[str, Any]:
    """MulT's pickle; ids are rows of video, start, end as bytes."""
    made: dict[str, Any] = {}
    for split in SPLITS:
        rows = known.rows(split)
        made[split] = {
            m: padded([known.frames[m][row] for row in rows], 5 if aligned or m == "text" else 8, front).astype(np.float64) for m in DIMS
        }
        made[split]["labels"] = np.array([known.labels[row] for row in rows], np.float32)[:, None, None]
        if ids:
            made[split]["id"] = np.array([[known.groups[row], str(row), f"{row}.5"] for row in rows]).astype(bytes)
    return made


def multibench(known: Truth, *, numbers: bool = False) -> dict[str, Any]:
    """MultiBench's pickle; ids are strings, or whole numbers in a column as in humor.pkl."""
    made = mult(known, aligned=True, ids=False)
    for split, part in made.items():
        rows = known.rows(split)
        part["id"] = np.array([[row] for row in rows]) if numbers else np.array([known.ids[row] for row in rows])
        part["labels"] = np.array([[known.labels[row]] for row in rows])
    return made


def mmsa(known: Truth, **more: Any) -> dict[str, Any]:
    """MMSA's pickle of unaligned features, lengths stated."""
    made: dict[str, Any] = {}
    for split in SPLITS:
        rows = known.rows(split)
        made[split] = {m: padded([known.frames[m][row] for row in rows], 5 if m == "text" else 8, front=False) for m in DIMS}
        made[split] |= {f"{m}_lengths": [len(known.frames[m][row]) for row in rows] for m in DIMS}
        made[split]["id"] = [f"{known.groups[row]}$_${known.ids[row].rpartition('_')[2]}" for row in rows]
        made[split]["raw_text"] = np.array([known.texts[row] for row in rows], dtype=object)
        made[split]["regression_labels"] = np.array([known.labels[row] for row in rows])
        made[split] |= {key: value[rows] for key, value in more.items()}
    return made


VOCABULARY = 50


def misa(known: Truth) -> tuple[dict[str, list[Any]], tuple[torch.Tensor, dict[str, int]]]:
    """MISA's lists by split, and its embedding: the known text frames are rows of the matrix."""
    matrix = np.zeros((VOCABULARY, DIMS["text"]), np.float32)
    lists: dict[str, list[Any]] = {split: [] for split in SPLITS}
    place = 2
    for row, split in enumerate(known.splits):
        text = known.frames["text"][row]
        words = np.arange(place, place + len(text))
        matrix[words] = text
        place += len(text)
        sample = (words, known.frames["vision"][row], known.frames["audio"][row], known.texts[row].split())
        number = known.ids[row].rpartition("_")[2]
        lists[split].append((sample, np.array([[known.labels[row]]], np.float32), f"{known.groups[row]}[{number}]"))
    return lists, (torch.from_numpy(matrix), {"<unk>": 0, "<pad>": 1})


def ur_funny(known: Truth, *, version: int = 2, context: bool = True) -> dict[str, Any]:
    """The six pickles of UR-FUNNY: audio 81 wide, as only its width tells it from vision."""
    ids = list(range(100, 100 + len(known.ids)))
    vectors = [[0.0] * DIMS["text"]]
    language, audio, vision = {}, {}, {}
    for row, clip in enumerate(ids):
        start = len(vectors)
        vectors += known.frames["text"][row].tolist()
        index = list(range(start, len(vectors)))
        name = "embedding_indexes" if version == 1 else "features"
        language[clip] = {f"punchline_{name}": index, f"context_{name}": [index, [0]] if context else []}
        if version == 2:
            language[clip] |= {"punchline_sentence": known.texts[row], "context_sentences": ["before it", "and more"]}
        audio[clip] = {"punchline_features": known.frames["audio"][row].tolist(), "context_features": [known.frames["audio"][row].tolist()]}
        vision[clip] = {"punchline_features": known.frames["vision"][row].tolist(), "context_features": []}
    names = {"train": "train", "valid": "dev", "test": "test"}
    return {
        "data_folds": {names[split]: [ids[row] for row in known.rows(split)] for split in SPLITS},
        "humor_label_sdk": {clip: int(label) for clip, label in zip(ids, known.labels, strict=True)},
        "language_sdk": language,
        "covarep_features_sdk": audio,
        "openface_features_sdk": vision,
        "word_embedding_list": vectors,
    }


def ur_funny_truth() -> Truth:
    known = truth(aligned=True, classes=2)
    rng = np.random.default_rng(1)
    known.frames["audio"] = [rng.uniform(1, 2, (len(clip), 81)).astype(np.float32) for clip in known.frames["audio"]]
    return known


RAVDESS = [f"{channel}-{emotion}-01-0{statement}-01-{actor}" for channel, emotion, statement, actor in (
    ("01", "01", 1, "01"), ("01", "03", 2, "01"), ("01", "08", 1, "02"), ("01", "05", 1, "24"), ("02", "04", 1, "02"))]  # fmt: skip


def ravdess(folder: Path) -> Path:
    """Empty files named as RAVDESS names them: sound of all takes, film with and without sound of some."""
    for take in RAVDESS:
        actor = folder / f"Actor_{take[-2:]}"
        actor.mkdir(parents=True, exist_ok=True)
        (actor / f"03-{take}.wav").touch()
    (folder / "Actor_01" / f"01-{RAVDESS[0]}.mp4").touch()
    (folder / "Actor_01" / f"02-{RAVDESS[0]}.mp4").touch()
    (folder / "Actor_01" / f"02-{RAVDESS[1]}.mp4").touch()
    (folder / "Actor_01" / "notes.txt").touch()
    return folder


def enterface(folder: Path) -> Path:
    """Empty files where eNTERFACE'05 has them, with its faults: misnamed files, a subject that was not cut, stray files."""
    for subject, emotion, code in ((1, "anger", "an"), (1, "happiness", "ha"), (12, "fear", "fe")):
        for sentence in (1, 2):
            place = folder / f"subject {subject}" / emotion / f"sentence {sentence}"
            place.mkdir(parents=True)
            (place / f"s{subject}_{code}_{sentence}.avi").touch()
            (place / "Thumbs.db").touch()
    place = folder / "subject 11" / "surprise" / "sentence 3"
    place.mkdir(parents=True)
    (place / "s12_su_3avi.avi").touch()
    (folder / "subject 6" / "sadness").mkdir(parents=True)
    (folder / "subject 6" / "sadness" / "s6_sa.avi").touch()
    return folder


def manifest(folder: Path, known: Truth) -> Path:
    """A manifest with features in .npy and .csv files, the audio of the last clip missing, and media files."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["id,group,split,label,text,audio,video,audio_features,vision_features"]
    for row, clip in enumerate(known.ids):
        np.save(folder / f"{clip}.npy", known.frames["audio"][row])
        table = ["frame, timestamp, x, y"] + [
            f"{n},{n / 30},{float(x)!r},{float(y)!r}" for n, (x, y) in enumerate(known.frames["vision"][row])
        ]
        (folder / f"{clip}.csv").write_text("\n".join(table))
        (folder / f"{clip}.wav").touch()
        last = row == len(known.ids) - 1
        sound = "" if last else f"{clip}.npy"
        cells = (clip, known.groups[row], known.splits[row].replace("valid", "dev"), known.labels[row], known.texts[row], f"{clip}.wav", "")
        lines.append(",".join(map(str, (*cells, sound, f"{clip}.csv"))))
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def write(folder: Path, files: dict[str, Any], protocol: int = 4) -> list[Path]:
    """Write pickles (tensors for .pt, text for .csv) and name them."""
    for name, content in files.items():
        path = folder / name
        if name.endswith(".pt"):
            torch.save(content, path)
        elif isinstance(content, str | bytes):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        else:
            path.write_bytes(pickle.dumps(content, protocol))
    return [folder / name for name in files]

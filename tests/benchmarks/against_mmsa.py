"""This harness against MMSA 2.2.1, both sides measured in one run: python tests/benchmarks/against_mmsa.py --peer PYTHON

PYTHON is that of an environment of its own with ``pip install MMSA==2.2.1`` (torch 2.13 will do). Each side trains as its users train
it: MMSA seeds one after another with as many threads as there are cores, the harness as many seeds at a time as there are cores, with
one thread each. Same data (random, in the shapes of CMU-MOSI), configuration and batch size. Timed is the training part of an epoch,
without validation; the medians of all epochs count. Exits with 1 where a required ratio does not hold. ``docs/performance.md`` has the
figures, and what the two do differently.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if __name__ != "__mp_main__":  # a worker imports this file anew, as it does the command's own, and is not to hold what that needs
    import numpy as np
    from tabulate import tabulate

    from harness.data.importing import import_dataset
    from harness.experiments import benching
    from harness.experiments.plan import Effort, method_trials

if TYPE_CHECKING:
    from harness.data.schema import Card

HERE = Path(__file__).parent
CORES = os.cpu_count() or 1
SIZES = {"train": 1284, "valid": 229, "test": 686}
WIDTHS = {"text": 768, "audio": 5, "vision": 20}
STEPS = {"aligned": {"text": 50, "audio": 50, "vision": 50}, "unaligned": {"text": 50, "audio": 375, "vision": 500}}
TEXT_PADS = "MMSA pads every clip to the longest of the file, the harness to the longest of its batch."
MEANS = "Both average sound and vision over time: MMSA over padding too, the harness over real frames. " + TEXT_PADS
LOOKS = "MMSA leaves out positional encodings and looks at padding, the harness has the published encodings and masks. "


@dataclass(frozen=True)
class Row:
    """One line of the table. ``faster``: the least ratio of epochs per minute, None: only reported; ``memory``: the most of MMSA's peak.

    ``peer_clips``, ``our_clips``: clips that train where not all do; times are then scaled to ``SIZES``.
    """

    work: str
    model: str
    data: str
    faster: float | None
    memory: float
    differs: str
    peer_clips: int = SIZES["train"]
    our_clips: int = 0


ROWS = (
    Row("LMF unaligned", "lmf", "unaligned", 2.5, 1 / 2, MEANS + " MMSA does not train the fusion weights and bias."),
    Row("TFN unaligned", "tfn", "unaligned", 3.0, 1 / 2, MEANS + " Dropout of the text network acts in the harness alone."),
    Row("MFM aligned", "mfm", "aligned", 3.0, 1 / 2, "MMSA steps LSTM cells in Python; parameters differ by a network it never uses."),
    Row("MulT aligned", "mult", "aligned", 3.0, 1 / 6, LOOKS + TEXT_PADS + " The 8 batches of a step are cut anew by length."),
    Row(
        "MulT 50/375/500", "mult", "unaligned", 2.5, 1 / 2,
        LOOKS + TEXT_PADS + " Timed on 5 batches of MMSA's (memory too) and on 2 steps of 8 batches of the harness's.",
        peer_clips=80, our_clips=256,
    ),
    Row(
        "MISA", "misa", "unaligned", None, 1 / 4,
        "Other work: MMSA fine-tunes a BERT-base and cuts sound and vision at the words' number; the harness reads frozen text features "
        "and all frames. Timed on 5 batches of MMSA's.",
        peer_clips=80,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Side:
    """Seconds per epoch of one seed, scaled to ``SIZES``; seeds at a time; of one process MB at most; batch x batches per step."""

    seconds: tuple[float, ...]
    at_once: int
    peak_mb: float
    parameters: int
    batch: tuple[int, int]

    @property
    def rate(self) -> float:
        """Epochs per minute of all seeds."""
        return 60 * self.at_once / median(self.seconds)


@dataclass(frozen=True)
class Compared:
    row: Row
    peer: Side
    ours: Side

    @property
    def faster(self) -> float:
        return self.ours.rate / self.peer.rate

    @property
    def memory(self) -> float:
        return self.ours.peak_mb / self.peer.peak_mb

    def faults(self) -> list[str]:
        """What does not hold."""
        found = []
        if self.peer.batch != self.ours.batch:
            found.append(f"batches differ: {self.peer.batch} and {self.ours.batch}")
        if self.row.faster is not None and self.faster < self.row.faster:
            found.append(f"{self.faster:.2f} times as fast, {self.row.faster:g} are required")
        if self.memory > self.row.memory:
            found.append(f"{self.memory:.2f} of the memory, {self.row.memory:.2f} are allowed")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="Python of the environment that has MMSA")
    parser.add_argument("--rows", default="", help="some rows only, by the beginning of their names: 'LMF,MulT aligned'")
    parser.add_argument("--epochs", type=int, default=3, help="of each seed and side")
    parser.add_argument("--turns", type=int, default=1, help="how often both sides take their turn")
    parser.add_argument("--clips", type=int, default=0, help="at most so many training clips: to try the script, its figures mean nothing")
    options = parser.parse_args()
    wanted = [name.strip().lower() for name in options.rows.split(",") if name.strip()]
    rows = [row for row in ROWS if not wanted or any(row.work.lower().startswith(name) for name in wanted)]
    if not rows:
        parser.error(f"--rows {options.rows}: there are {', '.join(row.work for row in ROWS)}")
    os.environ.pop("MER_DATA", None)  # its own data sets must not meet those of this run
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder), options.clips)
        done = [compared(row, files, options.peer, options.epochs, options.turns) for row in rows]
    print(text(done))
    return int(any(one.faults() for one in done))


def compared(row: Row, files: Files, peer: str, epochs: int, turns: int) -> Compared:
    """Both sides in turns, so that a machine that slows down slows both."""
    theirs, ours = [], []
    for turn in range(turns):
        print(f"{row.work}: MMSA", flush=True)
        theirs.append(peer_side(row, files.pickle(row.data, row.peer_clips), peer, epochs))
        print(f"{row.work}: harness", flush=True)
        ours.append(our_side(row, files, epochs, turn))
    return Compared(row, _joined(theirs), _joined(ours))


def _joined(sides: Sequence[Side]) -> Side:
    """All turns of one side."""
    first, seconds = sides[0], tuple(second for side in sides for second in side.seconds)
    return Side(seconds, first.at_once, max(side.peak_mb for side in sides), first.parameters, first.batch)


def peer_side(row: Row, where: Path, python: str, epochs: int) -> Side:
    aligned = f"need_data_aligned={json.dumps(row.data == 'aligned')}"  # whether it looks for lengths in the file
    command = [python, str(HERE / "mmsa_epochs.py"), row.model, str(where), str(epochs), str(CORES), aligned]
    variables = {**os.environ, "OMP_NUM_THREADS": str(CORES), "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False, cwd=where.parent)
    found = _last_line(done.stdout)
    if done.returncode or "error" in found:
        sys.exit(f"{row.work}: MMSA ended with an error\n{found.get('error') or done.stderr[-2000:]}")
    scale = SIZES["train"] / _clips(where)
    return Side(
        tuple(second * scale for second in found["seconds"]),
        1,
        found["peak_mb"],
        found["parameters"],
        (found["batch"], found["accumulate"]),
    )


def _last_line(printed: str) -> dict[str, Any]:
    lines = printed.strip().splitlines()
    return dict(json.loads(lines[-1])) if lines and lines[-1].startswith("{") else {}


def _clips(where: Path) -> int:
    """How many clips train, as the file's name says."""
    return int(where.stem.split("_")[1])


def our_side(row: Row, files: Files, epochs: int, turn: int) -> Side:
    card, seeds = files.card(row.data), range(CORES * turn + 1, CORES * (turn + 1) + 1)
    trials = method_trials(row.model, card, Effort(budget="paper"), {"training.max_epochs": epochs, "training.patience": epochs}, seeds)
    found = benching.run(benching.timings(trials, files.root, row.our_clips), CORES)
    training = trials[0].identity.config["training"]
    scale = SIZES["train"] / card.clips["train"]
    seconds = tuple(second * one.scale * scale for one in found for second in one.train)
    batch = training["batch_size"], training["accumulate"]
    return Side(seconds, CORES, max(one.peak_mb for one in found), found[0].parameters, batch)


class Files:
    """The data, once as MMSA's pickle and once imported from it; made when first asked for, in ``root``."""

    def __init__(self, root: Path, most: int) -> None:
        self.root, self.most = root, most
        self.cards: dict[str, Card] = {}

    def pickle(self, kind: str, clips: int) -> Path:
        """With ``clips`` training clips, and fewer others where they are few."""
        clips = min(clips, self.most or clips)
        path = self.root / f"{kind}_{clips}_clips.pkl"
        if not path.exists():
            others = {split: min(SIZES[split], max(clips // 4, 16)) for split in ("valid", "test")}
            sizes = SIZES if clips == SIZES["train"] else {"train": clips, **others}
            with open(path, "wb") as file:
                pickle.dump({split: drawn(kind, split, size) for split, size in sizes.items()}, file, protocol=4)
        return path

    def card(self, kind: str) -> Card:
        if kind not in self.cards:
            path = self.pickle(kind, SIZES["train"])
            self.cards[kind] = import_dataset("mosi", [path], variant=kind, root=self.root).card
        return self.cards[kind]


def drawn(kind: str, split: str, clips: int) -> dict[str, Any]:
    """Random clips in the layout of MMSA's files: words 5 to 50, sound and vision 20 frames or more; padded with zeros at the end."""
    rng = np.random.default_rng(list(f"{kind} {split}".encode()))
    words = rng.integers(5, 51, clips)
    longest = STEPS[kind]
    lengths = {name: words if kind == "aligned" or name == "text" else rng.integers(20, most + 1, clips) for name, most in longest.items()}
    features = {name: _frames(rng, lengths[name], longest[name], WIDTHS[name]) for name in WIDTHS}
    label = (rng.integers(-15, 16, clips) / 5).astype(np.float32)
    features["text"][:, 0, 0] += label
    real = np.arange(longest["text"]) < words[:, None]
    tokens = np.where(real, rng.integers(1000, 2000, real.shape), 0)
    part: dict[str, Any] = {
        **features,
        "id": [f"{split}{clip // 10}$_${clip % 10}" for clip in range(clips)],
        "raw_text": ["word " * int(count) for count in words],
        "text_bert": np.stack([tokens, real, np.zeros_like(tokens)], axis=1).astype(np.float32),
        "annotations": [("Negative", "Neutral", "Positive")[int(np.sign(value)) + 1] for value in label],
        "classification_labels": np.sign(label) + 1,
        "regression_labels": label,
    }
    if kind == "unaligned":
        part |= {f"{name}_lengths": lengths[name].tolist() for name in ("audio", "vision")}
    return part


def _frames(rng: np.random.Generator, lengths: np.ndarray, longest: int, width: int) -> np.ndarray:
    frames = rng.standard_normal((len(lengths), longest, width), dtype=np.float32)
    frames[np.arange(longest) >= lengths[:, None]] = 0
    return frames


def text(done: Sequence[Compared]) -> str:
    heads = ("work", "batch", "parameters", "MMSA, s", "harness, s", "epochs a minute", "faster", "required", "MB", "memory", "allowed")
    grid = tabulate([_cells(one) for one in done], heads, tablefmt="github", disable_numparse=True)
    notes = [f"{one.row.work}: {one.row.differs}" for one in done]
    faults = [f"DOES NOT HOLD: {one.row.work}: {fault}" for one in done for fault in one.faults()]
    how = (
        f"Seconds: training part of an epoch of one seed, median (range). MMSA: one seed at a time, {CORES} threads; harness: {CORES} "
        "seeds at a time, 1 thread each. Epochs a minute: of the whole machine. MB: peak of one process. MMSA's stands first."
    )
    load = f"Load average at the end: {os.getloadavg()[0]:.1f} on {CORES} cores."
    return "\n".join(["", grid, "", how, load, "", *notes, "", *(faults or ["Every required line holds."])])


def _cells(one: Compared) -> list[str]:
    row, peer, ours = one.row, one.peer, one.ours
    batch = f"{ours.batch[0]} x {ours.batch[1]}" if ours.batch[1] > 1 else f"{ours.batch[0]}"
    return [
        row.work,
        batch,
        f"{ours.parameters:,}" if ours.parameters == peer.parameters else f"{peer.parameters:,}, {ours.parameters:,}",
        _times(peer),
        _times(ours),
        f"{peer.rate:.3g}, {ours.rate:.3g}",
        f"{one.faster:.2f}x",
        "-" if row.faster is None else f"{row.faster:g}x",
        f"{peer.peak_mb:,.0f}, {ours.peak_mb:,.0f}",
        f"{one.memory:.2f}",
        f"{row.memory:.2f}",
    ]


def _times(side: Side) -> str:
    return f"{median(side.seconds):.3g} ({min(side.seconds):.3g}-{max(side.seconds):.3g})"


if __name__ == "__main__":
    sys.exit(main())

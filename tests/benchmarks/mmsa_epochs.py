"""Times training epochs of MMSA 2.2.1 (Mao et al. 2022), run by the Python of an environment that has it: see ``against_mmsa.py``.

    python mmsa_epochs.py MODEL PICKLE EPOCHS THREADS [KEY=JSON ...]

The last line printed is JSON: seconds of each epoch's training part, parameters, batch size, batches per step, peak memory in MB, or the
error. The package is left as it is; what it needs on a CPU, without a network and with a recent torch, is put in its way first.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
warnings.filterwarnings("ignore")


class Enough(Exception):
    """All epochs that were asked for are done."""


def prepare(threads: int) -> None:
    """It calls ``set_device`` without a GPU, and passes an argument that schedulers no longer take."""
    import torch

    torch.set_num_threads(threads)
    torch.cuda.set_device = lambda device: None
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau

    class Plateau(plateau):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, verbose: object = None, **named: Any) -> None:
            super().__init__(*arguments, **named)

    torch.optim.lr_scheduler.ReduceLROnPlateau = Plateau  # type: ignore[misc]


def text_encoder(folder: str) -> str:
    """A BERT of the base model's size with random weights, in ``folder``: weights change no time."""
    from transformers import BertConfig, BertModel, BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *(f"word{number}" for number in range(BertConfig().vocab_size - len(special)))]
    vocabulary = Path(folder, "vocab.txt")
    vocabulary.write_text("\n".join(words))
    BertModel(BertConfig()).save_pretrained(folder)
    BertTokenizer(str(vocabulary)).save_pretrained(folder)
    return folder


class Clock:
    """Wraps the trainer's evaluation: what lies between the end of one and the start of the next on validation is training."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.seconds: list[float] = []
        self.parameters = 0
        self.since = 0.0

    def install(self, run: Any) -> None:
        make, count = run.ATIO.getTrain, run.count_parameters

        def counted(model: Any) -> int:  # the last call before training
            self.parameters = count(model)
            self.since = time.perf_counter()
            return self.parameters

        def made(atio: Any, args: Any) -> Any:
            trainer = make(atio, args)
            trainer.do_test = self.wrapped(trainer.do_test)
            return trainer

        run.ATIO.getTrain, run.count_parameters = made, counted

    def wrapped(self, evaluate: Any) -> Any:
        def call(model: Any, loader: Any, mode: str = "VAL", **named: Any) -> Any:
            if mode == "VAL":
                self.seconds.append(time.perf_counter() - self.since)
                if len(self.seconds) == self.epochs:
                    raise Enough
            result = evaluate(model, loader, mode=mode, **named)
            self.since = time.perf_counter()
            return result

        return call


def measure(model: str, pickle: str, epochs: int, settings: dict[str, Any], folder: str) -> dict[str, Any]:
    import MMSA.run
    from MMSA import MMSA_run, get_config_regression

    config = get_config_regression(model, "mosi")
    config["featurePath"] = pickle
    if config.get("use_bert"):
        config["pretrained"] = text_encoder(folder)
    config |= settings
    clock = Clock(epochs)
    clock.install(MMSA.run)
    places = {name: os.path.join(folder, name) for name in ("model_save_dir", "res_save_dir", "log_dir")}
    with suppress(Enough):
        MMSA_run(model, "mosi", config=config, seeds=[1], gpu_ids=[], num_workers=0, verbose_level=0, **places)
    return {
        "seconds": clock.seconds,
        "parameters": clock.parameters,
        "batch": config["batch_size"],
        "accumulate": config.get("update_epochs", 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    model, pickle, epochs, threads, *settings = sys.argv[1:]
    prepare(int(threads))
    try:
        with tempfile.TemporaryDirectory() as folder:
            pairs = (text.split("=", 1) for text in settings)
            found = measure(model, pickle, int(epochs), {key: json.loads(value) for key, value in pairs}, folder)
    except Exception:
        found = {"error": traceback.format_exc(limit=-3)}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()

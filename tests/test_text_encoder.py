"""A text encoder trained with a method: what reaches the method, what is trained how fast, what a trial's key says."""

from __future__ import annotations

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import CLASSIFIERS, CLOSE, NAMES, READS, whole
from kit import call, job, tiny_dataset, trial
from test_text import tiny_encoder

from harness.data import store, text
from harness.data.batches import gather
from harness.data.schema import Dataset, Split
from harness.data.splits import Fold, cut
from harness.errors import ConfigError, DataError
from harness.experiments.worker import run_trial
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Training, methods
from harness.training.loop import build, train
from harness.training.settings import TextEncoder
from harness.training.text_encoder import WithTextEncoder, tokenised

pytest.importorskip("transformers")
WORDS = {False: "BAD MOVIE", True: "good fine movie"}
NOT_TRAINED = {"majority", "ridge", *CLASSIFIERS}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


def spoken(seed: int = 0) -> Dataset:
    """The tiny set with noise as its stored text features and transcripts that tell a label's sign."""
    data = tiny_dataset(seed=seed)
    clips = data.clips.assign(text=[WORDS[bool(label > 0)] for label in data.clips["label"]])
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=data.features["text"].values.shape).astype(np.float32))
    return replace(data, clips=clips, features={**data.features, "text": replace(data.features["text"], values=noise)})


def settings_of(encoder: Path, **more: Any) -> TextEncoder:
    return TextEncoder(path=str(encoder), **more)


def parts_of(encoder: Path) -> Any:
    return cut(tokenised(spoken(), settings_of(encoder)), Fold())


def built(name: str, encoder: Path, split: Split, **more: Any) -> Method:
    config = methods[name].Config(text_encoder=settings_of(encoder, **more))
    return build(methods[name], Inputs({key: x.dim for key, x in split.features.items()}), spoken().card.task, config, 1)


class Reader(Method):
    """Notes what it is given."""

    def __init__(self, inputs: Inputs, task: Any, config: MethodConfig) -> None:
        super().__init__(inputs, task, config)
        self.inputs, self.seen, self.fitted = inputs, {}, {}
        self.linear = torch.nn.Linear(inputs.dims["text"], 1)

    def fit(self, train: Split) -> None:
        self.fitted = {"frames": train.frames("text"), "means": train.means("text"), "ids": train.ids}

    def forward(self, batch: Batch) -> Output:
        self.seen = dict(batch.features)
        return Output(self.linear(batch.mean("text")).squeeze(1))


def reader(encoder: Path, split: Split, **more: Any) -> WithTextEncoder:
    config = MethodConfig(text_encoder=settings_of(encoder, **more))
    method = build(Reader, Inputs({key: x.dim for key, x in split.features.items()}), spoken().card.task, config, 1)
    assert isinstance(method, WithTextEncoder)
    return method


def test_a_method_is_given_the_encoders_states_with_zeros_at_padding(encoder: Path) -> None:
    """Against the model called on one text at a time."""
    from transformers import AutoModel

    train_part = parts_of(encoder)["train"]
    method, model = reader(encoder, train_part).eval(), AutoModel.from_pretrained(encoder).eval()
    batch = whole(train_part)
    with torch.inference_mode():
        method(batch)
        assert method.method.inputs.dims == {"text": 8, "audio": 3}
        states = method.method.seen["text"]
        for i, clip in enumerate(train_part.ids[:8]):
            positive = bool(spoken().clips.set_index("id").loc[clip, "label"] > 0)
            ids = [2, 5, 8, 7, 3] if positive else [2, 6, 7, 3]
            expected = model(torch.tensor([ids])).last_hidden_state[0]
            torch.testing.assert_close(states[i, : len(ids)], expected, **CLOSE)
            assert not states[i, len(ids) :].any()
        padded = replace(batch, features={name: F.pad(x, (0, 0, 0, 5)) for name, x in batch.features.items()})
        torch.testing.assert_close(method(padded).prediction, method(batch).prediction, **CLOSE)
        alone = torch.cat([method(gather(train_part, torch.tensor([i]))).prediction for i in range(5)])
        torch.testing.assert_close(alone, method(batch).prediction[:5], **CLOSE)


def test_a_method_that_fits_statistics_sees_states_not_tokens(encoder: Path) -> None:
    train_part = parts_of(encoder)["train"]
    method = reader(encoder, train_part).eval()
    method.fit(train_part)
    fitted = method.method.fitted
    with torch.no_grad():
        method(whole(train_part))
    real = whole(train_part).mask("text")
    torch.testing.assert_close(fitted["frames"], method.method.seen["text"][real], **CLOSE)
    torch.testing.assert_close(fitted["means"], method.method.seen["text"].sum(1) / real.sum(1, keepdim=True), **CLOSE)


def test_every_hook_of_a_method_reaches_the_method_behind_the_encoder() -> None:
    hooks = {name for name, value in vars(Method).items() if inspect.isfunction(value) and not name.startswith("__")}
    assert hooks <= set(vars(WithTextEncoder))


def test_the_encoder_has_its_own_rate_and_frozen_parts_stay(encoder: Path) -> None:
    parts = parts_of(encoder)
    method = reader(encoder, parts["train"], learning_rate=1e-2, frozen_layers=1, frozen_embeddings=True)
    rates = [group.get("lr") for group in method.parameter_groups(Training())]
    assert rates == [None, 1e-2]
    before = {name: x.clone() for name, x in method.text_encoder.named_parameters()}
    config = MethodConfig(task_loss="mse", text_encoder=method.settings, training=Training(max_epochs=1))
    train(method, parts["train"], parts["valid"], spoken().card.task, config, 1)
    moved = {name for name, x in method.text_encoder.named_parameters() if not torch.equal(x, before[name])}
    assert not any("layer.0." in name or "word_embeddings" in name for name in moved)
    assert any("layer.1." in name for name in moved)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_TRAINED and name not in READS])
def test_any_text_method_trains_an_encoder(name: str, encoder: Path) -> None:
    train_part = parts_of(encoder)["train"]
    try:
        method = built(name, encoder, train_part)
    except ConfigError as error:
        assert "vision" in error.problem  # the tiny set has none
        return
    method.fit(train_part)
    output = method.train()(gather(train_part, torch.arange(12)))
    loss = output.prediction.square().mean() + sum(output.losses.values())
    loss.backward()
    assert output.prediction.isfinite().all()
    used = {key for key, x in method.text_encoder.named_parameters() if x.grad is not None and x.grad.any()}
    assert any("layer.0." in key for key in used) and any("word_embeddings" in key for key in used)


@pytest.mark.parametrize("name", sorted(NOT_TRAINED - set(CLASSIFIERS)))
def test_a_method_without_gradient_steps_is_refused(name: str, encoder: Path) -> None:
    with pytest.raises(ConfigError, match="no gradient step"):
        built(name, encoder, parts_of(encoder)["train"])


# ---- as a setting of a trial


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    store.save(spoken(), root)
    return root


def planned(root: Path, encoder: Path | str, **settings: Any) -> Any:
    return trial(store.load("mosi@tiny", root), text_encoder__path=str(encoder), **settings)


def test_training_the_encoder_learns_what_stored_features_cannot_tell(data_root: Path, encoder: Path, tmp_path: Path) -> None:
    options = {"training__max_epochs": 12, "training__learning_rate": 0.01}
    plain = run_trial(job(trial(store.load("mosi@tiny", data_root), **options), data_root, tmp_path), lambda event: None)
    one = planned(data_root, encoder, text_encoder__learning_rate=0.01, **options)
    first, again = (run_trial(job(one, data_root, tmp_path), lambda event: None) for _ in range(2))
    assert first.record == again.record
    assert first.record.test["mae"] < plain.record.test["mae"] - 0.2
    assert first.record.parameters > plain.record.parameters


def test_the_key_speaks_for_weights_and_transcripts_and_not_for_the_folders_name(data_root: Path, encoder: Path, tmp_path: Path) -> None:
    first = planned(data_root, encoder)
    moved = Path(shutil.copytree(encoder, tmp_path / "elsewhere"))
    assert planned(data_root, moved).key == first.key
    (other,) = [path for path in moved.iterdir() if path.suffix == ".safetensors"]
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(bytes(content))
    assert planned(data_root, moved).key != first.key
    retold = spoken()
    store.save(replace(retold, clips=retold.clips.assign(text="fine movie")), tmp_path / "retold")
    assert planned(tmp_path / "retold", encoder).key != first.key
    assert trial(store.load("mosi@tiny", tmp_path / "retold")).key == trial(store.load("mosi@tiny", data_root)).key


def test_transcripts_are_enough_for_text(encoder: Path, tmp_path: Path) -> None:
    silent = spoken()
    cards = {"audio": silent.card.modalities["audio"]}
    bare = replace(silent, card=silent.card.model_copy(update={"modalities": cards}), features={"audio": silent.features["audio"]})
    store.save(bare, tmp_path)
    one = planned(tmp_path, encoder, training__max_epochs=1)
    assert one.identity.modalities == ("text", "audio")
    assert run_trial(job(one, tmp_path, tmp_path), lambda event: None).record.best_epoch == 1


def test_mistakes_name_the_key_and_the_file(data_root: Path, encoder: Path, tmp_path: Path) -> None:
    def fails(match: str, path: Path | str = encoder, root: Path = data_root, **settings: Any) -> None:
        with pytest.raises(ConfigError, match=match):
            planned(root, path, **settings)

    fails("text_encoder.path.*no_such_folder", "no_such_folder")
    bare = Path(shutil.copytree(encoder, tmp_path / "bare"))
    for path in bare.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    fails("bare holds no tokenizer", bare)
    store.save(tiny_dataset(), tmp_path / "mute")
    fails("mosi@tiny have no transcripts", root=tmp_path / "mute")
    fails("text_encoder.max_tokens = 61: .*max_position_embeddings = 60", text_encoder__max_tokens=61)
    fails("text_encoder.frozen_layers = 3", text_encoder__frozen_layers=3)
    fails("text_encoder.learning_rate", text_encoder__learning_rate=-1)
    (bare / "vocab.txt").write_text("[PAD]\n[UNK]")
    (bare / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(DataError, match="bare holds no usable model"):
        run_trial(job(planned(data_root, bare), data_root, tmp_path), lambda event: None)


def test_a_profile_counts_the_encoder_apart(
    data_root: Path, encoder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MER_DATA", str(data_root))
    monkeypatch.chdir(tmp_path)
    command = ("profile", "lmf", "mosi", "--no-latency", "--json", "costs.json", "--set", f"text_encoder.path={encoder}")
    code, out, _ = call(capsys, *command)
    costs = json.loads((tmp_path / "costs.json").read_text())["methods"]["lmf"]
    (line,) = [line for line in out.splitlines() if "without text encoder: parameters" in line]
    alone = costs["parameters"]["total"] - sum(x.numel() for x in text.load(text.find(str(encoder))).parameters())
    assert code == 0 and f"{alone:,}" in line


def test_the_command_line_explains_a_trial_with_an_encoder(
    data_root: Path, encoder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MER_DATA", str(data_root))
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, "run", "tfn", "mosi", "--set", f"text_encoder.path={encoder}", "--explain")
    assert code == 0 and "would be run" in out
    code, _, err = call(capsys, "run", "tfn", "mosi", "--modalities", "audio", "--set", f"text_encoder.path={encoder}", "--explain")
    assert code == 2 and "none is text" in err
    code, out, _ = call(capsys, "run", "tfn", "mosi", "--set", "missing.rate=0.5", "--explain")
    assert code == 0 and "would be run" in out
    code, _, err = call(capsys, "run", "tfn", "mosi", "--set", "missing.rate=1.5", "--explain")
    assert code == 2 and "missing.rate" in err

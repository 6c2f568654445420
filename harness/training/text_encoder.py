"""A text encoder that is trained with a method: token ids come in as the modality ``text``, hidden states reach the method.

No method knows of it. ``pinned`` checks the setting and puts the encoder's content into a trial's configuration,
``tokenised`` turns a data set's transcripts into token ids, and ``WithTextEncoder`` stands between batch and method.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from harness.data import text
from harness.data.batches import Batch, in_order
from harness.data.schema import Card, Dataset, Ragged, Split
from harness.errors import ConfigError
from harness.training.contract import Method, MethodConfig, Output
from harness.training.settings import TextEncoder, Training

FITTED_AT_ONCE = 32  # clips per batch where a method is fitted on the untrained encoder's states
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")

C = TypeVar("C", bound=MethodConfig)


def pinned(config: C, card: Card) -> C:
    """``config`` with the hashes of its encoder's folder and of the transcripts that it reads; unchanged without an encoder.

    Raises ConfigError where the folder holds no model or no tokenizer, a number does not fit the model, the package
    transformers is not installed, or the data set has no transcripts.
    """
    settings = config.text_encoder
    if settings.path is None:
        return config
    _check(settings, _folder(settings.path), card)
    known = {"weights": text.content(_folder(settings.path)), "transcripts": card.transcripts}
    return config.model_copy(update={"text_encoder": settings.model_copy(update=known)})


def tokenised(dataset: Dataset, settings: TextEncoder) -> Dataset:
    """``dataset`` with the token ids of its transcripts as modality ``text``; unchanged without an encoder."""
    if settings.path is None:
        return dataset
    tokens = text.tokenise([str(one) for one in dataset.clips["text"]], text.find(settings.path), settings.max_tokens)
    return replace(dataset, features={"text": tokens, **{name: x for name, x in dataset.features.items() if name != "text"}})


def load(settings: TextEncoder) -> nn.Module:
    """The encoder with its frozen parts frozen."""
    assert settings.path is not None
    encoder: nn.Module = text.load(text.find(settings.path))
    frozen = [*_layers(encoder)[: settings.frozen_layers]]
    if settings.frozen_embeddings:
        frozen.append(encoder.get_input_embeddings())  # type: ignore[operator]
    for module in frozen:
        module.requires_grad_(False)
    return encoder


def width(encoder: nn.Module) -> int:
    """Features per token."""
    return int(encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]


class WithTextEncoder(Method):
    """``method`` reading an encoder's last hidden states, (B, T, width), zero at padding, instead of stored text features."""

    def __init__(self, method: Method, encoder: nn.Module, settings: TextEncoder) -> None:
        nn.Module.__init__(self)
        if not any(parameter.requires_grad for parameter in method.parameters()):
            raise ConfigError(
                f"text_encoder.path = '{settings.path}': no gradient step trains {type(method).__name__}, so none can train the encoder",
                "Import the data set with --text-encoder to give it that encoder's frozen features.",
            )
        self.method, self.text_encoder, self.settings = method, encoder, settings

    def forward(self, batch: Batch) -> Output:
        return self.method(replace(batch, features={**batch.features, "text": self._states(batch)}))  # type: ignore[no-any-return]

    def fit(self, train: Split) -> None:
        """Methods that fit statistics see the states of the encoder before training."""
        if type(self.method).fit is not Method.fit:
            self.method.fit(replace(train, features={**train.features, "text": self._encoded(train)}))

    def parameter_groups(self, training: Training) -> list[dict[str, Any]]:
        trained = [parameter for parameter in self.text_encoder.parameters() if parameter.requires_grad]
        group = {"params": trained, "lr": self.settings.learning_rate, "weight_decay": self.settings.weight_decay}
        return self.method.parameter_groups(training) + ([group] if trained else [])

    def _states(self, batch: Batch) -> Tensor:
        mask, ids = batch.mask("text"), batch.features["text"][..., 0]
        if ids.is_floating_point():  # a profile's synthetic batch: any token costs what another does
            ids = ids.abs().long()
        states: Tensor = self.text_encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return states * mask[..., None]

    def _encoded(self, train: Split) -> Ragged:
        """The states of all tokens of ``train``, at the clips' own rows; other rows are empty."""
        lengths = torch.zeros(len(train.features["text"].offsets) - 1, dtype=torch.int64)
        lengths[train.rows] = train.lengths("text")
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        values = torch.empty(int(offsets[-1]), width(self.text_encoder))
        for row, states in self._clips(train):
            values[offsets[row] : offsets[row + 1]] = states
        return Ragged(values, offsets)

    def _clips(self, train: Split) -> Iterator[tuple[int, Tensor]]:
        self.text_encoder.eval()
        device = next(self.text_encoder.parameters()).device
        for batch in in_order(train.only(["text"]), FITTED_AT_ONCE):
            with torch.no_grad():
                states = self._states(batch.to(device)).cpu()
            for position, clip, length in zip(batch.position.tolist(), states, batch.lengths["text"].tolist(), strict=True):
                yield int(train.rows[position]), clip[:length]


def _folder(path: str) -> Path:
    try:
        return text.find(path).folder
    except ConfigError as error:
        raise ConfigError(f"text_encoder.path: {error.problem}", error.fix) from None


def _check(settings: TextEncoder, folder: Path, card: Card) -> None:
    if find_spec("transformers") is None:
        raise ConfigError("text_encoder.path needs the package 'transformers', which is not installed", text.NEEDS_EXTRA)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ConfigError(
            f"text_encoder.path = '{settings.path}': {folder} holds no tokenizer ({', '.join(TOKENIZERS)})",
            "Save the tokenizer there too, with its save_pretrained.",
        )
    if not card.transcripts:
        raise ConfigError(
            f"text_encoder.path = '{settings.path}': the clips of {card.name} have no transcripts (column 'text' of its clips is empty)",
            "Import the data set from files that hold its texts, or leave text_encoder out.",
        )
    facts = _facts(folder)
    for key, name in {"max_tokens": "max_position_embeddings", "frozen_layers": "num_hidden_layers"}.items():
        value, most = getattr(settings, key), facts.get(name)
        if isinstance(most, int) and value > most:
            raise ConfigError(f"text_encoder.{key} = {value}: {folder / 'config.json'} has {name} = {most}", f"Allowed: at most {most}.")


def _facts(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"text_encoder.path: {path} cannot be read: {error}", "Save the model anew with save_pretrained.") from None


def _layers(encoder: nn.Module) -> list[nn.Module]:
    """The encoder's layers from input to output: the first list of modules that is as long as the model is deep."""
    depth = getattr(encoder.config, "num_hidden_layers", None)
    lists = (module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module) == depth)
    return list(next(lists, []))

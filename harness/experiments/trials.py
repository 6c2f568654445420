"""Trials: what is run once, and the key that says whether it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from harness.data.schema import MODALITIES, Card, Frozen
from harness.data.splits import Fold
from harness.errors import ConfigError
from harness.experiments import code
from harness.registry import suggest
from harness.training import text_encoder
from harness.training.contract import Method, MethodConfig, methods
from harness.training.settings import BUDGETS, Budget


class Identity(Frozen):
    """All that can change a trial's numbers, and nothing else; its hash is the trial's key (DESIGN: trial identity)."""

    method: str
    code: dict[str, str]
    config: dict[str, Any]
    dataset: str
    data: str
    modalities: tuple[str, ...]
    seed: int
    fold: Fold

    @cached_property
    def key(self) -> str:
        """20 hexadecimal digits. Names of stored things are left out: the fingerprints of data and text encoder say what they hold."""
        content = self.model_dump(mode="json", exclude={"dataset": True, "config": {"text_encoder": {"path"}}})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Identity:
        """A copy, which has a key of its own."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("key", None)
        return copied


class Trial(Frozen):
    """One run to be made: the identity, and the labels under which tables and MLflow file it."""

    identity: Identity
    budget: str

    @property
    def key(self) -> str:
        return self.identity.key

    @property
    def label(self) -> str:
        """A short name for people: method, data, seed and fold."""
        fold = "" if self.identity.fold.protocol == "official" else f" {self.identity.fold}"
        return f"{self.identity.method} · {self.identity.dataset} · seed {self.identity.seed}{fold}"


def resolve_config(method: type[Method], dataset: str, budget: Budget, device: str, overrides: Mapping[str, Any]) -> MethodConfig:
    """The method's defaults, its preset for ``dataset``, the budget's caps, then the user's own settings.

    ``overrides`` has dotted keys (``training.learning_rate``). Raises ConfigError naming the key and the value.
    """
    if method.closed_form:
        budget = budget.model_copy(update={"longest": None})
    preset = _validate(method, dict(method.presets.get(dataset, {})), f"the preset '{dataset}'")
    capped = preset.model_copy(update={"training": budget.apply(preset.training).model_copy(update={"device": device})})
    settings = capped.model_dump()
    for key, value in overrides.items():
        _set(settings, key, value, method)
    return _validate(method, settings, "--set")


def make_trial(
    name: str,
    card: Card,
    config: MethodConfig,
    *,
    seed: int,
    fold: Fold,
    budget: str,
    modalities: tuple[str, ...] | None = None,
    codes: Mapping[str, str] | None = None,
) -> Trial:
    """The trial of method ``name`` on the stored data set of ``card``; ConfigError where a setting does not fit the data.

    ``codes``: the method's fingerprints, where they are known; to take them reads all its modules.
    """
    config = text_encoder.pinned(config, card)
    identity = Identity(
        method=name,
        code=dict(codes or code.fingerprints(methods[name].__module__)),
        config=config.model_dump(mode="json"),
        dataset=card.name,
        data=card.fingerprint,
        modalities=_with_encoder(config, card, modalities),
        seed=seed,
        fold=fold,
    )
    return Trial(identity=identity, budget=budget)


def choose_modalities(card: Card, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """The modalities to use in the order text, audio, vision; ConfigError where the data lacks one."""
    present = tuple(name for name in MODALITIES if name in card.modalities)
    for name in wanted or ():
        if name not in present:
            raise ConfigError(f"{card.name} has no modality '{name}'", suggest(name, present))
    return tuple(name for name in present if name in wanted) if wanted else present


def _with_encoder(config: MethodConfig, card: Card, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """As ``choose_modalities``; with a text encoder, transcripts are enough for text."""
    if config.text_encoder.path is None:
        return choose_modalities(card, wanted)
    if wanted and "text" not in wanted:
        raise ConfigError(
            f"text_encoder.path = '{config.text_encoder.path}' is set, but of the modalities {', '.join(wanted)} none is text",
            "Add text, or leave text_encoder out.",
        )
    others = tuple(name for name in wanted or card.modalities if name != "text")
    return ("text", *(choose_modalities(card, others) if others else ()))


def explain(wanted: Identity, known: Identity) -> list[str]:
    """What differs between a trial and a recorded one, one line each; empty when their keys are equal."""
    lines = [f"code: {module} changed" for module in code.differing(known.code, wanted.code)]
    before, after = (dict(flatten(identity.model_dump(mode="json", exclude={"code", "dataset"}))) for identity in (known, wanted))
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return lines + [f"{name}: {before.get(name)!r} was recorded, {after.get(name)!r} is asked for" for name in changed]


def budget_named(name: str) -> Budget:
    if name not in BUDGETS:
        raise ConfigError(f"there is no budget called '{name}'", suggest(name, BUDGETS))
    return BUDGETS[name]


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries with dotted names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _set(settings: dict[str, Any], key: str, value: Any, method: type[Method]) -> None:
    *parents, last = key.split(".")
    place = settings
    for parent in parents:
        place = place.get(parent) if isinstance(place, dict) else None  # type: ignore[assignment]
    if not isinstance(place, dict) or last not in place:
        keys = [name for name, _ in flatten(method.Config().model_dump())]
        raise ConfigError(f"{method.__name__} has no setting '{key}' (value {value!r})", suggest(key, keys))
    place[last] = value


def _validate(method: type[Method], settings: dict[str, Any], where: str) -> MethodConfig:
    try:
        return method.Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"{method.__name__}: {where} is not valid: {describe(error)}", "See `harness list methods --verbose`.") from None


def describe(error: ValidationError) -> str:
    """A validation error as one line: key, value, what is allowed. Where settings do not go together, that says which."""
    return "; ".join(map(_described, error.errors()))


def _described(fault: Mapping[str, Any]) -> str:
    value = "" if isinstance(fault["input"], Mapping) else f" = {fault['input']!r}"
    return f"{'.'.join(map(str, fault['loc']))}{value}: {fault['msg'].removeprefix('Value error, ')}"

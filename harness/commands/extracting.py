"""``data extract``: features from the media and transcripts of a stored data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.commands.running import parse_setting
from harness.data import store
from harness.data.features import Extractor, extractors
from harness.data.features.extraction import BadClip, extract_features
from harness.data.opening import open_dataset
from harness.errors import ConfigError
from harness.experiments.trials import describe
from harness.registry import suggest
from harness.reporting.cards import card_text


def extract(name: str, asked: Mapping[str, str], variant: str, settings: Sequence[str], workers: int, bad: str = "error") -> None:
    """Extract what is ``asked`` (modality -> extractor) and print the card of the new data set."""
    if bad not in get_args(BadClip):
        raise ConfigError(f"--on-bad-clip {bad} is not known", suggest(bad, get_args(BadClip)))
    console, root = Console(), store.data_root()
    chosen = choose({modality: extractor for modality, extractor in asked.items() if extractor}, dict(map(parse_setting, settings)))
    dataset = open_dataset(name, root)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("extracting", total=None)

        def show(done: int, total: int, known: int) -> None:
            progress.update(task, completed=done, total=total, description=f"extracting ({known} known)" if known else "extracting")

        stored = extract_features(
            dataset,
            chosen,
            variant=variant or "+".join(extractor.name for extractor in chosen),
            root=root,
            workers=workers or os.cpu_count() or 1,
            progress=show,
            bad=cast(BadClip, bad),
        )
    _say(console, card_text(stored.card))
    _say(console, f"Stored as {root / stored.card.name}. Use it: harness run METHOD {stored.card.name}")


def choose(asked: Mapping[str, str], settings: Mapping[str, Any]) -> list[Extractor]:
    """Extractors by modality with their settings (``mfcc.coefficients`` -> 13); ConfigError for what does not fit."""
    if not asked:
        raise ConfigError("no extractor is named", "Name one: --audio mfcc. All of them: harness data extract --list.")
    chosen = [_known(modality, extractor) for modality, extractor in asked.items()]
    given: dict[str, dict[str, Any]] = {one.name: {} for one in chosen}
    for key, value in settings.items():
        extractor, _, setting = key.partition(".")
        if extractor not in given:
            raise ConfigError(f"--set {key}: '{extractor}' is not an extractor of this call", suggest(extractor, given))
        given[extractor][setting] = value
    return [_made(one, given[one.name]) for one in chosen]


def listing() -> None:
    """Print all extractors with their settings."""
    console = Console()
    for name in extractors:
        extractor = extractors[name]
        first = (extractor.__doc__ or "").strip().partition("\n\n")[0]
        _say(console, f"{name:12} --{extractor.modality}, reads {extractor.reads}. {' '.join(first.split())}")
        for key, setting in extractor.model_fields.items():
            _say(console, f"    --set {name}.{key}={_written(setting.default)}  {setting.description or ''}")
    for module, why in extractors.broken.items():
        _say(console, f"! {module} could not be imported: {why}")


def _known(modality: str, name: str) -> type[Extractor]:
    extractor = extractors[name]
    if extractor.modality != modality:
        alike = [other for other in extractors if extractors[other].modality == modality]
        raise ConfigError(f"--{modality} {name}: '{name}' extracts {extractor.modality}", suggest(name, alike))
    return extractor


def _made(extractor: type[Extractor], settings: dict[str, Any]) -> Extractor:
    for key, value in settings.items():
        if key not in extractor.model_fields:
            raise ConfigError(f"{extractor.name} has no setting '{key}' (value {value!r})", suggest(key, extractor.model_fields))
    try:
        return extractor.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"{extractor.name}: {describe(error)}", "See `harness data extract --list`.") from None


def _written(value: Any) -> str:
    return "null" if value is None else str(value)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)

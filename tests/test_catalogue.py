"""The catalogue: entries that ship, entries of one's own, faulty entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data import catalogue
from harness.errors import ConfigError


def test_the_official_sizes() -> None:
    assert catalogue.facts("mosi").splits == {"train": 1284, "valid": 229, "test": 686}
    assert catalogue.facts("mosei").splits == {"train": 16326, "valid": 1871, "test": 4659}


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no data set called 'mossi'\nDid you mean 'mosi'"):
        catalogue.facts("mossi")


def test_a_users_own_entry_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MER_DATA", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    entry = tmp_path / "datasets" / "mine.toml"
    entry.write_text('title = "Mine"\nmetrics = ["uar"]\n[task]\nkind = "classification"\nclasses = ["a", "b"]\n')
    assert catalogue.facts("mine").task.outputs == 2 and {"mine", "mosi", "mosei"} <= set(catalogue.known())
    entry.write_text('title = "Mine"\nmetrics = ["uar"]\nspilts = 3\n[task]\nkind = "clustering"\n')
    with pytest.raises(ConfigError, match=r"mine\.toml: (?s:.)*spilts = 3: Extra(?s:.)*Keys: name, title"):
        catalogue.facts("mine")
    entry.write_text("title = ")
    with pytest.raises(ConfigError, match=r"mine\.toml is not a TOML file"):
        catalogue.facts("mine")
    (tmp_path / "datasets" / "mosi.toml").write_text("")
    with pytest.raises(ConfigError, match="two files describe the data set 'mosi'"):
        catalogue.facts("mosi")

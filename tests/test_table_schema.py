"""The JSON schema of table files: the one that is stored is made from the code, takes every file of the papers, refuses faults."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from test_papers import MINIMAL

from harness.experiments import table_schema
from harness.experiments.papers import TableSpec

jsonschema = pytest.importorskip("jsonschema")
REPORTS = Path(__file__).parents[1] / "reports"
SCHEMA = json.loads(table_schema.text())


def fits(content: dict) -> bool:
    return not list(jsonschema.Draft7Validator(SCHEMA).iter_errors(content))


def test_the_stored_schema_is_the_codes(golden) -> None:
    """``pytest --overwrite-golden`` writes it anew."""
    golden("../../reports/table.schema.json", table_schema.text())


@pytest.mark.parametrize("path", sorted(REPORTS.glob("*/*.toml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_the_papers_fits(path: Path) -> None:
    assert fits(tomllib.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('title = "A table"', 'titel = "A table"'),
        ('name = "B"', 'name = "B"\nmethode = "tfn"'),
        ('"mae", "acc2_nonzero"]', '"mae", "acc2"]'),
        ('["mosi"]', '["mosy"]'),
        ("mae = 0.900", 'mae = "0.900"'),
        ("seeds =", 'kind = "ablations"\nseeds ='),
        ("dagger = true", "dager = true"),
        ("seeds =", 'paper = "mine"\nseeds ='),
        ("seeds =", 'protocol = { kind = "folds" }\nseeds ='),
    ],
)
def test_faults_do_not(old: str, new: str) -> None:
    assert fits(tomllib.loads(MINIMAL)) and old in MINIMAL
    assert not fits(tomllib.loads(MINIMAL.replace(old, new, 1)))


@pytest.mark.parametrize("protocol", ['"official"', '{ kind = "grouped", folds = 5 }', '[{ kind = "grouped", folds = 5 }]'])
def test_protocols_have_their_short_forms(protocol: str) -> None:
    assert fits(tomllib.loads(f"protocol = {protocol}\n{MINIMAL}"))


def test_every_key_of_a_table_is_offered() -> None:
    assert set(SCHEMA["definitions"]["scores"]["properties"]) == set(TableSpec.model_fields) - {"paper", "item"}

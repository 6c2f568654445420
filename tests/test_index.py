"""The index of ``harness list``: it says what a look-up says, notices every file that changes, and loads no library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kit import call, stored

from harness.commands import index
from harness.commands.inventories import ENTRIES
from harness.data.store import names

WRITE = "python -m harness.commands.index"


@pytest.mark.parametrize("what", sorted(ENTRIES))
def test_the_index_is_what_a_look_up_finds(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MER_DATA", str(tmp_path))
    kept = json.loads(index.FILE.read_text(encoding="utf-8"))[what]
    found = [entry for entry in ENTRIES[what]() if what != "methods" or " own " not in entry[0][:30]]  # other tests bring methods
    assert kept["entries"] == found, f"write it anew: {WRITE}"
    assert kept["sources"] == index.sources(what), f"write it anew: {WRITE}"
    assert index.entries(what) == kept["entries"]


def test_listing_loads_no_library() -> None:
    program = (
        "import sys\nfrom harness.commands.listing import list_things\n"
        "for what in ('methods', 'tables', 'datasets'): list_things(what, False)\n"
        "assert not {'torch', 'numpy', 'pandas', 'pydantic', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "tfn" in done.stdout and "iidaf/t3" in done.stdout and "CMU-MOSI" in done.stdout, done.stderr


def test_a_table_of_ones_own_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(capsys, "new-table", "mine/t1")[0] == 0
    assert index.entries("tables") is None
    code, out, _ = call(capsys, "list", "tables")
    assert code == 0 and "mine/t1" in out and "iidaf/t3" in out


def test_a_changed_method_is_looked_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    changed = tmp_path / "tfn.py"
    changed.write_text("# other")
    there = list(index._methods())
    for others in ([pair for pair in there if pair[0] != "baselines/tfn.py"], [*there, ("methods/mine.py", changed)]):
        monkeypatch.setattr(index, "_methods", lambda others=others: iter(others))
        assert index.entries("methods") is None
    swapped = [(name, changed if name == "baselines/tfn.py" else path) for name, path in there]
    monkeypatch.setattr(index, "_methods", lambda: iter(swapped))
    assert index.entries("methods") is None


def test_data_sets_are_listed_with_what_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MER_DATA", str(tmp_path))
    stored(tmp_path)
    (tmp_path / ".mosi@half.new").mkdir()
    (tmp_path / ".mosi@half.new" / "card.json").write_text("{}")
    assert tuple(index.stored(tmp_path)) == names(tmp_path) == ("mosi@tiny",)
    code, out, _ = call(capsys, "list", "datasets")
    assert code == 0 and "stored: mosi@tiny" in out
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "own.toml").write_text("title = 'My own'\nnonsense")
    assert index.entries("datasets") is None
    code, _, err = call(capsys, "list", "datasets")
    assert code == 2 and "own.toml" in err

"""Tests that were made before are not made again: what counts as the same, and what is kept."""

from __future__ import annotations

import json
import re
from math import isnan
from pathlib import Path

import pytest
from test_tables import CLIPS, Case, a_case, guesses

from harness.reporting import compare, memory
from harness.reporting.collect import Measured, collect
from harness.reporting.compare import Family
from harness.reporting.memory import NUMBERS, OUTCOMES


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return a_case(tmp_path)


def family(case: Case, known: memory.Remembered | None, resamples: int = 200, seed: int = 0) -> Family:
    return compare.compare_rows(case.spec, case.measured(), resamples=resamples, seed=seed, memory=known)


def told(found: Family) -> str:
    """All of it, whole numbers of freedom written alike."""
    return re.sub(r"df=(\d+)\.0,", r"df=\1,", repr(found))


def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one with every pair of rows that is really tested."""
    count, real = [], compare.compare
    monkeypatch.setattr(compare, "compare", lambda *a, **k: count.append("pair") or real(*a, **k))
    return count


def test_a_memory_changes_nothing_but_the_time(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a file and back, undefined values and all."""
    plain = family(case, None)
    known = memory.load(tmp_path / "m.json", "code", OUTCOMES)
    assert told(family(case, known)) == told(plain) and any(isnan(test.adjusted) for test in plain.tests)
    memory.save(tmp_path / "m.json", "code", OUTCOMES, known)
    count = made(monkeypatch)
    assert told(family(case, memory.load(tmp_path / "m.json", "code", OUTCOMES))) == told(plain) and count == []


def test_what_changes_an_outcome_is_tested_again(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    known = memory.Remembered({})
    family(case, known)
    count = made(monkeypatch)
    for changed, pairs in (({"resamples": 201}, 3), ({"seed": 1}, 3), ({}, 0)):
        family(case, known, **changed)
        assert len(count) == pairs
        count.clear()
    case.put("Weak_1", 1, [*guesses("Weak_1", 1)[:-1], 0.123])
    family(case, known)
    assert len(count) == 1  # its own pair alone
    case.put("Strong", 1, [*guesses("Strong", 1)[:-1], 0.123])
    family(case, known)
    assert len(count) == 1 + 3  # the reference stands in all pairs
    case.lose("Weak_1", 2)
    family(case, known)
    assert len(count) == 1 + 3 + 1
    case.spec = case.spec.model_copy(update={"metrics": ("mae", "corr")})
    family(case, known)
    assert len(count) == 1 + 3 + 1 + 3


def test_only_what_was_asked_for_is_kept_and_only_of_this_code(case: Case, tmp_path: Path) -> None:
    path, known = tmp_path / "m.json", memory.Remembered({})
    family(case, known)
    old = set(known)
    again = memory.Remembered(known)
    case.put("Weak_1", 1, [0.5] * CLIPS)
    family(case, again)
    memory.save(path, "code", OUTCOMES, again)
    kept = memory.load(path, "code", OUTCOMES)
    assert len(old) == 3 and len(kept) == 3 and len(old & set(kept)) == 2
    assert memory.load(path, "other code", OUTCOMES) == {} == memory.load(tmp_path / "none", "code", OUTCOMES)
    path.write_text(json.dumps({"code": "code", "outcomes": {"k": {"main": []}}}))
    assert memory.load(path, "code", OUTCOMES) == {}
    path.write_text("{")
    assert memory.load(path, "code", OUTCOMES) == {}


@pytest.mark.parametrize("kind", ["outcomes", "scores"])
def test_a_memory_that_was_changed_or_is_of_others_is_not_believed(case: Case, tmp_path: Path, kind: str) -> None:
    """One digit of a number is enough: nothing of the file is used, and the table comes out as without it."""
    path, adapter = tmp_path / "m.json", OUTCOMES if kind == "outcomes" else NUMBERS
    known = memory.Remembered({})
    if kind == "outcomes":
        family(case, known)
    else:
        collect(case.spec.metrics, case.card, case.plan, case.store, known)
    memory.save(path, "code", adapter, known)
    assert memory.load(path, "code", adapter).keys() == known.keys() and known
    good = path.read_bytes()
    place = good.rindex(b"0.") + 2
    path.write_bytes(good[:place] + (b"7" if good[place : place + 1] != b"7" else b"8") + good[place + 1 :])
    assert memory.load(path, "code", adapter) == {}
    path.write_bytes(good[:-10])
    assert memory.load(path, "code", adapter) == {}
    path.write_bytes(good.partition(b"\n")[2])  # as if it had no line that vouches for it
    assert memory.load(path, "code", adapter) == {}
    path.write_bytes(good)
    assert memory.load(path, "another state of the code", adapter) == {}


def test_a_memory_of_other_records_changes_no_number(case: Case, tmp_path: Path) -> None:
    other = a_case(tmp_path / "other")
    for row in other.plan:
        other.put(row, 1, [0.5] * CLIPS)
    foreign, outcomes = memory.Remembered({}), memory.Remembered({})
    collect(other.spec.metrics, other.card, other.plan, other.store, foreign)
    family(other, outcomes)
    plain = collect(case.spec.metrics, case.card, case.plan, case.store)
    found = collect(case.spec.metrics, case.card, case.plan, case.store, foreign)
    assert told_values(found) == told_values(plain) and told(family(case, outcomes)) == told(family(case, None))


def told_values(measured: dict[str, Measured]) -> str:
    return repr({name: row.values for name, row in measured.items()})

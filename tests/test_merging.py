"""`harness records`: merging stores of several machines, and checking what they say."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from kit import call, job, stored, trial
from sklearn.metrics import mean_absolute_error

from harness.experiments.events import Finished
from harness.experiments.merging import merge
from harness.experiments.records import Failure, Predictions, Record, RecordStore
from harness.experiments.verifying import faults
from harness.experiments.worker import run_trial
from harness.experiments.workspace import Workspace


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> list[Finished]:
    """Four trials, one of them tested in further ways too."""
    root = tmp_path_factory.mktemp("data")
    dataset = stored(root)
    trials = [trial(dataset, seed=seed) for seed in (1, 2, 3)]
    trials.append(trial(dataset, seed=4, missing={"rates": (0.5,)}))
    return [run_trial(job(one, root, root), lambda event: None) for one in trials]


def store(folder: Path, *finished: Finished) -> RecordStore:
    made = RecordStore(folder / "records")
    for one in finished:
        made.put(one.record, one.runtime)
    return made


def plainly(write: Any, what: str) -> None:
    write()


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


def rewritten(one: Finished, **changes: Any) -> Finished:
    return Finished(one.record.model_copy(update=changes), one.runtime)


def worse(one: Finished) -> Finished:
    """Another result under the same key: the first prediction is off, and the score with it."""
    predictions = one.record.predictions
    moved = Predictions.model_validate({**predictions.model_dump(), "values": (predictions.values[0] + 1, *predictions.values[1:])})  # type: ignore[operator]
    return rewritten(one, predictions=moved, test={**one.record.test, "mae": mean_absolute_error(moved.truth, moved.values)})


def damage(place: RecordStore, key: str) -> None:
    path = place.path(key)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"parameters":', b'"parameters":1', 1))


# ---- merging


def test_two_overlapping_stores_become_their_union_byte_by_byte(
    finished: list[Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, three, four = finished
    store(tmp_path / "a", one, two)
    store(tmp_path / "b", two, three, four)
    whole = store(tmp_path / "whole", *finished)
    code, out, _ = call(capsys, "records", "merge", str(tmp_path / "a"), str(tmp_path / "b/records"), "--into", str(tmp_path / "c"))
    assert code == 0 and "4 records added, 0 there before" in out
    assert content(tmp_path / "c" / "records") == content(whole.root)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*.json")}
    code, out, _ = call(capsys, "records", "merge", str(tmp_path / "b"), "--into", str(tmp_path / "c"))
    assert code == 0 and "0 records added, 3 there before" in out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*.json")} == before


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_the_stores_does_not_matter(finished: list[Finished], tmp_path: Path, order: tuple[int, ...]) -> None:
    one, two, three, _ = finished
    stores = [store(tmp_path / "a", one, two), store(tmp_path / "b", worse(two), three), store(tmp_path / "c", one, three)]
    target = RecordStore(tmp_path / "target")
    merged = merge([stores[i] for i in order], target, plainly)
    assert target.keys() == sorted([one.key, three.key]) == sorted(merged.added)
    assert [conflict.key for conflict in merged.conflicts] == [two.key]


def test_a_conflict_is_reported_with_both_places_and_nothing_is_overwritten(
    finished: list[Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, *_ = finished
    mine, theirs = store(tmp_path / "mine", one), store(tmp_path / "theirs", worse(one), two)
    before = mine.path(one.key).read_bytes()
    code, out, _ = call(capsys, "records", "merge", str(tmp_path / "theirs"), "--into", str(tmp_path / "mine"))
    assert code == 1 and str(mine.path(one.key)) in out and str(theirs.path(one.key)) in out and "test mae: " in out
    assert "1 records added" in out and "1 in conflict" in out
    assert mine.path(one.key).read_bytes() == before and two.key in mine


def test_another_machine_and_another_label_are_no_conflict(finished: list[Finished], tmp_path: Path) -> None:
    one = finished[0]
    identity = one.record.identity.model_copy(update={"dataset": "mosi@renamed"})
    environment = one.record.environment.model_copy(update={"processor": "another", "commit": "0"})
    mine, theirs = store(tmp_path / "a", one), store(tmp_path / "b", rewritten(one, environment=environment, identity=identity, budget="x"))
    before = content(tmp_path / "a")
    assert merge([theirs], mine, plainly).known == [one.key] and content(tmp_path / "a") == before


@pytest.mark.parametrize("field", ["parameters", "best_epoch", "split_hash", "simulated"])
def test_every_part_of_a_result_counts(finished: list[Finished], field: str) -> None:
    record = finished[0].record
    other = {"parameters": 1, "best_epoch": 99, "split_hash": "0", "simulated": False}[field]
    assert record.model_copy(update={field: other}).result != record.result


def test_a_damaged_record_is_left_out_and_named(finished: list[Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, *_ = finished
    source = store(tmp_path / "a", one, two)
    damage(source, one.key)
    code, out, _ = call(capsys, "records", "merge", str(tmp_path / "a"), "--into", str(tmp_path / "b"))
    assert code == 1 and str(source.path(one.key)) in out and "checksum" in out
    assert RecordStore(tmp_path / "b/records").keys() == [two.key]


def test_a_sound_record_takes_the_place_of_a_damaged_one(finished: list[Finished], tmp_path: Path) -> None:
    one = finished[0]
    mine, theirs = store(tmp_path / "a", one), store(tmp_path / "b", one)
    damage(mine, one.key)
    bad = mine.path(one.key).read_bytes()
    merged = merge([theirs], mine, plainly)
    assert merged.replaced == merged.added == [one.key] and mine.get(one.key) == one.record
    assert (mine.folder(one.key) / "record.json.damaged").read_bytes() == bad


def test_a_record_in_another_trials_folder_is_not_taken(finished: list[Finished], tmp_path: Path) -> None:
    one, two, *_ = finished
    source = store(tmp_path / "a", one)
    shutil.move(source.folder(one.key), source.folder(two.key))
    merged = merge([source], RecordStore(tmp_path / "b"), plainly)
    assert not merged.added and one.key in merged.damaged[0] and two.key in merged.damaged[0]


def test_failures_are_taken_where_there_is_nothing_and_give_way_to_records(finished: list[Finished], tmp_path: Path) -> None:
    one, two, *_ = finished
    failures = [Failure(identity=it.record.identity, budget="paper", reason="died", message="cold") for it in (one, two)]
    source, target = store(tmp_path / "a", one), store(tmp_path / "b")
    source.put_failure(failures[1])
    target.put_failure(failures[0])
    merged = merge([source], target, plainly)
    assert merged.added == [one.key] and merged.failures == [two.key]
    assert target.failure(one.key) is None and target.failure(two.key) == failures[1]
    back = merge([target], source, plainly)
    assert not back.failures and not back.added


def test_an_interrupted_merge_continues(
    finished: list[Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, target = store(tmp_path / "a", *finished), RecordStore(tmp_path / "b/records")
    real, writes = os.replace, [0]

    def replace(source: Any, place: Any) -> None:
        writes[0] += 1
        if writes[0] == 4:  # the second record: its times are there, its record is written and not renamed
            raise KeyboardInterrupt
        real(source, place)

    monkeypatch.setattr(os, "replace", replace)
    arguments = ["records", "merge", str(tmp_path / "a"), "--into", str(tmp_path / "b")]
    code, _, err = call(capsys, *arguments)
    assert code == 130 and "continues" in err and len(target.keys()) == 1
    code, out, _ = call(capsys, *arguments)
    assert code == 0 and "3 records added, 1 there before" in out
    assert content(whole.root) == content(target.root)


def test_a_target_that_cannot_be_written_is_named_at_once(
    finished: list[Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str], read_only: Path
) -> None:
    store(tmp_path / "a", finished[0])
    for target in (read_only, read_only / "results"):
        code, _, err = call(capsys, "records", "merge", str(tmp_path / "a"), "--into", str(target))
        assert code == 2 and "cannot be written" in err and str(read_only) in err


def test_a_folder_without_records_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "records", "merge", str(tmp_path), "--into", str(tmp_path / "b"))
    assert code == 2 and str(tmp_path) in err and not (tmp_path / "b").exists()
    code, _, err = call(capsys, "records", "verify", str(tmp_path))
    assert code == 2 and str(tmp_path) in err


def test_two_merges_at_once_are_refused(finished: list[Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path / "a", finished[0])
    with Workspace(tmp_path / "b").writing():
        code, _, err = call(capsys, "records", "merge", str(tmp_path / "a"), "--into", str(tmp_path / "b"))
    assert code == 2 and "another harness process" in err and not (tmp_path / "b" / "records").exists()


# ---- verifying


def test_what_trials_leave_behind_is_sound(finished: list[Finished], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path / "a", *finished)
    assert finished[3].record.further, "no further test is checked"
    code, out, _ = call(capsys, "records", "verify", str(tmp_path / "a"))
    assert code == 0 and "4 sound, 0 not" in out


def lies(record: Record) -> dict[str, Record]:
    """Records whose checksum is right and whose content is not."""
    further = record.further[0]
    predictions = record.predictions
    return {
        "test mae is stated as": record.model_copy(update={"test": {**record.test, "mae": record.test["mae"] + 1e-6}}),  # type: ignore[operator]
        "test corr is stated as None": record.model_copy(update={"test": {**record.test, "corr": None}}),
        "0.5 mae is stated": record.model_copy(update={"further": (further.model_copy(update={"test": {**further.test, "mae": 9.0}}),)}),
        "32 clips": record.model_copy(update={"predictions": predictions.model_copy(update={"ids": predictions.ids[1:]})}),
        "cannot be computed": record.model_copy(update={"predictions": predictions.model_copy(update={"values": predictions.values[1:]})}),
        "is stated as the best": record.model_copy(
            update={"best_epoch": 1 + (record.best_epoch == 1)},
        ),
    }


@pytest.mark.parametrize("words", ["test mae is stated as", "test corr is stated as None", "0.5 mae is stated", "32 clips",
                                   "cannot be computed", "is stated as the best"])  # fmt: skip
def test_a_record_that_lies_is_found(finished: list[Finished], tmp_path: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    one = Finished(lies(finished[3].record)[words], finished[3].runtime)
    place = store(tmp_path / "a", one, finished[0])
    found = faults(place, one.key)
    assert any(words in fault for fault in found) and all(str(place.path(one.key)) in fault for fault in found)
    code, out, _ = call(capsys, "records", "verify", str(tmp_path / "a"))
    assert code == 1 and words in out and "1 sound, 1 not" in out


def test_a_changed_byte_is_found_wherever_it_is(finished: list[Finished], tmp_path: Path) -> None:
    place, key = store(tmp_path / "a", finished[0]), finished[0].key
    raw = place.path(key).read_bytes()
    assert place.sound(key)
    for position in range(0, len(raw), max(1, len(raw) // 40)):
        changed = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        if changed[position] in b"0123456789" and json.loads(changed) == json.loads(raw):
            continue  # a digit beyond a number's precision
        place.path(key).write_bytes(changed)
        assert not RecordStore(place.root).sound(key) and faults(place, key), raw[position - 20 : position + 20]
    place.path(key).write_bytes(raw)
    assert place.sound(key) and not faults(place, key)


def test_a_record_laid_out_anew_says_the_same(finished: list[Finished], tmp_path: Path) -> None:
    place, key = store(tmp_path / "a", finished[0]), finished[0].key
    path = place.path(key)
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=2))
    assert place.sound(key) and not faults(place, key)


def test_a_record_that_is_changed_after_it_was_found_sound_is_found_again(finished: list[Finished], tmp_path: Path) -> None:
    place, key = store(tmp_path / "a", finished[0]), finished[0].key
    assert place.sound(key)
    damage(place, key)
    assert not place.sound(key)


def test_what_is_set_aside_is_never_overwritten(finished: list[Finished], tmp_path: Path) -> None:
    place, key = store(tmp_path / "a", finished[0]), finished[0].key
    assert [place.set_aside(key).name, *(store(tmp_path / "a", finished[0]).set_aside(key).name for _ in range(2))] == [
        "record.json.damaged",
        "record.json.damaged1",
        "record.json.damaged2",
    ]
    assert key not in place

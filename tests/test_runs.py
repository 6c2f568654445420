"""Records as tables read them: the same as the whole record says, and as easily refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tables import a_card, a_record, a_trial, guesses, truth

from harness.data.schema import Task
from harness.experiments import runs
from harness.experiments.records import Further, Predictions, Record, RecordError, RecordStore, Runtime
from harness.experiments.trials import Trial
from harness.reporting.collect import collect, derived
from harness.training.loop import Epoch
from harness.training.metrics import metrics

HISTORY = (Epoch(epoch=1, train_loss=2.0, losses={"a": 1.0}, valid_loss=1.5, learning_rate=0.1),)
RUNTIME = Runtime(seconds=1, epoch_seconds=(), peak_memory_mb=1, finished="now")
NAMES = st.text(max_size=12) | st.sampled_from(
    ['],"ids":[', '],"truth":[', '],"values":', '},"simulated":', '"predictions":{', '"further":[', '\\"']
)
NUMBERS = st.floats(-3, 3, allow_nan=False)


def record(**changes: object) -> Record:
    return a_record(a_trial("Strong", 1, a_card()), guesses("Strong", 1)).model_copy(update={"history": HISTORY, **changes})


def stored(folder: Path, one: Record) -> RecordStore:
    store = RecordStore(folder)
    store.put(one, RUNTIME)
    return store


@st.composite
def predictions(draw: st.DrawFn, classes: int) -> Predictions:
    count = draw(st.integers(1, 4))
    lists = [draw(st.lists(kind, min_size=count, max_size=count)) for kind in (NAMES, NAMES, NUMBERS)]
    row = st.lists(NUMBERS, min_size=classes, max_size=classes).map(tuple) if classes else NUMBERS
    values = draw(st.lists(row, min_size=count, max_size=count))
    return Predictions(ids=tuple(lists[0]), groups=tuple(lists[1]), truth=tuple(lists[2]), values=tuple(values))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shown=st.sampled_from([0, 3]).flatmap(predictions), tests=st.integers(0, 2), name=NAMES)
def test_a_run_says_what_its_record_says(tmp_path: Path, shown: Predictions, tests: int, name: str) -> None:
    """Whatever names clips have, those that look like the record's own marks too."""
    further = tuple(Further(changes={"missing.rate": 0.1 * i}, test={"mae": None}, values=shown.values) for i in range(tests))
    config = {name: {"predictions": {"values": [1]}, "further": [name]}}
    identity = a_trial("Strong", 1, a_card()).identity.model_copy(update={"config": config})
    whole = record(predictions=shown, further=further, identity=identity)
    run = runs.read(stored(tmp_path, whole), whole.key)
    for field in ("key", "identity", "environment", "simulated", "parameters", "best_epoch", "history", "checksum", "further"):
        assert getattr(run, field) == getattr(whole, field), field
    assert [run.predictions.ids, run.predictions.groups, run.predictions.truth] == [shown.ids, shown.groups, shown.truth]
    for own, expected in zip(run.predictions.arrays(), shown.arrays(), strict=True):
        assert own.dtype == expected.dtype and own.shape == expected.shape and (own == expected).all()


def test_predictions_stay_unread_until_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.read(stored(tmp_path, record()), record().key)
    assert run.raw is not None and run.head.predictions.ids == ()
    monkeypatch.setattr(runs, "_predicted", lambda raw: pytest.fail("they were read"))
    assert run.parameters == 1 and run.checksum == record().checksum


@pytest.mark.parametrize("place", [b'"values":[', b'"valid_loss":', b'"parameters":', b'"ids":["c'])
def test_a_changed_byte_is_noticed_wherever_it_is(tmp_path: Path, place: bytes) -> None:
    store = stored(tmp_path, record())
    path = store.path(record().key)
    raw = path.read_bytes()
    at = raw.index(place) + len(place)
    path.write_bytes(raw[:at] + (b"8" if raw[at : at + 1] != b"8" else b"9") + raw[at + 1 :])
    with pytest.raises(RecordError, match="damaged"):
        runs.read(store, record().key)


def test_a_record_that_was_laid_out_anew_is_read_as_a_whole(tmp_path: Path) -> None:
    store = stored(tmp_path, record())
    path = store.path(record().key)
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))
    run = runs.read(store, record().key)
    assert run.raw is None and run.head == record() and run.checksum == record().checksum


def test_a_missing_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        runs.read(RecordStore(tmp_path), "0" * 20)


def test_sound_bytes_that_are_no_predictions_are_a_hole(tmp_path: Path) -> None:
    """Somebody wrote them so, checksum and all."""
    from harness.experiments import records

    content = record().model_dump(mode="json")
    content["predictions"]["values"] = ["much"] * len(content["predictions"]["values"])
    store = stored(tmp_path, record())
    store.path(record().key).write_bytes(records._encode({**content, "checksum": records._checksum(content)}))
    with pytest.raises(RecordError, match="damaged"):
        _ = runs.read(store, record().key).predictions
    found = collect(["mae"], a_card(), {"Strong": [a_trial("Strong", 1, a_card())]}, store)["Strong"]
    assert not found.records and not found.values["mae"] and "damaged" in next(iter(found.faults.values()))


def test_what_is_known_of_a_record_holds_for_that_content_alone(tmp_path: Path) -> None:
    known: dict[str, float] = {}
    one, other = record(), record(parameters=2)
    assert derived(one, "mae", lambda _: 1.0, known) == derived(one, "mae", lambda _: 2.0, known) == 1.0
    assert derived(other, "mae", lambda _: 2.0, known) == 2.0 and derived(one, "corr", lambda _: 3.0, known) == 3.0
    assert derived(one, "mae", lambda _: 4.0, None) == 4.0


def test_scores_are_those_of_the_whole_record_known_or_not(tmp_path: Path) -> None:
    plan, store, known = {"Strong": [a_trial("Strong", 1, a_card())]}, stored(tmp_path, record()), {}
    first = collect(["mae", "corr"], a_card(), plan, store, known)["Strong"]
    truth = np.asarray(record().predictions.truth)
    assert list(first.values["mae"].values()) == [pytest.approx(np.abs(guesses("Strong", 1) - truth).mean(), abs=1e-12)]
    again = collect(["mae", "corr"], a_card(), plan, store, known)["Strong"]
    assert again.values == first.values and len(known) == 2 and "predictions" not in vars(next(iter(again.records.values())))


def several(
    folder: Path, count: int, values: Callable[[int], Sequence[float]], labels: Callable[[int], Sequence[float]]
) -> tuple[RecordStore, dict[str, list[Trial]]]:
    """Records of so many seeds, and their trials."""
    store, trials = RecordStore(folder), [a_trial("Strong", seed, a_card()) for seed in range(count)]
    for seed, trial in enumerate(trials):
        store.put(a_record(trial, values(seed), labels=labels(seed)), RUNTIME)
    return store, {"Strong": trials}


def test_runs_that_are_scored_together_have_the_scores_of_each_alone(tmp_path: Path) -> None:
    """To the last bit; every third was tested on other clips, and they are more than are scored at a time."""
    labels = [truth(), truth()[::-1]]
    store, plan = several(tmp_path, 40, lambda seed: guesses("Strong", seed), lambda seed: labels[seed % 3 == 0])
    names = ("mae", "corr", "acc7", "acc2_nonzero", "f1_nonneg", "f1_nonzero")
    found = collect(names, a_card(), plan, store)["Strong"]
    for name in names:
        alone = [metrics[name].score(guesses("Strong", seed), labels[seed % 3 == 0]) for seed in range(40)]
        assert list(found.values[name].values()) == alone, name


def test_labels_that_were_predicted_are_not_taken_for_scores(tmp_path: Path) -> None:
    """Of several runs on as many clips as there are runs and classes, they have the shape of scores."""
    count = len(truth())
    card = a_card().model_copy(update={"task": Task(kind="classification", classes=tuple(map(str, range(count))))})
    labels = [float(clip % 3) for clip in range(count)]
    store, plan = several(tmp_path, 3, lambda seed: [float((clip * seed) % 3) for clip in range(count)], lambda _: labels)
    hits = [sum((clip * seed) % 3 == clip % 3 for clip in range(count)) for seed in range(3)]
    assert [100 * value for value in collect(["accuracy"], card, plan, store)["Strong"].values["accuracy"].values()] == pytest.approx(
        [100 * hit / count for hit in hits]
    )

"""The order in which waiting trials start, and what their processes start with."""

from __future__ import annotations

import math
import multiprocessing
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness.cli  # noqa: F401  (what the command line's own file imports)
from harness.experiments import executors
from harness.experiments.executors import Queue

SECONDS = {"short": 1.0, "middle": 5.0, "long": 20.0}


def job(method: str, seed: int) -> Any:
    return SimpleNamespace(kind=(method,), trial=SimpleNamespace(identity=SimpleNamespace(method=method, seed=seed)))


def finish_all(jobs: list[Any], workers: int) -> tuple[list[Any], float]:
    """The order of starts and the end of the last job, by simulated time."""
    queue, running, order, now = Queue(jobs), [], [], 0.0
    while queue or running:
        while queue and len(running) < workers:
            chosen, _ = queue.take()
            order.append(chosen)
            running.append((now + SECONDS[chosen.trial.identity.method], len(order), chosen))
        now, _, done = min(running, key=lambda entry: entry[:2])
        running = [entry for entry in running if entry[2] is not done]
        queue.ended(done, SECONDS[done.trial.identity.method])
    return order, now


def test_one_of_each_method_then_the_longest_then_in_order() -> None:
    jobs = [job(method, seed) for seed in range(3) for method in ("short", "long", "middle")]
    order = [(chosen.trial.identity.method, chosen.trial.identity.seed) for chosen in finish_all(jobs, 1)[0]]
    later = [(method, seed) for method in ("long", "middle", "short") for seed in (1, 2)]
    assert order == [("short", 0), ("long", 0), ("middle", 0), *later]


@given(st.lists(st.sampled_from(list(SECONDS)), min_size=1, max_size=15), st.integers(1, 3))
@settings(deadline=None)
def test_every_job_runs_once_and_no_worker_is_left_alone_with_much(methods: list[str], workers: int) -> None:
    """List scheduling's bound (Graham 1966): the last job ends at most one longest job after an even share."""
    jobs = [job(method, i) for i, method in enumerate(methods)]
    order, end = finish_all(jobs, workers)
    assert sorted(id(one) for one in order) == sorted(id(one) for one in jobs)
    work = sum(SECONDS[method] for method in methods)
    assert end <= work / workers + max(SECONDS[method] for method in methods) * (1 - 1 / workers) + 1e-9


def test_a_job_that_comes_back_keeps_the_number_of_its_try() -> None:
    queue = Queue([job("long", 0)])
    one, tries = queue.take()
    queue.again(one, tries + 1)
    assert queue.take() == (one, 2) and not queue


@given(st.lists(st.sampled_from(list(SECONDS)), max_size=12), st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0, 5.0]))))
@settings(deadline=None)
def test_the_next_job_is_the_first_of_those_whose_method_took_longest(methods: list[str], script: list[tuple[int, float]]) -> None:
    """Against the rule as it is said: one list, searched whole. The script takes, ends, and puts back jobs in any order."""
    jobs = [job(method, i) for i, method in enumerate(methods)]
    queue, waiting, seconds, taken = Queue(jobs), [(one, 1) for one in jobs], dict[str, float](), list[tuple[Any, int]]()
    for act, value in [*script, *[(0, 0.0)] * len(jobs)]:
        assert bool(queue) == bool(waiting)
        if act <= 1 and waiting:
            expected = max(waiting, key=lambda entry: seconds.get(entry[0].trial.identity.method, math.inf))
            waiting.remove(expected)
            seconds.setdefault(expected[0].trial.identity.method, 0.0)
            assert queue.take() == expected
            taken.append(expected)
        elif act == 2 and taken:
            queue.ended(taken[-1][0], value)
            seconds[taken[-1][0].trial.identity.method] = value
        elif act == 3 and taken:
            one, tries = taken.pop(0)
            queue.again(one, tries + 1)
            waiting.append((one, tries + 1))


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="workers are forked from a server only on Unix")
def test_the_server_of_workers_knows_what_the_command_has_imported_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker runs the imports of the command's own file anew: what the server lacks, it waits for; what is too much, it holds."""
    known: list[str] = []
    monkeypatch.setattr(multiprocessing.get_context("forkserver"), "set_forkserver_preload", known.extend)
    monkeypatch.setattr(executors, "_start_server", lambda: None)  # it would serve the other tests, and know nothing
    executors._context([])
    assert {name for name in sys.modules if name.startswith("harness.cli")} <= set(known)
    assert known[-1] == "harness.experiments.warm", "which freezes all that is imported"
    assert not [name for name in known if name.startswith(("harness.reporting", "harness.analysis", "harness.commands"))]


@given(st.lists(st.sampled_from(list(SECONDS)), min_size=1, max_size=12), st.sampled_from(list(SECONDS)))
@settings(deadline=None)
def test_a_process_suits_the_next_job_if_that_is_of_its_kind(methods: list[str], done: str) -> None:
    queue, before = Queue([job(method, i) for i, method in enumerate(methods)]), job(done, 99)
    while queue:
        suits = queue.suits(before)
        one, tries = queue.take()
        assert suits == (one.kind == before.kind and tries == 1)
        if tries == 1 and one.trial.identity.seed % 3 == 0:
            queue.again(one, 2)
    assert not queue.suits(before)

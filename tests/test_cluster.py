"""Trials on a Ray cluster: parcels for nodes, and a real cluster of two nodes of which one is killed."""

from __future__ import annotations

import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import TOY, job, stored, trial

from harness.data import store
from harness.errors import ConfigError
from harness.experiments import cluster, runner
from harness.experiments.events import EpochDone, Event, Failed, Started, Warned
from harness.experiments.executors import Inline
from harness.experiments.nodes import Parcel, at_home, pack, pack_dataset, unpack
from harness.experiments.runner import Options
from harness.experiments.tracking import Tracker
from harness.experiments.workspace import Workspace


def whole(content: Any) -> Any:
    """In place of Ray's object store: the reference is the content."""
    return content


# ---- parcels


def test_a_data_set_arrives_as_it_was_and_is_written_once(tmp_path: Path) -> None:
    data = stored(tmp_path / "here")
    parcel = pack_dataset("mosi@tiny", tmp_path / "here", whole)
    fetched: list[int] = []

    def get(content: Any) -> np.ndarray:
        fetched.append(len(content))
        return np.asarray(content)

    folder = unpack(parcel, tmp_path / "there", get)
    arrived = store.load("mosi@tiny", folder, verify=True)
    assert arrived.card == data.card and arrived.clips.equals(data.clips)
    count = len(fetched)
    assert unpack(parcel, tmp_path / "there", get) == folder and len(fetched) == count == len(parcel.contents)


def test_other_contents_have_another_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "empty").write_bytes(b"")
    digests = [
        pack(files, whole).digest
        for files in ({"x": tmp_path / "a"}, {"x": tmp_path / "b"}, {"y": tmp_path / "a"}, {"x": tmp_path / "empty"})
    ]
    assert len(set(digests)) == 4
    again = pack({"x": tmp_path / "a"}, whole)
    assert again.digest == digests[0] and (unpack(again, tmp_path / "there", np.asarray) / "x").read_bytes() == b"one"


def test_a_parcel_that_was_cut_off_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    parcel = pack({"x": tmp_path / "a"}, whole)
    half = tmp_path / "there" / f".{parcel.digest}.new"
    half.mkdir(parents=True)
    (half / "y").write_bytes(b"left over")
    folder = unpack(parcel, tmp_path / "there", np.asarray)
    assert [path.name for path in folder.iterdir()] == ["x"] and not half.exists()


def unpack_slowly(parcel: Parcel, root: Path, writes: Any) -> None:
    def get(content: Any) -> np.ndarray:
        time.sleep(0.3)
        with writes.get_lock():
            writes.value += 1
        return np.asarray(content)

    unpack(parcel, root, get)


def test_of_several_tasks_at_once_one_writes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    parcel, context = pack({"x": tmp_path / "a"}, lambda content: np.array(content)), multiprocessing.get_context("spawn")
    writes = context.Value("i", 0)
    tasks = [context.Process(target=unpack_slowly, args=(parcel, tmp_path / "there", writes)) for _ in range(3)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert [task.exitcode for task in tasks] == [0, 0, 0] and writes.value == 1


def test_other_code_on_a_node_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MER_NODE", str(tmp_path / "node"))
    one = trial(stored(tmp_path / "data"))
    data = pack_dataset("mosi@tiny", tmp_path / "data", whole)
    plugin = pack({TOY.name: TOY}, whole)
    local = at_home(job(one, tmp_path / "data", tmp_path), data, plugin, np.asarray)
    assert local.checkpoint.parent == tmp_path / "node" / "checkpoints" and local.plugin and local.plugin.read_bytes() == TOY.read_bytes()
    changed = one.identity.model_copy(update={"code": {**one.identity.code, "harness.training.loop": "0"}})
    other = replace(job(one, tmp_path / "data", tmp_path), trial=one.model_copy(update={"identity": changed}))
    with pytest.raises(ConfigError, match="other code than the driver: harness.training.loop"):
        at_home(other, data, plugin, np.asarray)


def test_without_ray_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match="ray is not installed"):
        cluster.connect("local")


# ---- a real cluster


# A busy machine starts Ray's many processes slowly.
PATIENCE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_gcs_server_request_timeout_seconds": "300",
}
PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


def node_options() -> dict[str, int]:
    """Ports that are known from the start: a node does not wait for its helpers to choose some, at most 15 s."""
    with ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in PORTS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return {"object_store_memory": 2**27, **{name: one.getsockname()[1] for name, one in zip(PORTS, sockets, strict=True)}}


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes with one CPU each; the driver's own has none. Each has a folder of its own."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'mer-harness[ray]'")
    for name, value in PATIENCE.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **node_options()})
    folders = [{"MER_NODE": str(tmp_path / f"node{number}")} for number in (1, 2)]
    added = [made.add_node(num_cpus=1, env_vars=folder, **node_options()) for folder in folders]
    yield made, added[1]
    import ray

    ray.shutdown()
    made.shutdown()


def run(space: Workspace, data_root: Path, trials: list[Any], executor: Any, listen: Any = None) -> tuple[Any, list[Event]]:
    events: list[Event] = []

    def hear(event: Event) -> None:
        events.append(event)
        if listen:
            listen(event)

    class NoTracker(Tracker):
        def publish(self, record: Any, runtime: Any) -> None: ...
        def lacking(self, keys: Any) -> list[str]:
            return []

    return runner.run(trials, space, executor, NoTracker(space, "test"), Options(data_root, 0.0, plugin=TOY), hear), events


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own imports warn
def test_a_node_that_is_killed_costs_time_only(two_nodes: Any, tmp_path: Path) -> None:
    nodes, second = two_nodes
    dataset = stored(tmp_path / "data")
    trials = [trial(dataset, seed=seed, pause=0.1) for seed in range(6)]
    bad = trial(dataset, seed=9, trouble="crash")
    executor = cluster.Ray(nodes.address)
    assert executor.workers == 2
    killed: list[str] = []

    def kill_a_node(event: Event) -> None:
        running = [path for path in tmp_path.glob("node2/checkpoints/*.pt")]
        if isinstance(event, EpochDone) and running and not killed:
            killed.append(running[0].stem)
            nodes.remove_node(second, allow_graceful=False)

    space = Workspace(tmp_path / "results")
    outcome, events = run(space, tmp_path / "data", [*trials, bad], executor, kill_a_node)
    assert killed and sorted(outcome.finished) == sorted(one.key for one in trials) and outcome.failed == [bad.key]
    assert any(isinstance(event, Warned) and "starts again" in event.text for event in events)
    assert {event.key for event in events if isinstance(event, Started)} >= {one.key for one in trials}
    failure = space.store.failure(bad.key)
    assert failure and failure.reason == "error" and "a fault in the method" in failure.message

    at_once = Workspace(tmp_path / "inline")
    run(at_once, tmp_path / "data", trials, Inline())
    for one in trials:
        assert space.store.path(one.key).read_bytes() == at_once.store.path(one.key).read_bytes()
    for number in (1, 2):  # the data lie on each node once, nothing else of the driver's is read
        assert len(list(tmp_path.glob(f"node{number}/data/*/mosi@tiny"))) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_task_that_hangs_is_stopped_and_one_that_dies_is_tried_again(two_nodes: Any, tmp_path: Path) -> None:
    dataset = stored(tmp_path / "data")
    hanging, good = trial(dataset, trouble="hang"), trial(dataset)
    dying = trial(dataset, trouble=f"die_once:{tmp_path / 'died'}")
    space = Workspace(tmp_path / "results")
    outcome, events = run(space, tmp_path / "data", [hanging, dying, good], cluster.Ray(two_nodes[0].address, timeout=20.0))
    assert sorted(outcome.finished) == sorted([dying.key, good.key]) and outcome.failed == [hanging.key]
    failure = space.store.failure(hanging.key)
    assert failure and failure.reason == "timeout"
    assert not [event for event in events if isinstance(event, Failed) and event.key != hanging.key]

"""What a trained model holds inside: representations in the clips' order, adjacency maps, learned functions; and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kit import call, stored, tiny_dataset
from torch import nn

from harness.data.splits import Fold
from harness.experiments.inside import EDGES, Look, maps, splines
from harness.experiments.records import RecordStore
from harness.experiments.trials import make_trial, resolve_config
from harness.experiments.worker import run_trial
from harness.nn.kan import KANConv1d, KANLinear, Spline
from harness.training.contract import Batch, Inputs, Method, MethodConfig, Output, Task, register_method
from harness.training.settings import BUDGETS


@register_method("showing")
class Showing(Method):
    """Shows what can be known without it: lengths as features, a constant gate, given maps."""

    def __init__(self, inputs: Inputs, task: Task, config: MethodConfig) -> None:
        super().__init__(inputs, task, config)
        self.out = KANLinear(inputs.dims["text"], 1, Spline(grid=4))

    def forward(self, batch: Batch) -> Output:
        mean = batch.features["text"].sum(1) / batch.lengths["text"][:, None]
        lengths = torch.stack([batch.lengths["text"], batch.lengths["audio"]], dim=1).float()
        shown = {"shared_text": lengths, "specific_text": -lengths, "gate": torch.stack([lengths[:, 0] / 9, 1 - lengths[:, 0] / 9], dim=1)}
        return Output(self.out(mean).squeeze(1), representations=shown)

    def adjacency(self, modality: str = "vision") -> dict[str, torch.Tensor]:
        if modality != "audio":
            raise KeyError(modality)
        return {"temporal": torch.arange(8.0).view(2, 2, 2), "spatial": torch.ones(1, 2, 2, 2, 2)}


def test_representations_stand_in_the_order_of_the_test_clips(tmp_path: Path) -> None:
    dataset = stored(tmp_path / "data")
    config = resolve_config(Showing, "tiny", BUDGETS["smoke"], "cpu", {"training.batch_size": 4})
    trial = make_trial("showing", dataset.card, config, seed=1, fold=Fold(), budget="smoke")
    look = Look(trial, tmp_path / "data", tmp_path / "c.pt")
    finished = run_trial(look, lambda event: None)
    (inside,) = look.found
    place = np.flatnonzero(dataset.clips["split"] == "test")
    lengths = np.stack([dataset.features[name].lengths.numpy()[place] for name in ("text", "audio")], axis=1)
    assert (inside.representations["shared_text"] == lengths).all() and (inside.representations["specific_text"] == -lengths).all()
    assert list(finished.record.predictions.ids) == dataset.clips["id"].to_numpy()[place].tolist()
    assert set(inside.maps) == {"temporal, layer 1", "temporal, layer 2", "spatial, layer 1"}
    assert inside.maps["temporal, layer 2"].tolist() == [[4, 5], [6, 7]]
    assert list(inside.splines) == ["out"] and len(inside.splines["out"][1]) == 6


def test_learned_functions_are_what_the_layer_adds_up() -> None:
    """A linear layer's output is the sum of its edges' functions; of a convolution each place of the kernel is an edge."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = KANLinear(3, 2, scale=True)
            self.convolution = KANConv1d(2, 4, 3)

    torch.manual_seed(0)
    net = Net()
    found = dict(splines(net))  # type: ignore[arg-type]
    x, edges = found["linear"]
    assert x[0] == -1 and x[-1] == 1 and len(edges) == 6
    with torch.no_grad():
        y = net.linear(torch.tensor(x, dtype=torch.float32)[:, None].expand(-1, 3)).double().numpy()
    for out in range(2):
        total = sum(edges[f"edge {3 * out + i}"] for i in range(3))
        assert total == pytest.approx(y[:, out], abs=1e-5)
    assert len(found["convolution"][1]) == EDGES < 4 * 2 * 3
    assert maps(net, ("text",)) == {}  # type: ignore[arg-type]


def test_the_command_trains_the_recorded_trial_again_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    data, results = tmp_path / "data", tmp_path / "results"
    monkeypatch.setenv("MER_DATA", str(data))
    monkeypatch.setenv("MER_RESULTS", str(results))
    monkeypatch.setenv("COLUMNS", "200")
    stored(data)
    assert call(capsys, "run", "showing", "mosi@tiny", "--budget", "smoke", "--seeds", "42,", "--inline")[0] == 0
    asked = ("figure", "showing", "mosi@tiny", "--budget", "smoke", "--figures", "svg")
    code, out, err = call(capsys, *asked)
    assert code == 0, err
    assert "the same predictions as its record" in out
    kinds = ("tsne", "pca", "gates", "spatial-maps", "temporal-maps", "splines-0")
    files = {path.name for path in (results / "figures").iterdir()}
    assert files == {f"inside_showing_mosi-tiny_seed42_{kind}.svg" for kind in kinds}
    assert all("SIMULATED DATA" in (results / "figures" / name).read_text() for name in files)
    store = RecordStore(results / "records")
    (record,) = store.records()
    changed = record.predictions.model_copy(update={"values": tuple(value + 1 for value in record.predictions.values)})
    runtime = store.runtime(record.key)
    assert runtime
    store.put(record.model_copy(update={"predictions": changed}), runtime)
    code, _, err = call(capsys, *asked)
    assert code == 2 and "other predictions" in err
    code, _, err = call(capsys, "figure", "ridge", "mosi@tiny", "--budget", "smoke")
    assert code == 2 and "shows nothing inside" in err
    code, _, err = call(capsys, *asked[:-1], "bmp")
    assert code == 2 and "'bmp' is no format" in err and tiny_dataset().card.simulated

"""IIDAF: sizes, equations against plain arithmetic, ablations, gradients of its losses, settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import CLOSE, DIMS, KINDS, REGRESSION, TASKS, build, merged, predict, random_split, some_split, whole
from pydantic import ValidationError
from torch import Tensor, nn

from harness.data.batches import gather
from harness.data.schema import MODALITIES
from harness.nn.invertible import AttentionMask
from harness.training import Inputs, Method, MethodConfig, Output
from harness.training.loop import train
from methods.iidaf import IIDAF, Concatenation, GuidedFusion

SMALL: dict[str, Any] = {
    **{"width": 8, "kernel": 3, "layers": {"text": 1, "audio": 1, "vision": 1}, "heads": {"text": 2, "audio": 2, "vision": 2}},
    **{"shared_layers": 1, "shared_heads": 2, "factor": 6, "blocks": 2, "coupling": 5, "critic": 7, "discriminator": 9, "fusion": 10},
}
LOSSES = ["inversion", "similarity", "independence", "reconstruction", "relevance", "redundancy", "discrimination"]


def small(kind: str = "regression", modalities: tuple[str, ...] = MODALITIES, **settings: Any) -> Method:
    return build("iidaf", some_split(kind, modalities), kind, **merged(SMALL, settings))


def run(method: Method, kind: str = "regression", seed: int = 1) -> Output:
    torch.manual_seed(seed)
    return method(whole(some_split(kind, method.modalities)))  # type: ignore[no-any-return, arg-type]


def total(output: Output, labels: Tensor, weights: Mapping[str, float]) -> Tensor:
    return F.mse_loss(output.prediction, labels) + sum(weights[name] * loss for name, loss in output.losses.items())


# Sizes and presets


@pytest.mark.parametrize(
    ("ablation", "count", "millions"),
    [
        ({}, 8_626_246, 8.63),
        ({"iamd": False}, 7_278_214, 7.28),
        ({"mic": False}, 5_568_195, 5.57),
        ({"sgaff": False}, 7_392_324, 7.39),
    ],
)
def test_parameter_counts_are_those_of_table_9(ablation: dict[str, bool], count: int, millions: float) -> None:
    method = IIDAF(Inputs({"text": 768, "audio": 5, "vision": 20}), REGRESSION, IIDAF.Config(**ablation))
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == count
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("dataset", "rate", "bert", "weights"),
    [
        ("mosi", 6e-5, 2e-5, (0.1, 0.05, 0.3, 0.2, 0.1)),
        ("mosei", 6e-5, 2e-5, (0.05, 0.05, 0.2, 0.1, 0.1)),
        ("ur_funny", 4.5e-5, 5e-5, (0.05, 0.05, 0.2, 0.1, 0.1)),
    ],
)
def test_presets_are_table_2(dataset: str, rate: float, bert: float, weights: tuple[float, ...]) -> None:
    config = IIDAF.Config.model_validate(IIDAF.presets[dataset])
    names = ("inversion", "similarity", "independence", "reconstruction", "relevance")
    assert tuple(getattr(config.weights, name) for name in names) == weights
    assert config.weights.redundancy == config.weights.relevance  # one lambda for both: eq. 20
    training, encoder = config.training, config.text_encoder
    assert (training.optimiser, training.batch_size, training.learning_rate, training.weight_decay) == ("adamw", 32, rate, 5e-5)
    assert [getattr(config.layers, m) for m in ("vision", "audio", "text")] == [2, 2, 3]
    assert [getattr(config.heads, m) for m in ("vision", "audio", "text")] == [2, 2, 4]
    assert encoder.learning_rate == bert and encoder.path is None
    assert (config.dropout, config.reflections, config.moments, config.task_loss) == (0.1, 3, 5, "mse")


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="3 attention heads do not divide width = 8"):
        IIDAF.Config(**merged(SMALL, {"heads": {"audio": 3}}))


# Losses against their equations


class Watched:
    """One training pass of ``method`` with dropout off, and what went into and came out of its inner modules."""

    def __init__(self, method: Method, kind: str = "regression") -> None:
        self.seen: dict[str, tuple[Tensor, ...]] = {}
        watched = ("disentangle", "decode", "own", "common", "information.discriminators")
        for name, module in method.named_modules():
            if name.rpartition(".")[0] in watched:
                module.register_forward_hook(partial(self._note, name))
        self.output = run(method, kind)

    def _note(self, name: str, _: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        self.seen[name] = (*given, out)

    def array(self, name: str, place: int = -1) -> np.ndarray:
        return self.seen[name][place].detach().double().numpy()

    def shown(self, name: str) -> np.ndarray:
        return self.output.representations[name].detach().double().numpy()


def real_mean(x: np.ndarray, name: str) -> np.ndarray:
    lengths = whole(some_split()).lengths[name].tolist()
    return np.stack([row[:length].mean(0) for row, length in zip(x, lengths, strict=True)])


@pytest.mark.parametrize("norm", ["mean", "sum"])
def test_reconstruction_and_inversion_are_eq_10_and_11(norm: str) -> None:
    method = small(dropout=0.0, squared_norm=norm)
    watched = Watched(method)
    rebuilt, undone = 0.0, 0.0
    for name in MODALITIES:
        before, after = watched.array(f"disentangle.{name}", 0), watched.seen[f"disentangle.{name}"][1]
        x = real_mean(watched.array(f"own.{name}"), name)
        decoder = method.decode[name]
        decoded = before @ decoder.weight.detach().double().numpy().T + decoder.bias.detach().double().numpy()
        inverse = method.disentangle[name].inverse(after).detach().double().numpy()
        scale = [decoded.shape[1], before.shape[1]] if norm == "mean" else [1, 1]
        rebuilt += ((decoded - x) ** 2).sum(1).mean() / scale[0]
        undone += ((inverse - before) ** 2).sum(1).mean() / scale[1]
    assert watched.output.losses["reconstruction"].item() == pytest.approx(rebuilt, rel=1e-4)
    assert watched.output.losses["inversion"].item() == pytest.approx(undone, rel=1e-4)


def test_where_widths_allow_it_reconstruction_is_as_printed() -> None:
    """With factors half as wide as the stream there is no map between h and x."""
    method = small(dropout=0.0, factor=4)
    watched = Watched(method)
    expected = sum(((watched.array(f"disentangle.{m}", 0) - real_mean(watched.array(f"own.{m}"), m)) ** 2).mean() for m in MODALITIES)
    assert watched.output.losses["reconstruction"].item() == pytest.approx(expected, rel=1e-4)


def test_an_invertible_model_has_no_inversion_loss() -> None:
    """Without norm and mask: 0 but for rounding; then the inverse is what the blocks were given, so both L_RE agree."""
    settings = {"norm": False, "mask": "none", "dropout": 0.0}
    before, inverse = (run(small(**settings, reconstruct=which)).losses for which in ("before", "inverse"))
    assert before["inversion"] < 1e-10
    torch.testing.assert_close(before["reconstruction"], inverse["reconstruction"], **CLOSE)
    assert run(small()).losses["inversion"] > 0.01


def discrepancy(x: np.ndarray, y: np.ndarray, ends: bool) -> float:
    rows = []
    for a in (x, y):
        bounded = 1 / (1 + np.exp(-a))
        rows.append([bounded.mean(0), *(((bounded - bounded.mean(0)) ** k).mean(0) for k in range(2, 6))])
    norms = [float(np.linalg.norm(a - b)) for a, b in zip(*rows, strict=True)]
    return norms[0] + norms[-1] if ends else sum(norms)


def hsic_by_trace(x: np.ndarray, y: np.ndarray) -> float:
    grams = []
    for a in (x, y):
        squared = ((a[:, None] - a[None]) ** 2).sum(2)
        above = np.sort(squared[np.triu_indices(len(a), 1)])
        grams.append(np.exp(-squared / (2 * above[(len(above) - 1) // 2])))
    centre = np.eye(len(x)) - 1 / len(x)
    return float(np.trace(centre @ grams[0] @ centre @ grams[1])) / (len(x) - 1) ** 2


@pytest.mark.parametrize("used", ["all", "ends"])
def test_similarity_and_independence_are_eq_13_and_15(used: str) -> None:
    watched = Watched(small(moments_used=used))
    shared, specific = ({m: watched.shown(f"{kind}_{m}") for m in MODALITIES} for kind in ("shared", "specific"))
    alike = [discrepancy(x, y, used == "ends") for x, y in combinations(shared.values(), 2)]
    apart = [hsic_by_trace(x, y) for x, y in combinations(specific.values(), 2)] + [hsic_by_trace(shared[m], specific[m]) for m in shared]
    assert watched.output.losses["similarity"].item() == pytest.approx(sum(alike) / 3, rel=1e-4)
    assert watched.output.losses["independence"].item() == pytest.approx(sum(apart) / 3, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_relevance_is_eq_16_over_pairs_and_labels(kind: str) -> None:
    method = small(kind)
    output = run(method, kind)
    labels, inside = whole(some_split(kind)).labels, method.information
    assert labels is not None
    table = inside.embed_label.weight.T
    z = inside.embed_label.bias + (table[labels] if kind == "classification" else labels[:, None] * table)
    r = {m: output.representations[f"shared_{m}"] for m in MODALITIES}
    pairs = [(inside.between[f"{m}_{n}"], r[m], r[n]) for m, n in combinations(MODALITIES, 2)]
    pairs += [(inside.with_label[m], r[m], z) for m in MODALITIES]
    expected = 0.0
    for critic, x, y in pairs:
        scores = (critic.f(x) @ critic.g(y).T).detach().double().numpy()
        expected -= np.mean([scores[i, i] - math.log(np.exp(scores[i]).sum()) for i in range(len(scores))])
    assert output.losses["relevance"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("terms", ["both", "first"])
def test_redundancy_and_discrimination_use_the_same_negatives(terms: str) -> None:
    """Both losses from the log-odds that the discriminators themselves gave; every negative is another clip's label."""
    method = small(conditional=terms)
    watched = Watched(method)
    z = method.information.embed(whole(some_split()).labels, torch.zeros(6, 1)).detach()
    estimate, misfit = 0.0, 0.0
    for name in MODALITIES:
        _, label, _, odds = watched.seen[f"information.discriminators.{name}"]
        assert torch.equal(label[:6], z) and all((row == z).all(1).any() for row in label[6:])
        assert not (label[6:] == z).all(1).any()
        joint, other = odds.detach().double().numpy().reshape(2, 6)
        estimate += joint.mean() - (other.mean() if terms == "both" else 0.0)
        misfit += (np.log1p(np.exp(-joint)).mean() + np.log1p(np.exp(other)).mean()) / 2
    assert watched.output.losses["redundancy"].item() == pytest.approx(estimate, abs=1e-5)
    assert watched.output.losses["discrimination"].item() == pytest.approx(misfit, rel=1e-5)


def test_gradients_of_the_estimate_and_of_its_discriminators_do_not_mix() -> None:
    method = small()
    reached = {}
    for loss in ("redundancy", "discrimination"):
        method.zero_grad()
        run(method).losses[loss].backward()
        reached[loss] = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    inner = {name for name, _ in method.named_parameters() if name.startswith("information.discriminators")}
    assert reached["discrimination"] == inner
    assert not reached["redundancy"] & inner and not any("embed_label" in name for name in reached["redundancy"])
    assert any(name.startswith("disentangle") for name in reached["redundancy"])


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "discrimination"])
def test_every_loss_shapes_the_encoders(loss: str) -> None:
    """So its weight, set to 0 by an ablation, removes something."""
    method = small()
    run(method).losses[loss].backward()
    reached = {name.partition(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"project", "own"} <= reached


def test_discriminators_learn_at_their_own_rate_and_nothing_twice() -> None:
    method = small(discriminator_learning_rate=0.5)
    others, fitted = method.parameter_groups(IIDAF.Config().training)
    assert fitted["lr"] == 0.5 and "lr" not in others
    assert {id(p) for p in fitted["params"]} == {id(p) for p in method.information.discriminators.parameters()}
    assert sorted(id(p) for p in others["params"] + fitted["params"]) == sorted(map(id, method.parameters()))
    (only,) = small(mic=False).parameter_groups(IIDAF.Config().training)
    assert "lr" not in only


# Fusion


def factors(seed: int, width: int = 5) -> dict[str, Tensor]:
    return dict(zip(MODALITIES, torch.randn(3, 4, width, generator=torch.Generator().manual_seed(seed)), strict=True))


def test_guided_fusion_is_eq_21_and_22() -> None:
    torch.manual_seed(0)
    fuse = GuidedFusion(MODALITIES, 5, 7, 2, 0.0, "both")
    r, u = factors(0), factors(1)
    y, shown = fuse(r, u)
    enhanced = {m: r[m] + fuse.enhance[m][1](fuse.enhance[m][0](r[m])) for m in MODALITIES}
    guided = {m: u[m] + torch.cat([u[m], enhanced[m]], 1) @ fuse.guide[m].weight.T for m in MODALITIES}
    e, g = (torch.cat(list(x.values()), 1) for x in (enhanced, guided))
    gamma = 1 / (1 + torch.exp(-fuse.gate(torch.cat([g, e], 1))))
    torch.testing.assert_close(y, gamma * fuse.shared_head(e) + (1 - gamma) * fuse.specific_head(g), **CLOSE)
    torch.testing.assert_close(shown["gate"], torch.cat([gamma, 1 - gamma], 1), **CLOSE)
    assert all(torch.equal(shown[f"guided_{m}"], guided[m]) or (shown[f"guided_{m}"] - guided[m]).abs().max() < 1e-5 for m in MODALITIES)


@pytest.mark.parametrize("kind", [GuidedFusion, Concatenation])
@pytest.mark.parametrize(("uses", "reads"), [("both", (True, True)), ("shared", (True, False)), ("specific", (False, True))])
def test_prediction_is_made_of_the_factors_it_is_said_to_use(kind: type, uses: str, reads: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    fuse = GuidedFusion(MODALITIES, 5, 7, 1, 0.0, uses) if kind is GuidedFusion else Concatenation(MODALITIES, 5, 1, 0.0, uses)
    y = fuse(factors(0), factors(1))[0]
    assert (torch.equal(y, fuse(factors(2), factors(1))[0]), torch.equal(y, fuse(factors(0), factors(2))[0])) == tuple(not x for x in reads)


# Ablations


def parts(method: Method) -> set[str]:
    return {name for name, _ in method.named_children()}


def test_ablations_remove_the_module_they_name() -> None:
    full = parts(small())
    assert full - parts(small(iamd=False)) == {"disentangle", "decode"}
    assert full - parts(small(mic=False)) == {"information"}
    assert isinstance(small().fuse, GuidedFusion) and isinstance(small(sgaff=False).fuse, Concatenation)
    nought = {name: {loss for loss, value in run(small(**{name: False})).losses.items() if value == 0} for name in ("iamd", "mic", "sgaff")}
    assert nought == {"iamd": {"inversion", "reconstruction"}, "mic": {"relevance", "redundancy", "discrimination"}, "sgaff": set()}
    assert "gate" in run(small()).representations and "gate" not in run(small(sgaff=False)).representations


def test_without_iamd_factors_are_their_networks_results() -> None:
    method = small(iamd=False, dropout=0.0)
    output = run(method)
    pooled = method._pool(
        whole(some_split()), "audio", method._joint(whole(some_split()), {"audio": method._own(whole(some_split()), "audio")})["audio"]
    )
    for kind in ("shared", "specific"):
        torch.testing.assert_close(output.representations[f"{kind}_audio"], getattr(method, kind)["audio"](pooled), **CLOSE)


@pytest.mark.parametrize("modalities", [("vision",), ("text", "audio"), MODALITIES], ids="+".join)
@pytest.mark.parametrize(("iamd", "mic", "sgaff"), list(product([True, False], repeat=3)))
def test_every_combination_of_ablations_trains_all_that_it_has(iamd: bool, mic: bool, sgaff: bool, modalities: tuple[str, ...]) -> None:
    for uses in ("both", "shared", "specific"):
        method = small(modalities=modalities, iamd=iamd, mic=mic, sgaff=sgaff, uses=uses)
        output = run(method)
        assert set(output.losses) == set(LOSSES)
        (output.prediction.square().sum() + sum(output.losses.values())).backward()  # type: ignore[union-attr]
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in method.parameters())


def test_one_modality_has_no_pair_losses() -> None:
    losses = run(small(modalities=("audio",))).losses
    assert losses["similarity"] == 0
    method = small(modalities=("audio",))
    assert not method.information.between and len(method.information.with_label) == 1
    assert losses["independence"] > 0  # of the shared and the specific factor


# Evaluation


VARIANTS: list[dict[str, Any]] = [
    *({"joint": "concatenated"}, {"pooling": "last"}, {"mask": "none", "norm": False}, {"mask_place": "every"}),
    *({"sgaff": False}, {"iamd": False}, {"uses": "shared"}, {"joint": "concatenated", "pooling": "last"}),
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_predictions_depend_on_their_clip_alone_in_every_variant(settings: dict[str, Any]) -> None:
    method, split = small(**settings).eval(), some_split()
    together = predict(method, whole(split))
    alone = torch.cat([predict(method, gather(split, torch.tensor([i]))) for i in range(len(split))])
    torch.testing.assert_close(alone, together, **CLOSE)


def test_the_printed_mask_depends_on_the_batch() -> None:
    """A documented exception, off by default."""
    method, split = small(mask="batch").eval(), some_split()
    alone = torch.cat([predict(method, gather(split, torch.tensor([i]))) for i in range(len(split))])
    assert (alone - predict(method, whole(split))).abs().max() > 1e-3


def test_labels_are_read_in_training_only() -> None:
    method = small()
    batch, blind = (whole(split) for split in (some_split(), some_split().without_labels()))
    method.eval()
    assert torch.equal(predict(method, batch), predict(method, blind)) and not method(batch).losses
    method.train()
    torch.manual_seed(1)
    losses = method(blind).losses
    assert set(losses) == set(LOSSES) and losses["redundancy"] == losses["discrimination"] == 0 < losses["relevance"]


def test_gate_and_factors_are_shown_in_evaluation() -> None:
    with torch.inference_mode():
        shown = small().eval()(whole(some_split())).representations
    assert set(shown) == {"gate"} | {f"{kind}_{m}" for kind in ("shared", "specific", "guided") for m in MODALITIES}
    assert shown["gate"].shape == (6, 2) and (shown["gate"] > 0).all()
    torch.testing.assert_close(shown["gate"].sum(1), torch.ones(6), **CLOSE)


# Training


def test_training_fits_a_few_clips_under_all_losses() -> None:
    """Less than a tenth of the constant's squared error after 40 steps (about a hundredth in a trial)."""
    method, batch = small(dropout=0.0), whole(some_split())
    weights = IIDAF.Config().weights.model_dump()
    optimiser = torch.optim.AdamW(method.parameter_groups(IIDAF.Config().training), lr=5e-3)
    assert batch.labels is not None
    for _ in range(40):
        optimiser.zero_grad()
        total(method(batch), batch.labels, weights).backward()
        optimiser.step()
    assert F.mse_loss(method(batch).prediction, batch.labels) < batch.labels.var(correction=0) / 10


def test_the_loop_trains_it() -> None:
    split = random_split({m: [3, 2, 4, 1, 5, 2, 3, 4, 2] for m in MODALITIES}, DIMS, seed=4)
    config = IIDAF.Config(**SMALL, training={"batch_size": 4, "max_epochs": 3})
    run = train(IIDAF(Inputs(DIMS), TASKS["regression"], config), split, split, TASKS["regression"], config, seed=0)
    assert len(run.history) == 3
    assert set(run.history[0].losses) == {"task", *LOSSES}


def test_reduced_precision_stays_finite() -> None:
    method = small()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = run(method)
    assert output.prediction.isfinite().all() and all(loss.isfinite() for loss in output.losses.values())


# Settings


CHANGES: dict[str, Any] = {
    **{"width": 12, "kernel": 5, "layers": {"text": 2}, "heads": {"vision": 4}, "shared_layers": 2, "shared_heads": 4},
    **{"joint": "concatenated", "pooling": "last", "dropout": 0.4, "iamd": False, "mic": False, "sgaff": False, "uses": "shared"},
    **{"factor": 5, "blocks": 3, "reflections": 2, "coupling": 4, "norm": False, "mask": "batch", "mask_place": "every"},
    **{"reconstruct": "inverse", "target": "shared", "squared_norm": "sum", "moments": 3, "moments_used": "ends", "bandwidth": 0.3},
    **{"critic": 4, "discriminator": 4, "discriminator_learning_rate": 0.1, "neighbours": 1, "conditional": "first"},
    **{"log_odds_limit": 1e-3, "fusion": 4},
}


def test_the_list_of_settings_is_complete() -> None:
    assert set(CHANGES) == set(IIDAF.Config.model_fields) - set(MethodConfig.model_fields)


@pytest.mark.parametrize("name", CHANGES)
def test_no_setting_is_without_effect(name: str) -> None:
    assert effect({}) == effect({})
    assert effect({}) != effect({name: CHANGES[name]})


def effect(settings: dict[str, Any]) -> tuple[float, ...]:
    """All that training sees: prediction, losses, rates, sizes."""
    method = small(**settings)
    output = run(method)
    rates = [group.get("lr", 0.0) for group in method.parameter_groups(IIDAF.Config().training)]
    sizes = sum(p.numel() for p in method.parameters())
    return (output.prediction.sum().item(), *(loss.item() for loss in output.losses.values()), *rates, sizes)


def test_every_block_has_its_mask_where_asked() -> None:
    method = small(mask_place="every")
    assert all(sum(isinstance(m, AttentionMask) for m in method.disentangle[name].modules()) == 2 for name in MODALITIES)

"""Layers against independent references in double precision, closed forms, and PyTorch's own packed sequences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from harness.nn import dropout as dropout_module
from harness.nn.attention import Attention, Dropouts, Encoder, EncoderLayer, attention_mask, embed, sinusoid
from harness.nn.convolution import TimeConv
from harness.nn.divergences import central_moments, cmd, orthogonality
from harness.nn.dropout import Dropout, dropout
from harness.nn.recurrent import BiLSTM, LastLSTM, last_state, last_step, reverse
from harness.nn.subnets import BatchNorm, SubNet, Utterances

EXACT = {"rtol": 0.0, "atol": 1e-12}  # double precision against double precision
SINGLE = {"rtol": 0.0, "atol": 1e-5}


def padded(lengths: list[int], width: int, extra: int = 0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random clips in double precision, zero after each one's end: (B, longest + extra, width), (B,)."""
    rng = np.random.default_rng(seed)
    x = torch.zeros(len(lengths), max(lengths) + extra, width, dtype=torch.float64)
    for row, length in enumerate(lengths):
        x[row, :length] = torch.from_numpy(rng.normal(size=(length, width)))
    return x, torch.tensor(lengths)


def allowed(i: int, j: int, queries: int, keys: int, causal: bool) -> bool:
    return j < keys and (not causal or j <= i + abs(keys - queries))


def naive_attention(layer: Attention, query: Tensor, source: Tensor, queries: int, keys: int, causal: bool) -> np.ndarray:
    """Attention of one clip, one query and one head at a time: query (Tq, D), source (Tk, D) -> (Tq, D)."""
    weight, bias = layer.inward.weight.detach().numpy(), layer.inward.bias.detach().numpy()
    width = query.shape[1]
    size = width // layer.heads
    q, k, v = (
        x.numpy() @ weight[part * width : (part + 1) * width].T + bias[part * width : (part + 1) * width]
        for part, x in enumerate([query, source, source])
    )
    mixed = np.zeros((len(query), width))
    for i in range(queries):
        seen = [j for j in range(len(source)) if allowed(i, j, queries, keys, causal)]
        for head in range(layer.heads):
            columns = slice(head * size, (head + 1) * size)
            scores = np.array([q[i, columns] @ k[j, columns] / math.sqrt(size) for j in seen])
            weights = np.exp(scores - scores.max())
            mixed[i, columns] = (weights / weights.sum()) @ v[seen, columns]
    return mixed @ layer.outward.weight.detach().numpy().T + layer.outward.bias.detach().numpy()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("query_lengths, key_lengths", [([5, 1, 3], [2, 4, 7]), ([3, 17, 1], [20, 1, 4])])  # below and above one register
def test_attention_agrees_with_one_query_at_a_time(query_lengths: list[int], key_lengths: list[int], causal: bool) -> None:
    torch.manual_seed(0)
    layer = Attention(6, 3).double()
    nn.init.normal_(layer.inward.bias)
    query, queries = padded(query_lengths, 6, extra=2)
    source, keys = padded(key_lengths, 6, extra=1, seed=1)
    result = layer(query, source, attention_mask(query, source, queries, keys, causal)).detach().numpy()
    for row, (count, key_count) in enumerate(zip(query_lengths, key_lengths, strict=True)):
        expected = naive_attention(layer, query[row], source[row], count, key_count, causal)
        np.testing.assert_allclose(result[row, :count], expected[:count], **EXACT)


@pytest.mark.parametrize("steps", [3, 15, 16, 40])
def test_self_attention_is_attention_to_an_equal_source(steps: int) -> None:
    layer = Attention(8, 2).double()
    x = torch.randn(2, steps, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x, x), layer(x, x.clone()), **EXACT)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3), st.booleans())
@settings(deadline=None)
def test_mask_follows_its_definition(queries: int, keys: int, more_queries: int, more_keys: int, causal: bool) -> None:
    query, key = torch.zeros(1, queries + more_queries, 2), torch.zeros(1, keys + more_keys, 2)
    mask = attention_mask(query, key, torch.tensor([queries]), torch.tensor([keys]), causal)[0, 0]
    expected = [[allowed(i, j, queries, keys, causal) for j in range(key.shape[1])] for i in range(query.shape[1])]
    assert torch.equal(mask == 0, torch.tensor(expected)) and torch.equal(mask == -math.inf, ~torch.tensor(expected))
    assert (mask == 0).any(-1).all(), "a query without keys would be NaN"


def test_attention_dropout_keeps_the_mean() -> None:
    torch.manual_seed(0)
    layer = Attention(4, 2, dropout=0.25)
    x = torch.randn(1, 6, 4).expand(20_000, -1, -1)
    mean, exact = layer(x, x).detach().mean(0), layer.eval()(x[:1], x[:1])[0]
    torch.testing.assert_close(mean, exact, rtol=0, atol=0.02)  # 20,000 draws of order .5: five standard errors


def copy_of_torch_layer(norm_first: bool) -> tuple[EncoderLayer, nn.TransformerEncoderLayer]:
    ours = EncoderLayer(8, 2, 20, Dropouts(), norm_first)
    theirs = nn.TransformerEncoderLayer(8, 2, 20, dropout=0.0, batch_first=True, norm_first=norm_first)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.5)
    pairs = [(theirs.self_attn.out_proj, ours.attention.outward), (theirs.linear1, ours.feed[0]), (theirs.linear2, ours.feed[3])]
    pairs += [(theirs.norm1, ours.norms[0]), (theirs.norm2, ours.norms[1])]
    for target, source in pairs:
        target.load_state_dict(source.state_dict())
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(ours.attention.inward.weight)
        theirs.self_attn.in_proj_bias.copy_(ours.attention.inward.bias)
    return ours.double(), theirs.double()


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("steps", [6, 18])
def test_encoder_layer_is_the_standard_one(norm_first: bool, steps: int) -> None:
    torch.manual_seed(1)
    ours, theirs = copy_of_torch_layer(norm_first)
    x = torch.randn(3, steps, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x, x), theirs(x), **EXACT)


def test_crossmodal_layer_normalises_query_and_source_alike() -> None:
    layer = EncoderLayer(4, 2, 8, Dropouts()).double()
    query, source = torch.randn(1, 3, 4, dtype=torch.float64), torch.randn(1, 5, 4, dtype=torch.float64)
    norm, feed_norm = layer.norms
    x = query + layer.attention(norm(query), norm(source))
    torch.testing.assert_close(layer(query, source), x + layer.feed(feed_norm(x)), **EXACT)


@pytest.mark.parametrize("causal", [False, True])
def test_encoder_read_at_the_last_step_is_the_whole_encoder_read_there(causal: bool) -> None:
    encoder = Encoder(6, 3, 3, Dropouts()).double()
    x, lengths = padded([4, 1, 19], 6, extra=3)
    mask = attention_mask(x, x, lengths, lengths, causal)
    whole = x
    for layer in encoder.layers:
        whole = layer(whole, whole, mask)
    torch.testing.assert_close(encoder.last(x, mask, lengths), last_step(encoder.norm(whole), lengths), **EXACT)


def test_crossmodal_encoder_reads_the_source_unchanged_at_every_layer() -> None:
    encoder = Encoder(6, 3, 3, Dropouts()).double()
    (x, lengths), (source, source_lengths) = padded([4, 2], 6), padded([3, 5], 6, seed=1)
    mask = attention_mask(x, source, lengths, source_lengths)
    expected = x
    for layer in encoder.layers:
        expected = layer(expected, source, mask)
    seen, real = encoder(x, source, mask, lengths, source_lengths), torch.arange(x.shape[1]) < lengths[:, None]
    torch.testing.assert_close(seen[real], encoder.norm(expected)[real], **EXACT)


def test_causal_encoder_sees_no_later_step() -> None:
    encoder = Encoder(6, 3, 2, Dropouts()).double()
    x, lengths = padded([8, 8], 6)
    changed = x.clone()
    changed[:, 5:] = x[:, :3]
    mask = attention_mask(x, x, lengths, lengths, causal=True)
    before, after = (encoder(each, each, mask, lengths, lengths) for each in (x, changed))
    torch.testing.assert_close(before[:, :5], after[:, :5], **EXACT)
    assert (before[:, 5:] - after[:, 5:]).abs().max() > 1e-3


@pytest.mark.parametrize("width", [2, 7, 50])
def test_sinusoid_is_its_formula(width: int) -> None:
    half = width // 2
    expected = np.zeros((9, width))
    for step in range(9):
        for column in range(half):
            angle = (step + 1) / 10000 ** (column / max(half - 1, 1))
            expected[step, column], expected[step, half + column] = math.sin(angle), math.cos(angle)
    np.testing.assert_allclose(sinusoid(9, width, torch.zeros(1)).numpy(), expected, **SINGLE)


def test_embedding_does_not_depend_on_what_follows() -> None:
    x, _ = padded([6, 4], 6)
    longer = F.pad(x, (0, 0, 0, 7))
    assert torch.equal(embed(longer, positions=True)[:, :6], embed(x, positions=True))
    torch.testing.assert_close(embed(x, positions=False), x * math.sqrt(6), **EXACT)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="4 attention heads do not divide a width of 6"):
        Attention(6, 4)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_convolution_keeps_the_length_and_ignores_padding(kernel: int) -> None:
    layer = TimeConv(3, 4, kernel).double()
    x, lengths = padded([6, 1, 2], 3)
    weight, before = layer.conv.weight.detach().numpy(), (kernel - 1) // 2
    short, long = layer(x), layer(F.pad(x, (0, 0, 0, 7)))
    assert short.shape == (3, 6, 4)
    for row, length in enumerate(lengths.tolist()):
        for step in range(length):
            taps = [(tap, step - before + tap) for tap in range(kernel) if 0 <= step - before + tap < length]
            expected = sum((weight[:, :, tap] @ x[row, at].numpy() for tap, at in taps), np.zeros(4))
            np.testing.assert_allclose(short[row, step].detach().numpy(), expected, **EXACT)
            np.testing.assert_allclose(long[row, step].detach().numpy(), expected, **EXACT)


LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=5)


@given(LENGTHS, st.integers(0, 4))
@settings(deadline=None, max_examples=30)
def test_last_lstm_agrees_with_packed_sequences(lengths: list[int], extra: int) -> None:
    layer = LastLSTM(3, 4).double()
    x, counts = padded(lengths, 3, extra)
    _, (hidden, _) = layer.lstm(pack_padded_sequence(x, counts, batch_first=True, enforce_sorted=False))
    torch.testing.assert_close(layer(x, counts), hidden[-1], **EXACT)


@given(LENGTHS, st.integers(0, 4))
@settings(deadline=None, max_examples=30)
def test_bilstm_agrees_with_packed_sequences(lengths: list[int], extra: int) -> None:
    layer = BiLSTM(3, 4).double()
    theirs = nn.LSTM(3, 4, batch_first=True, bidirectional=True).double()
    back = {f"{name}_reverse": value for name, value in layer.back.state_dict().items()}
    theirs.load_state_dict(layer.ahead.state_dict() | back)
    x, counts = padded(lengths, 3, extra)
    packed, (hidden, _) = theirs(pack_padded_sequence(x, counts, batch_first=True, enforce_sorted=False))
    states, final = layer(x, counts)
    torch.testing.assert_close(final, torch.cat([hidden[0], hidden[1]], dim=1), **EXACT)
    real = (torch.arange(x.shape[1]) < counts[:, None])[..., None]
    unpacked = pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0]
    torch.testing.assert_close(states * real, unpacked, **EXACT)


def test_bilstm_has_the_parameters_of_the_standard_one() -> None:
    ours, theirs = BiLSTM(5, 7), nn.LSTM(5, 7, bidirectional=True)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_orthogonal_start() -> None:
    layer = BiLSTM(3, 4).double()
    layer.orthogonal()
    for lstm in (layer.ahead, layer.back):
        torch.testing.assert_close(lstm.weight_hh_l0.T @ lstm.weight_hh_l0, torch.eye(4, dtype=torch.float64), **EXACT)


@given(LENGTHS, st.integers(0, 4))
@settings(deadline=None, max_examples=30)
def test_reverse_twice_is_the_identity(lengths: list[int], extra: int) -> None:
    x, counts = padded(lengths, 2, extra)
    once = reverse(x, counts)
    assert torch.equal(reverse(once, counts), x)
    assert torch.equal(once[:, 0], last_step(x, counts))


def moments_of(x: np.ndarray, count: int) -> np.ndarray:
    return np.stack([x.mean(0), *(((x - x.mean(0)) ** k).mean(0) for k in range(2, count + 1))])


def test_cmd_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 3, (11, 4)), rng.uniform(-1, 3, (7, 4)) ** 3 / 9
    distances = np.linalg.norm(moments_of(x, 5) - moments_of(y, 5), axis=1)
    expected = (distances / 4.0 ** np.arange(1, 6)).sum()
    assert cmd(torch.from_numpy(x), torch.from_numpy(y), 5, low=-1, high=3).item() == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(central_moments(torch.from_numpy(x), 5).numpy(), moments_of(x, 5), **EXACT)


@given(st.integers(0, 1000), st.floats(-2, 2))
@settings(deadline=None, max_examples=30)
def test_cmd_of_a_shifted_sample_is_the_length_of_the_shift(seed: int, shift: float) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).uniform(size=(9, 3)))
    assert cmd(x, x).item() == 0
    assert cmd(x, x + shift).item() == pytest.approx(abs(shift) * math.sqrt(3), abs=1e-12)
    y = x.square()
    assert cmd(x, y).item() == pytest.approx(cmd(y, x).item(), abs=1e-14)


@pytest.mark.parametrize("clips", [1, 4])
def test_cmd_has_a_gradient_where_moments_are_equal(clips: int) -> None:
    x = torch.rand(clips, 3, requires_grad=True)
    cmd(x, x.detach() + (clips == 1)).backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_orthogonality_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 4))
    unit = [(a - a.mean(0)) / np.linalg.norm(a - a.mean(0), axis=1, keepdims=True) for a in (x, y)]
    expected = ((unit[0].T @ unit[1]) ** 2).mean()
    # the divisor's 1e-6 moves a row of length about 1.7 by less than 1e-6 of itself
    assert orthogonality(torch.from_numpy(x), torch.from_numpy(y)).item() == pytest.approx(expected, rel=1e-5)


def test_orthogonality_closed_forms() -> None:
    column = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=torch.float64)
    other = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=torch.float64)
    assert orthogonality(column, other).item() == pytest.approx(0, abs=1e-12)
    assert orthogonality(column, column).item() == pytest.approx(16, rel=1e-5)  # (sum of four ones) squared
    assert orthogonality(torch.ones(1, 3), torch.ones(1, 3)).item() == 0  # one clip: nothing is left after centring


@pytest.mark.parametrize("p", [0.1, 0.3, 0.25, 0.5, 0.9])
def test_dropout_keeps_exactly_its_share_of_all_draws(p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def every(like: Tensor, bits: int) -> Tensor:
        sizes.append(bits)
        return torch.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)).to(torch.int8 if bits == 8 else torch.int16).repeat(2 ** (16 - bits))

    monkeypatch.setattr(dropout_module, "_random", every)
    levels = 2**16
    kept = dropout(torch.ones(levels, dtype=torch.float64), p, training=True)
    assert abs((kept == 0).sum().item() / levels - p) <= 0.5 / levels
    assert kept.sum().item() == pytest.approx(levels, rel=1e-14)  # the mean is kept exactly
    assert sizes == [8 if p in (0.25, 0.5) else 16]  # a byte decides where it can express p


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [(3,), (1000, 1000)])
def test_dropout_draws_are_uniform_and_independent(shape: tuple[int, ...], bits: int) -> None:
    torch.manual_seed(0)
    drawn, levels = dropout_module._random(torch.empty(shape), bits), 2**bits
    assert drawn.shape == shape and drawn.element_size() * 8 == bits
    if len(drawn) > 3:
        draws = (drawn.flatten().double() + 0.5) / levels
        variance = (1 - levels**-2.0) / 12  # of the uniform distribution over the levels
        assert abs(draws.mean().item()) < 5 * math.sqrt(1 / 12 / draws.numel())
        assert abs(draws.var().item() - variance) < 5 * math.sqrt(1 / 180 / draws.numel())
        for lag in range(1, 64 // bits + 1):  # neighbours share a 64-bit word
            correlation = (draws[lag:] * draws[:-lag]).mean().item() / variance
            assert abs(correlation) < 5 / math.sqrt(draws.numel())


def test_dropout_is_repeatable_and_passes_its_mask_to_the_gradient() -> None:
    layer, x = Dropout(0.3), torch.ones(50, 50, requires_grad=True)
    torch.manual_seed(3)
    first = layer(x)
    first.sum().backward()
    torch.manual_seed(3)
    assert torch.equal(layer(x), first) and not torch.equal(layer(x), first)
    assert torch.equal(x.grad, first)
    assert layer.eval()(x) is x
    assert dropout(x, 0.0, training=True) is x


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_dropout_rejects_what_is_no_rate(p: float) -> None:
    with pytest.raises(ValueError, match="not in"):
        Dropout(p)


def test_batch_norm_of_one_clip_uses_running_statistics() -> None:
    layer = BatchNorm(3)
    layer(torch.randn(64, 3) * 2 + 1)
    before = layer.running_mean.clone()
    one = torch.randn(1, 3)
    assert torch.equal(layer(one), layer.eval()(one))
    assert torch.equal(layer.running_mean, before)


def test_batch_norm_of_a_batch_is_the_standard_one() -> None:
    x = torch.randn(8, 3)
    assert torch.equal(BatchNorm(3)(x), nn.BatchNorm1d(3)(x))


def test_sub_network_is_three_rectified_layers() -> None:
    net = SubNet(3, 4, 0.0).double().eval()
    x = np.random.default_rng(0).normal(size=(5, 3))
    expected = x / math.sqrt(1 + 1e-5)  # batch norm at its start
    for layer in (net.layers[2], net.layers[4], net.layers[6]):
        expected = np.maximum(expected @ layer.weight.detach().numpy().T + layer.bias.detach().numpy(), 0)
    np.testing.assert_allclose(net(torch.from_numpy(x)).detach().numpy(), expected, **EXACT)


def test_utterances_average_real_frames_only() -> None:
    nets = Utterances({"text": 3, "audio": 2}, {"text": 4, "audio": 6}, 5, {"text": 0.1, "audio": 0.1}).double().eval()
    text, text_lengths = padded([3, 1], 3, extra=2)
    audio, audio_lengths = padded([2, 5], 2, extra=4)
    vectors = nets({"text": text, "audio": audio}, {"text": text_lengths, "audio": audio_lengths})
    assert {name: z.shape[1] for name, z in vectors.items()} == nets.widths == {"text": 5, "audio": 6}
    means = torch.stack([audio[row, :length].mean(0) for row, length in enumerate(audio_lengths.tolist())])
    torch.testing.assert_close(vectors["audio"], nets.nets["audio"](means), **EXACT)


@pytest.mark.parametrize("width", [4, 40])
def test_leaving_padding_out_of_the_lstm_changes_nothing(width: int) -> None:
    """Wide inputs are read at real steps alone: same state, same gradients as over the padding."""
    lstm = nn.LSTM(width, 8, batch_first=True).double()
    lengths = torch.tensor([3, 20, 1, 4])
    x = torch.randn(4, 20, width, dtype=torch.float64) * (torch.arange(20) < lengths[:, None])[..., None]
    results = []
    for compute in (lambda x: last_state(lstm, x, lengths), lambda x: last_step(lstm(x)[0], lengths)):
        lstm.zero_grad()
        leaf = x.clone().requires_grad_()
        state = compute(leaf)
        state.square().sum().backward()
        results.append([state, leaf.grad, *(p.grad for p in lstm.parameters())])
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, **EXACT)

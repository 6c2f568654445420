"""What stacking would give on this machine: python tests/benchmarks/stacked.py

Five seeds of a model as one stacked model (torch.func) against one after another, and six streams of MulT's sizes as one batched
computation against six; milliseconds of the processor, one thread, the least of several. Neither is used: ``docs/performance.md``.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

SEEDS, STREAMS, CLIPS, STEPS, WIDTH, HEADS = 5, 6, 16, 50, 50, 10


class Networks(nn.Module):
    """LF-DNN's sizes: three networks on means, one on their outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.ModuleList(
            nn.Sequential(nn.Linear(d, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU()) for d, h in ((768, 128), (5, 16), (20, 128))
        )
        self.out = nn.Sequential(nn.Linear(272, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, *means: Tensor) -> Tensor:
        return self.out(torch.cat([read(x) for read, x in zip(self.read, means, strict=True)], 1))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """One transformer layer of MulT's width on projected words."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(768, WIDTH), nn.LayerNorm(WIDTH)
        self.ask, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.widen, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        parts = self.ask(self.norm(x)).view(*x.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        x = x + self.out(attend(*parts.unbind(0)).transpose(1, 2).reshape(x.shape))
        return x + self.narrow(self.widen(x).relu())  # type: ignore[no-any-return]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    seeds("networks of LF-DNN's size, 32 clips", Networks, [torch.randn(32, d) for d in (768, 5, 20)])
    seeds("a transformer layer of width 50, 16 clips of 50 words", Layer, [torch.randn(CLIPS, STEPS, 768)])
    streams()


def seeds(name: str, make: Callable[[], nn.Module], inputs: Sequence[Tensor]) -> None:
    models = [make() for _ in range(SEEDS)]
    optimisers = [torch.optim.Adam(model.parameters(), fused=True) for model in models]
    stacked = {key: nn.Parameter(value.detach().clone()) for key, value in stack_module_state(models)[0].items()}  # type: ignore[arg-type]
    base, each = copy.deepcopy(models[0]).to("meta"), [torch.stack([x] * SEEDS) for x in inputs]  # every seed has batches of its own
    optimiser = torch.optim.Adam(stacked.values(), fused=True)

    def loss(parameters: dict[str, Tensor], *x: Tensor) -> Tensor:
        return functional_call(base, parameters, x).square().mean()  # type: ignore[no-any-return]

    def apart() -> None:
        for model, own in zip(models, optimisers, strict=True):
            own.zero_grad()
            model(*inputs).square().mean().backward()
            own.step()

    def together() -> None:
        optimiser.zero_grad()
        vmap(loss)(stacked, *each).sum().backward()
        optimiser.step()

    grads = torch.autograd.grad(vmap(loss)(stacked, *each).sum(), list(stacked.values()))
    alone = [torch.autograd.grad(model(*inputs).square().mean(), list(model.parameters())) for model in models]
    equal = all(torch.equal(grad[seed], own) for seed, row in enumerate(alone) for grad, own in zip(grads, row, strict=True))
    print(f"{SEEDS} seeds of {name}: {ratio(apart, together)}; gradients equal to the bit: {equal}")


def streams() -> None:
    rows = CLIPS * STEPS
    layers = {
        "feed-forward": ([(rows, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)], lambda x, up, down: (x @ up).relu() @ down),
        "attention": ([(CLIPS, HEADS, STEPS, WIDTH // HEADS)] * 3, attend),
        "layer norm": ([(rows, WIDTH)], lambda x: nn.functional.layer_norm(x, (WIDTH,))),
    }
    for name, (shapes, compute) in layers.items():
        many = [[torch.randn(shape, requires_grad=True) for shape in shapes] for _ in range(STREAMS)]
        one = [torch.randn(STREAMS, *shape, requires_grad=True) for shape in shapes]

        def apart(many: list[list[Tensor]] = many, compute: Callable[..., Tensor] = compute) -> None:
            torch.stack([compute(*parts).square().mean() for parts in many]).sum().backward()

        def together(one: list[Tensor] = one, compute: Callable[..., Tensor] = compute) -> None:
            compute(*one).square().mean().backward()

        print(f"{name} of {STREAMS} streams: {ratio(apart, together)}")


def ratio(apart: Callable[[], None], together: Callable[[], None]) -> str:
    """By turns, so that what else the machine does meets both."""
    times = [(milliseconds(apart), milliseconds(together)) for _ in range(9)]
    one, other = (min(column) for column in zip(*times, strict=True))
    return f"apart {one:.2f} ms, stacked {other:.2f} ms, {one / other:.2f} times as fast"


def milliseconds(work: Callable[[], None]) -> float:
    work()
    began = time.process_time()
    for _ in range(10):
        work()
    return 100 * (time.process_time() - began)


if __name__ == "__main__":
    main()

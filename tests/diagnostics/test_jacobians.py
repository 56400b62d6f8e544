"""Per-sample Jacobians against a loop over samples and outputs, one ``autograd.grad`` each."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.diagnostics import jacobians
from fdfa.diagnostics.jacobians import OpenTaps, open_learner
from tests.oracles.statistics import LIMIT, mean_deviation

Half = Callable[[Tensor], Tensor]


class Cube(torch.autograd.Function):
    """One that vmap cannot enter."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.from_numpy((3 * x**2 * g).numpy())  # leaves torch, so it cannot be batched


class Cubed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Cube.apply(x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Attention(nn.Module):
    """Positions of a sequence meet here."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return (self.query(x) @ x.mT).softmax(-1) @ x


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)
    )


def cnn() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(12, 2),
    )  # fmt: skip


def with_batch_norm() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(),
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2),
    )  # fmt: skip


def residual() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), Residual(), Residual(), nn.Linear(4, 2))


def attention() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), Attention(), nn.Linear(4, 2))


def unbatchable() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), Cubed(), nn.Linear(4, 2))


CASES = {
    "mlp": (mlp, (6, 3), 1),
    "cnn": (cnn, (3, 1, 9, 9), 1),
    "batch norm": (with_batch_norm, (6, 3), 1),
    "residual": (residual, (5, 3), 1),
    "attention": (attention, (2, 3, 3), 2),
    "no batching rule": (unbatchable, (5, 3), 1),
}


def by_the_loop(back: nn.Module, h: Tensor, sample_dims: int) -> tuple[Tensor, Tensor]:
    """Own blocks (N, K, |h|), and the derivatives of the sum of all samples' outputs."""
    h = h.detach().requires_grad_()
    y = back(h).flatten(0, sample_dims - 1)
    own, summed = [], []
    for n in range(len(y)):
        for k in range(y.shape[1]):
            (g,) = torch.autograd.grad(y[n, k], h, retain_graph=True)
            own.append(g.flatten(0, sample_dims - 1).flatten(1)[n])
    for k in range(y.shape[1]):
        (g,) = torch.autograd.grad(y[:, k].sum(), h, retain_graph=True)
        summed.append(g.flatten(0, sample_dims - 1).flatten(1))
    return torch.stack(own).view(len(y), y.shape[1], -1), torch.stack(summed, 1)


@pytest.mark.parametrize("name", CASES)
def test_against_the_loop(name: str) -> None:
    make, shape, sample_dims = CASES[name]
    model, x = make().double(), torch.randn(*shape, dtype=torch.float64)
    learner = fdfa.FDFA(model, sample_dims=sample_dims)

    found = jacobians(learner, x)

    plan = learner.plan(x)
    assert list(found) == [tap.name for tap in plan.taps]
    assert len(found) >= 2
    for tap, J in found.items():
        place = int(tap.partition(":")[0]) + (":input" not in tap)
        plain = copy.deepcopy(model)
        own, summed = by_the_loop(plain[place:], plain[:place](x), sample_dims)
        torch.testing.assert_close(J, own, rtol=1e-10, atol=1e-12)
        if tap == next(iter(found)):  # the other terms are there or not, as the case says
            meets = name in ("batch norm", "attention")
            assert meets == (not torch.allclose(own, summed, rtol=1e-3))


@pytest.mark.parametrize("name", ["mlp", "batch norm"])
def test_pieces_and_a_sub_sample(name: str) -> None:
    """As little as possible in memory at a time gives the same; so does looking at fewer."""
    make, shape, _ = CASES[name]
    model, x = make().double(), torch.randn(*shape, dtype=torch.float64)
    learner = fdfa.FDFA(model)
    whole = jacobians(learner, x)
    with open_learner(learner, x) as opened:
        taps = OpenTaps(opened.run, 1, samples=3, at_once=1)
        blocks = list(taps.own_blocks())
    assert taps.chosen.tolist() == [0, 2, 4]
    assert len(blocks) == 3 * len(whole)
    for block in blocks:
        J = whole[opened.plan.taps[block.tap].name][taps.chosen[block.rows]]
        torch.testing.assert_close(block.own, J.movedim(0, 1))
    few = jacobians(learner, x, samples=3)
    assert all(torch.equal(few[tap], whole[tap][::2]) for tap in whole)


def test_random_signs_have_the_own_blocks_for_their_mean() -> None:
    model, x = with_batch_norm().double(), torch.randn(6, 3, dtype=torch.float64)
    learner = fdfa.FDFA(model)
    own = jacobians(learner, x, samples=4)["2"].movedim(0, 1)
    generator = torch.Generator().manual_seed(3)
    with open_learner(learner, x) as opened:
        taps = OpenTaps(opened.run, 1, samples=4)
        assert taps.coupled
        exact = sum(block.reach for block in taps.own_blocks() if block.tap == 0)
        drawn = [next(taps.drawn_blocks(generator)) for _ in range(400)]
    draws = torch.stack([block.own for block in drawn])
    assert draws.std(0).max() > 0.01
    assert mean_deviation(draws, own) < LIMIT
    assert mean_deviation(torch.stack([block.reach for block in drawn]), exact) < LIMIT


def test_samples_meet_in_training_mode_only() -> None:
    model, x = with_batch_norm(), torch.randn(6, 3)
    learner = fdfa.FDFA(model)
    for training in (True, False):
        learner.train(training)
        with open_learner(learner, x) as opened:
            assert OpenTaps(opened.run, 1, None).coupled == training


@pytest.mark.parametrize("size", [6, 64])
def test_samples_meet_in_half_precision_too(size: int) -> None:
    learner, x = fdfa.FDFA(with_batch_norm()), torch.randn(size, 3)
    for training in (True, False):
        learner.train(training)
        with torch.autocast("cpu", torch.bfloat16), open_learner(learner, x) as opened:
            assert OpenTaps(opened.run, 1, None).coupled == training


def test_a_known_plan_is_not_looked_for() -> None:
    learner, x = fdfa.FDFA(mlp()), torch.randn(6, 3)
    assert learner.known_plan(x) is None
    assert not learner.feedback.names()
    plan = learner.plan(x)
    assert learner.known_plan(x) is plan
    assert learner.known_plan(torch.randn(7, 3)) is None

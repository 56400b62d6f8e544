"""Local losses: naive loops over blocks that know nothing of each other, and Monte Carlo."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.engine.probes import Probe
from tests.oracles.statistics import LIMIT, mean_deviation, variance_deviation

PASSES = 20_000
Loss = Callable[[Tensor, Tensor], Tensor]


class Residual(nn.Module):
    """Two weight layers and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width + 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(width + 1, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.fc2(self.act(self.fc1(x)))
        return y


def residual_network() -> nn.Sequential:
    """Its first block holds three weight layers, the second two and a shortcut around them."""
    first = nn.Sequential(
        *(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 6))
    )
    return nn.Sequential(first, Residual(6), nn.Linear(6, 3)).double()


def with_heads(model: nn.Sequential, x: Tensor, **options: object) -> fdfa.LocalHeads:
    """Heads with weights, so that every block has something to learn from the start."""
    heads = fdfa.LocalHeads(model, x, **options)
    for parameter in heads.heads.parameters():
        nn.init.normal_(parameter)
    return heads


def batch(size: int = 7) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 4).double(), torch.randint(3, (size,))


def naive_local_backpropagation(
    heads: fdfa.LocalHeads, ends: list[int], x: Tensor, target: Tensor, loss: Loss
) -> list[Tensor]:
    """Each block by itself, on a detached input; ``ends`` are the layers that heads follow."""
    layers, first = list(heads.model), 0
    for number, last in enumerate(ends):
        for layer in layers[first : last + 1]:
            x = layer(x)
        loss(heads.heads[number](x), target).backward()
        x, first = x.detach(), last + 1
    for layer in layers[first:]:
        x = layer(x)
    loss(x, target).backward()
    found = [parameter.grad for parameter in heads.parameters()]
    heads.zero_grad()
    return found


LOSSES: dict[str, Loss] = {
    "mean": F.cross_entropy,
    "sum": lambda y, t: F.cross_entropy(y, t, reduction="sum"),
    "a share": lambda y, t: 0.3 * F.cross_entropy(y, t, label_smoothing=0.1),
    "mean square": lambda y, t: F.mse_loss(y, F.one_hot(t, 3).to(y.dtype)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_l_bp_is_backpropagation_on_detached_blocks(loss: str, dtype: torch.dtype) -> None:
    """Bit for bit, whatever the loss."""
    networks = [
        (residual_network(), {"taps": ["0", "1"]}, [0, 1]),
        (nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)), nn.Linear(4, 3)), {}, [0, 1, 2]),
        (
            nn.Sequential(
                *(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh()),
                *(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)),
            ),
            {"depth": 2},
            [4],
        ),
    ]
    for model, options, ends in networks:
        x, target = batch()
        heads = with_heads(model.to(dtype), x.to(dtype), **options)
        learner = fdfa.wrap("l-bp", heads)
        criterion = learner.criterion(LOSSES[loss])
        for _ in range(2):
            expected = naive_local_backpropagation(
                copy.deepcopy(heads), ends, x.to(dtype), target, LOSSES[loss]
            )
            learner.zero_grad()
            criterion(learner(x.to(dtype)), target).backward()
            found = [parameter.grad for parameter in heads.parameters()]
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
            assert all(gradient.any() for gradient in found if gradient.dim() == 2)


def drawn(shapes: list[tuple[int, ...]], seed: int, step: int, noise: str) -> list[Tensor]:
    """The perturbations of (seed, step, rank 0), as the probe's docstring promises them."""
    count = len(shapes)
    return Probe(noise=noise).draw(
        shapes, [torch.float64] * count, [torch.device("cpu")] * count, seed, step, 0
    )


def pieces(model: nn.Sequential) -> list[list[Callable[[Tensor, Tensor], Tensor]]]:
    """Of each block, the maps from tap to tap; each also gets what entered the block."""
    first, second = model[0], model[1]
    return [
        [lambda h, _: first[:2](h), lambda h, _: first[2:4](h), lambda h, _: first[4](h)],
        [lambda h, _: second.act(second.fc1(h)), lambda h, shortcut: shortcut + second.fc2(h)],
    ]


def naive_block(
    maps: list[Callable[[Tensor, Tensor], Tensor]],
    head: nn.Module,
    x: Tensor,
    error: Callable[[Tensor], Tensor],
    p: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """One block's surrogate loss, whose gradient is the estimate, and its activation."""

    def output(*moves: Tensor) -> Tensor:
        h = x
        for piece, move in zip(maps, moves, strict=True):
            h = piece(h, x) + move
        return head(h)

    y, d = torch.func.jvp(output, tuple(map(torch.zeros_like, p)), tuple(p))
    slope = (error(y.detach()) * d.detach()).sum(1, keepdim=True)
    surrogate, h = torch.zeros(()), x
    for piece, noise in zip(maps, p, strict=True):
        h = piece(h.detach(), x)
        surrogate = surrogate + (h * slope * noise).sum()
    h = h.detach()
    y = head(h)
    return surrogate + (y * error(y.detach())).sum(), h


def error_of(target: Tensor) -> Callable[[Tensor], Tensor]:
    def error(y: Tensor) -> Tensor:
        y = y.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(y, target), y)[0]

    return error


@pytest.mark.parametrize("at_once", [True, False], ids=["all at once", "one by one"])
@pytest.mark.parametrize("noise", ["normal", "rademacher"])
def test_lg_fg_a_is_the_naive_loop_over_blocks(
    noise: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block's derivative meets the noise of its own taps alone; shortcuts stay inside."""
    monkeypatch.setattr("fdfa.engine.credit._AT_ONCE", 2**40 if at_once else 0)
    model = residual_network()
    heads = with_heads(model, batch()[0], taps=["0", "1"])
    learner = fdfa.wrap("lg-fg-a", heads, seed=5, noise=noise)
    criterion = learner.criterion(F.cross_entropy)
    for step in range(2):
        x, target = batch(7 - step)
        names = [tap.name for tap in learner.plan(x).taps]
        assert names == ["0.1", "0.3", "0", "1.act", "1"]
        p = drawn([(len(x), width) for width in (6, 7, 6, 7, 6)], 5, step, noise)
        blocks = pieces(model)
        first, h = naive_block(blocks[0], heads.heads[0], x, error_of(target), p[:3])
        second, h = naive_block(blocks[1], heads.heads[1], h, error_of(target), p[3:])
        loss = first + second + F.cross_entropy(model[2](h), target)
        expected = torch.autograd.grad(loss, list(heads.parameters()))
        learner.zero_grad()
        criterion(learner(x), target).backward()
        found = [parameter.grad for parameter in heads.parameters()]
        torch.testing.assert_close(found, list(expected), rtol=1e-10, atol=1e-12)


def test_what_follows_the_last_head_is_probed_by_the_outputs_loss() -> None:
    """A last block of several layers: forward gradients of L(y, t) itself."""
    model = nn.Sequential(
        *(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    ).double()
    x, target = batch()
    heads = with_heads(model, x, taps=["1"])
    learner = fdfa.wrap("lg-fg-a", heads, seed=5)
    learner.criterion(F.cross_entropy)(learner(x), target).backward()
    p = drawn([(7, 6), (7, 5)], 5, 0, "normal")
    h = model[:2](x).detach()
    tapped = model[2:4](h)
    y, d = torch.func.jvp(model[4], (tapped.detach(),), (p[1],))
    slope = (error_of(target)(y) * d).sum(1, keepdim=True)
    expected = torch.autograd.grad((tapped * slope * p[1]).sum(), list(model[2].parameters()))
    found = [parameter.grad for parameter in model[2].parameters()]
    torch.testing.assert_close(found, list(expected), rtol=1e-10, atol=1e-12)


class Watched(nn.Module):
    """A layer that keeps the gradient of what it returns: at a tap, the credit."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.seen = torch.empty(0)

    def keep(self, gradient: Tensor) -> None:
        self.seen = gradient.clone()

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if y.requires_grad:
            y.register_hook(self.keep)
        return y


@pytest.mark.parametrize("noise", ["normal", "rademacher"])
def test_lg_fg_a_is_l_bp_in_the_mean(noise: str) -> None:
    """And its variance is that of forward gradients with the block as the whole network."""
    model, (x, target) = residual_network(), batch(1)
    first = model[0]
    first[1], first[3] = watched = Watched(first[1]), Watched(first[3])
    heads = with_heads(model, x, taps=["0", "1"])
    learner = fdfa.wrap("lg-fg-a", heads, seed=5, noise=noise, taps=["0.1", "0.3"])
    criterion = learner.criterion(lambda y, t: F.cross_entropy(y, t, reduction="sum"))
    # of the first block's taps, by backpropagation from its own loss alone
    h = first[:2](x).detach().requires_grad_()
    inner = first[2:4](h).detach().requires_grad_()
    end = first[4](inner).detach().requires_grad_()
    (g_end,) = torch.autograd.grad(F.cross_entropy(heads.heads[0](end), target), end)
    truth = [
        torch.autograd.grad(first[2:](h), h, g_end)[0],
        torch.autograd.grad(first[4](inner), inner, g_end)[0],
        g_end,
    ]
    squared = sum(each.square().sum() for each in truth)
    kurtosis = {"normal": 3.0, "rademacher": 1.0}[noise]
    criterion(learner(x.expand(PASSES, 4)), target.expand(PASSES)).backward()
    for draws, expected in zip((layer.seen for layer in watched), truth, strict=False):
        assert mean_deviation(draws, expected[0]) < LIMIT
        assert mean_deviation(draws, expected[0] + 0.3) > LIMIT
        variance = squared + (kurtosis - 2) * expected[0].square()
        assert variance_deviation(draws, variance) < LIMIT


def test_masked_noise_leaves_closed_units_alone() -> None:
    """With ``mask_inactive`` the mean is the same, since a ReLU that is closed passes nothing."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x, target = batch()
    learner = fdfa.wrap("lg-fg-a", with_heads(model, x), seed=5, mask_inactive=True)
    learner.criterion(F.cross_entropy)(learner(x), target).backward()
    h = model[:2](x)
    p = drawn([(7, 6)], 5, 0, "normal")[0] * (h > 0)
    head = learner.heads[0]
    y, d = torch.func.jvp(head, (h.detach(),), (p.detach(),))
    slope = (error_of(target)(y) * d).sum(1, keepdim=True).detach()
    expected = torch.autograd.grad((h * slope * p.detach()).sum(), list(model[0].parameters()))
    found = [parameter.grad for parameter in model[0].parameters()]
    torch.testing.assert_close(found, list(expected), rtol=1e-10, atol=1e-12)
    assert (h == 0).any()


@pytest.mark.parametrize("method", ["l-bp", "lg-fg-a"])
def test_heads_get_their_exact_gradients_and_give_none(method: str) -> None:
    model, (x, target) = residual_network(), batch()
    heads = with_heads(model, x, taps=["0", "1"])
    learner = fdfa.wrap(method, heads, seed=5)
    learner.criterion(F.cross_entropy)(learner(x), target).backward()
    h = model[0](x).detach()
    for head, activation in zip(heads.heads, (h, model[1](h).detach()), strict=True):
        own = list(head.parameters())
        expected = torch.autograd.grad(F.cross_entropy(head(activation), target), own)
        torch.testing.assert_close([p.grad for p in own], list(expected), rtol=1e-12, atol=1e-14)

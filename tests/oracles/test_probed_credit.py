"""Forward gradients in activity space, and the control variate: naive loops and Monte Carlo."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.engine.probes import Probe
from tests.oracles.perturbed import explicit_jacobians
from tests.oracles.statistics import LIMIT, deviation, mean_deviation, variance_deviation

PASSES = 40_000
KURTOSIS = {"normal": 3.0, "rademacher": 1.0}


def drawn(shapes: list[tuple[int, ...]], seed: int, step: int, noise: str = "normal") -> list:
    """The perturbations of (seed, step, rank 0), as the probe's docstring promises them."""
    count = len(shapes)
    return Probe(noise=noise).draw(
        shapes, [torch.float64] * count, [torch.device("cpu")] * count, seed, step, 0
    )


def relu_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
    ).double()


def naive_forward_gradient(model: nn.Sequential, x: Tensor, target: Tensor, p: list) -> list:
    """Sample by sample, with dual numbers: gradients of all parameters, in the model's order."""
    first, second, last = model[0], model[2], model[4]
    leaves = list(model.parameters())
    found = [torch.zeros_like(leaf) for leaf in leaves]
    for n in range(len(x)):
        with fwAD.dual_level():
            h = fwAD.make_dual(first(x[n]).relu().detach(), p[0][n])
            h = second(h).relu()
            h = fwAD.make_dual(fwAD.unpack_dual(h).primal, fwAD.unpack_dual(h).tangent + p[1][n])
            y, d = fwAD.unpack_dual(last(h))
            y, d = y.detach(), d.detach()
        y.requires_grad_()
        (e,) = torch.autograd.grad(F.cross_entropy(y, target[n]) / len(x), y)
        h1 = first(x[n]).relu()
        h2 = second(h1.detach()).relu()
        y = last(h2.detach())
        slope = (e * d).sum()
        surrogate = h1 @ (slope * p[0][n]) + h2 @ (slope * p[1][n]) + y @ e
        for total, gradient in zip(found, torch.autograd.grad(surrogate, leaves), strict=True):
            total += gradient
    return found


@pytest.mark.parametrize("at_once", [True, False], ids=["all at once", "one by one"])
@pytest.mark.parametrize("masked", [False, True], ids=["all units", "active units"])
@pytest.mark.parametrize("noise", KURTOSIS)
def test_fg_a_is_the_naive_loop(
    at_once: bool, masked: bool, noise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fdfa.engine.credit._AT_ONCE", 2**40 if at_once else 0)
    model = relu_network()
    learner = fdfa.wrap("fg-a", model, seed=5, noise=noise, mask_inactive=masked)
    for step in range(3):
        x, target = torch.randn(7 - step, 4).double(), torch.randint(3, (7 - step,))
        p = drawn([(len(x), 6), (len(x), 5)], 5, step, noise)
        if masked:
            h = model[:2](x)
            p = [p[0] * (h > 0), p[1] * (model[2:4](h) > 0)]
        expected = naive_forward_gradient(copy.deepcopy(model), x, target, p)
        model.zero_grad()
        F.cross_entropy(learner(x), target).backward()
        found = [parameter.grad for parameter in model.parameters()]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


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


def test_masked_behind_a_relu_is_the_papers_masked_estimate_before_it() -> None:
    """Ren et al. perturb pre-activations, and keep the estimates of active units."""
    first, second, last = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)
    before = nn.Sequential(Watched(first), nn.ReLU(), Watched(second), nn.ReLU(), last).double()
    behind = nn.Sequential(first, Watched(nn.ReLU()), second, Watched(nn.ReLU()), last).double()
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    learners = (
        fdfa.wrap("fg-a", behind, seed=5, taps=["1", "3"], mask_inactive=True),
        fdfa.wrap("fg-a", before, seed=5, taps=["0", "2"]),
    )
    for learner in learners:
        F.cross_entropy(learner(x), target).backward()
    h = x
    for tap in (0, 2):
        h = behind[tap + 1](behind[tap](h)).detach()
        expected = before[tap].seen * (h > 0)
        torch.testing.assert_close(behind[tap + 1].seen, expected, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(before[tap].seen, expected)


class Draws:
    """Credits of many passes over one sample at once: a batch of copies of it."""

    def __init__(self, model: nn.Sequential, taps: list[str], e: Tensor, **options: object) -> None:
        self.model, self.taps, self.e = model, taps, e
        self.x = torch.randn(1, 4).double()
        self.learner = fdfa.FDFA(model, taps=taps, seed=3, credit="unbiased", **options)
        self.learner.plan(self.x.expand(PASSES, 4))
        self.jacobians = [J[0, :, 0] for J in explicit_jacobians(model, taps, self.x)]
        self.truth = torch.cat([e @ J for J in self.jacobians])  # q, all taps

    def maps(self) -> Tensor:
        """All of B, (K, n)."""
        return torch.cat([self.learner.feedback[tap].weight for tap in self.taps], 1)

    def credits(self, learner: fdfa.Estimator | None = None) -> Tensor:
        """(passes, n): every tap's credit, caught by a hook before its block runs."""
        (learner or self.learner)(self.x.expand(PASSES, 4)).backward(self.e.expand(PASSES, -1))
        return torch.cat([self.model.get_submodule(tap).seen for tap in self.taps], 1)


def curved() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 5),
        Watched(nn.Tanh()),
        nn.Linear(5, 3),
        nn.LayerNorm(3),
        Watched(nn.Tanh()),
        nn.Linear(3, 2),
    ).double()


ERROR = torch.tensor([0.7, -1.1]).double()


def theory(r: Tensor, kurtosis: float) -> Tensor:
    return r.square().sum() + (kurtosis - 2) * r.square()


@pytest.mark.parametrize("noise", KURTOSIS)
@pytest.mark.parametrize("b", [1.0, 0.4, 0.0])
def test_unbiased_for_any_map_with_the_variance_of_the_closed_form(b: float, noise: str) -> None:
    draws = Draws(curved(), ["1", "4"], ERROR, coefficient=b, noise=noise)
    for tap in draws.taps:
        nn.init.normal_(draws.learner.feedback[tap].weight)
    rest = draws.truth - b * (ERROR @ draws.maps())
    foreseen = ERROR @ draws.maps()
    credits = draws.credits()
    assert mean_deviation(credits, draws.truth) < LIMIT
    assert variance_deviation(credits, theory(rest, KURTOSIS[noise])) < LIMIT
    # What the same checks must refuse: the plain credit, half the correction, no map at all.
    assert mean_deviation(credits - draws.truth + foreseen, draws.truth) > LIMIT
    assert mean_deviation((credits + b * foreseen) / (1 + b) * 1.1, draws.truth) > LIMIT
    assert variance_deviation(credits, theory(rest, 4 - KURTOSIS[noise])) > LIMIT
    if b:
        assert variance_deviation(credits, theory(draws.truth, KURTOSIS[noise])) > LIMIT


@pytest.mark.parametrize("noise", KURTOSIS)
def test_fg_a_has_the_mean_and_variance_of_the_closed_form(noise: str) -> None:
    draws = Draws(curved(), ["1", "4"], ERROR)
    learner = fdfa.wrap("fg-a", draws.model, taps=draws.taps, seed=9, noise=noise)
    credits = draws.credits(learner)
    assert mean_deviation(credits, draws.truth) < LIMIT
    assert variance_deviation(credits, theory(draws.truth, KURTOSIS[noise])) < LIMIT
    # Wrong estimators that the same checks must refuse.
    assert mean_deviation(credits * 1.1, draws.truth) > LIMIT
    assert mean_deviation(credits.roll(1, 1), draws.truth) > LIMIT  # another unit's noise
    assert variance_deviation(credits, theory(draws.truth, 4 - KURTOSIS[noise])) > LIMIT


@pytest.mark.slow
def test_fg_a_on_weights_of_a_linear_network() -> None:
    """Mean: autograd's gradient. Var G_ij = sum_n x_nj^2 (|q_n|^2 + q_ni^2), independent p_n."""
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 3), nn.Linear(3, 2)).double()
    x, error = torch.randn(3, 3).double(), torch.randn(3, 2).double()
    learner = fdfa.wrap("fg-a", model, taps=["0", "1"], seed=2)
    plain = copy.deepcopy(model)
    plain(x).backward(error)
    W2, W3 = model[1].weight.detach(), model[2].weight.detach()
    q = torch.cat([error @ W3 @ W2, error @ W3], 1)  # (N, all units)
    own = q[:, :4]
    variance = (q.square().sum(1, keepdim=True) + own.square()).T @ x.square()
    draws = []
    for _ in range(4000):
        model.zero_grad()
        learner(x).backward(error)
        draws.append(model[0].weight.grad.clone())
    draws = torch.stack(draws)
    assert mean_deviation(draws, plain[0].weight.grad) < LIMIT
    assert variance_deviation(draws, variance) < LIMIT
    assert mean_deviation(draws * 3, plain[0].weight.grad) > LIMIT  # as if e had no 1/N
    assert variance_deviation(draws, own.square().T @ x.square() * 2) > LIMIT  # no cross-talk


def test_exact_maps_leave_no_noise() -> None:
    """B = J, b = 1: whatever is drawn, every credit is the true one."""
    draws = Draws(curved(), ["1", "4"], ERROR)
    for tap, J in zip(draws.taps, draws.jacobians, strict=True):
        draws.learner.feedback[tap].weight.copy_(J)
    credits = draws.credits()
    torch.testing.assert_close(credits, draws.truth.expand_as(credits), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0, -2.0])
def test_running_coefficient_is_the_best_and_never_worse_than_fg_a(scale: float) -> None:
    """b* = <q, eB> / |eB|^2, clipped to [0, 1]; seen after one batch of many copies."""
    draws = Draws(curved(), ["1", "4"], ERROR, coefficient="running", feedback_rate=1e-12)
    for tap, J in zip(draws.taps, draws.jacobians, strict=True):
        draws.learner.feedback[tap].weight.copy_(scale * (J + 0.3 * torch.randn_like(J)))
    foreseen = ERROR @ draws.maps()
    assert draws.learner.coefficient.value() == 0  # nothing known yet: fg-a
    draws.credits()
    b = draws.learner.coefficient.value()
    best = (draws.truth @ foreseen / foreseen.square().sum()).clamp(0, 1).item()
    assert abs(b - best) < 0.05
    total = [theory(draws.truth - c * foreseen, 3.0).sum().item() for c in (0.0, best, b)]
    assert total[1] <= total[0] * (1 + 1e-12)
    assert total[2] <= total[0] * 1.01
    measured = draws.credits().var(0).sum().item()
    assert abs(measured / total[2] - 1) < 0.1
    if best in (0.0, 1.0):
        assert b == best


def test_steps_without_a_probe_give_the_plain_credit() -> None:
    model = relu_network()
    twin = copy.deepcopy(model)
    options = {"seed": 4, "feedback_rate": 0.5, "probe_every": 2}
    unbiased = fdfa.FDFA(model, credit="unbiased", **options)
    plain = fdfa.FDFA(twin, **options)
    for step in range(4):
        x, target = torch.randn(6, 4).double(), torch.randint(3, (6,))
        for learner in (unbiased, plain):
            learner.zero_grad()
            F.cross_entropy(learner(x), target).backward()
        same = torch.equal(model[0].weight.grad, twin[0].weight.grad)
        assert same == bool(step % 2)
    assert deviation(unbiased.feedback["1"].weight, plain.feedback["1"].weight, 1e-12) < 1

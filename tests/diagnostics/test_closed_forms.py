"""On linear networks in float64 every figure has a closed form, which a diagnosis must meet.

A deliberately wrong estimator must not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.diagnostics import Diagnosis, Estimate, GradientQuality, diagnose
from fdfa.diagnostics.estimates import quantile
from fdfa.engine.directions import Directions
from fdfa.engine.estimator import Estimator
from fdfa.methods import FDFA, FGA, ForwardGradient, MultiTangent

N = 6
HIDDEN = ("0", "1")  # where taps lie; the third layer ends at the output
NAMES = ("0.weight", "1.weight", "2.weight")


def half_squared_error(y: Tensor, target: Tensor) -> Tensor:
    return (y - target).square().sum() / 2


class Linear3:
    """Three linear layers, a batch, and every quantity of its exact gradient, layer by layer."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(7)
        sizes = ((4, 3), (3, 4), (2, 3))
        W1, W2, W3 = (
            torch.randn(shape, generator=generator, dtype=torch.float64) / shape[1] ** 0.5
            for shape in sizes
        )
        self.model = nn.Sequential(*(nn.Linear(n, m, bias=False) for m, n in sizes)).double()
        for layer, W in zip(self.model, (W1, W2, W3), strict=True):
            layer.weight.data = W.clone()
        x, self.target = (
            torch.randn(N, width, generator=generator, dtype=torch.float64) for width in (3, 2)
        )
        h1 = x @ W1.T
        h2 = h1 @ W2.T
        self.x, self.inputs = x, (x, h1, h2)
        self.e = h2 @ W3.T - self.target
        self.J = (W3 @ W2, W3)  # from each tap to the output
        self.q = tuple(self.e @ J for J in self.J)
        self.exact = {
            name: delta.T @ h
            for name, delta, h in zip(NAMES, (*self.q, self.e), self.inputs, strict=True)
        }
        self.square = sum(g.square().sum().item() for g in self.exact.values())
        self.size = sum(g.numel() for g in self.exact.values())


@dataclasses.dataclass
class Law:
    """What an estimator's draws are like: expectations, by name."""

    mean: dict[str, Tensor]
    variance: dict[str, Tensor]
    at_taps: dict[str, float] = dataclasses.field(default_factory=dict)  # total variance
    cosine: float | None = None
    effective_probes: float | None = None


def in_weight_space(net: Linear3, factor: Callable[[Tensor], Tensor], **more: Any) -> Law:
    """Unbiased, with a variance that is a function of each component."""
    return Law(net.exact, {name: factor(g) for name, g in net.exact.items()}, **more)


def along_taps(net: Linear3, errors: tuple[Tensor, ...], kurtosis: float) -> Law:
    """Credits ``q + noise`` of the variance ``|r|^2 + (kurtosis - 2) r_i^2``, r over all taps."""
    of_samples = sum(r.square().sum(1, keepdim=True) for r in errors)  # (N, 1)
    spread = [of_samples + (kurtosis - 2) * r.square() for r in errors]
    variance = {
        name: s.T @ h.square() for name, s, h in zip(NAMES, spread, net.inputs, strict=False)
    }
    variance["2.weight"] = torch.zeros(2, 3, dtype=torch.float64)
    totals = dict(zip(HIDDEN, (s.sum().item() for s in spread), strict=True))
    return Law(net.exact, variance, totals)


def root_of_beta(a: float, b: float) -> float:
    """E sqrt(B), B ~ Beta(a, b)."""
    lg = math.lgamma
    return math.exp(lg(a + 0.5) + lg(a + b) - lg(a) - lg(a + b + 0.5))


def maps_near_the_jacobian(learner: Estimator, net: Linear3) -> tuple[Tensor, ...]:
    """Sets the maps; what they leave of each credit is returned."""
    learner(net.x)
    learner.steps = 0
    errors = []
    for tap, J in zip(HIDDEN, net.J, strict=True):
        off = torch.sin(torch.arange(J.numel(), dtype=torch.float64)).view_as(J) / 25
        learner.feedback[tap].weight.copy_(J + off)
        errors.append(-net.e @ off)
    return tuple(errors)


def cases() -> Iterator[tuple[str, Callable[[Linear3], tuple[Estimator, Law]]]]:
    def fg_w(noise: str) -> Callable[[Linear3], tuple[Estimator, Law]]:
        def make(net: Linear3) -> tuple[Estimator, Law]:
            G, P = net.square, net.size
            of = {
                "normal": lambda g: G + g.square(),
                "rademacher": lambda g: G - g.square(),
                "sphere": lambda g: P / (P + 2) * (G + 2 * g.square()) - g.square(),
            }
            errors = {"normal": P + 1, "rademacher": P - 1, "sphere": P - 1}
            law = in_weight_space(net, of[noise], effective_probes=(P + 1) / errors[noise])
            if noise != "rademacher":
                law.cosine = root_of_beta(1 / 2, (P - 1) / 2)
            return ForwardGradient(net.model, noise=noise, seed=0), law

        return make

    def fg_a(noise: str) -> Callable[[Linear3], tuple[Estimator, Law]]:
        kurtosis = {"normal": 3.0, "rademacher": 1.0}[noise]
        return lambda net: (
            FGA(net.model, taps=list(HIDDEN), noise=noise, seed=0),
            along_taps(net, net.q, kurtosis),
        )

    def fdfa_cv(net: Linear3) -> tuple[Estimator, Law]:
        learner = FDFA(net.model, taps=list(HIDDEN), credit="unbiased", seed=0)
        return learner, along_taps(net, maps_near_the_jacobian(learner, net), 3.0)

    def mean(net: Linear3) -> tuple[Estimator, Law]:
        k, P = 5, net.size
        law = in_weight_space(
            net,
            lambda g: (net.square + g.square()) / k,
            effective_probes=k,
            cosine=root_of_beta(k / 2, (P - 1) / 2),
        )
        return MultiTangent(net.model, count=k, combine="mean", seed=0), law

    def projection(net: Linear3) -> tuple[Estimator, Law]:
        """P_U g, with E P_ij P_kl = a d_ij d_kl + b (d_ik d_jl + d_il d_jk) for a random U."""
        k, D, G = 9, net.size, net.square
        # from tr P = k and tr P P = k: E x_i^2 = b G + (a + b) g_i^2
        b = k * (D - k) / (D * (D - 1) * (D + 2))
        a = (k**2 - 2 * b * D) / D**2
        variance = {n: b * G + (a + b - (k / D) ** 2) * g.square() for n, g in net.exact.items()}
        law = Law(
            {name: g * k / D for name, g in net.exact.items()},
            variance,
            cosine=root_of_beta(k / 2, (D - k) / 2),
            effective_probes=(D + 1) / (1 - k / D),
        )
        total = sum(v.sum().item() for v in variance.values())
        assert total == pytest.approx(k / D * (1 - k / D) * G)
        return MultiTangent(net.model, count=k, seed=0), law

    def spsa(net: Linear3) -> tuple[Estimator, Law]:
        law = in_weight_space(net, lambda g: net.square + g.square(), effective_probes=1.0)
        return fdfa.SPSA(net.model, seed=0), law

    for noise in ("normal", "rademacher", "sphere"):
        yield f"fg-w {noise}", fg_w(noise)
    for noise in ("normal", "rademacher"):
        yield f"fg-a {noise}", fg_a(noise)
    yield "fdfa-cv", fdfa_cv
    yield "multi-tangent mean", mean
    yield "multi-tangent projection", projection
    yield "spsa", spsa


CASES = dict(cases())


def deviations(found: Diagnosis, law: Law, net: Linear3) -> dict[str, float]:
    """Every figure's distance from its law, in its own standard errors."""
    far: dict[str, float] = {}

    def total(name: str, quality: GradientQuality, names: tuple[str, ...]) -> None:
        V = sum(law.variance[n].sum().item() for n in names)
        b2 = sum((law.mean[n] - net.exact[n]).square().sum().item() for n in names)
        mu2 = sum(law.mean[n].square().sum().item() for n in names)
        far[f"{name}: variance"] = off(quality.variance, V)
        far[f"{name}: squared bias"] = off(quality.squared_bias, b2)
        far[f"{name}: error"] = off(quality.error, V + b2)
        far[f"{name}: signal to noise"] = off(quality.signal_to_noise, mu2 / V if V else math.inf)

    for name, quality in found.parameters.items():
        total(name, quality, (name,))
        each, t = quality.components, quantile(found.confidence, quality.draws - 1)
        bias = each.bias - (law.mean[name] - net.exact[name])
        far[f"{name}: bias of components"] = largest(bias, each.bias_reach / t)
        spread = each.variance - law.variance[name]
        far[f"{name}: variance of components"] = largest(spread, each.variance_reach / t)
    total("whole", found.whole, NAMES)
    if law.cosine is not None:
        far["cosine"] = off(found.whole.cosine, law.cosine)
    if law.effective_probes is not None:
        far["effective probes"] = off(found.whole.effective_probes, law.effective_probes)
    for tap, V in law.at_taps.items():
        far[f"tap {tap}: variance"] = off(found.taps[tap].variance, V)
        far[f"tap {tap}: squared bias"] = off(found.taps[tap].squared_bias, 0.0)
    return far


def off(found: Estimate, truth: float) -> float:
    if found.value == truth:
        return 0.0
    distance = abs(found.value - truth)
    if found.standard_error == 0:  # nothing random in it
        return 0.0 if distance < 1e-12 else math.inf
    return distance / found.standard_error


def largest(distance: Tensor, error: Tensor) -> float:
    exact = (error == 0) & (distance.abs() < 1e-12)
    return torch.where(exact, 0.0, distance.abs() / error).max().item()


def measured(
    name: str, draws: int, wrong: Callable[[Estimator], Estimator] | None = None
) -> dict[str, float]:
    net = Linear3()
    learner, law = CASES[name](net)
    learner = learner if wrong is None else wrong(learner)
    batch = (net.x, net.target)
    found = diagnose(learner, half_squared_error, [batch], draws=draws, components=True)
    return deviations(found, law, net)


LIMIT = 4.0  # standard errors


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_at_20_000_draws(name: str) -> None:
    far = measured(name, 20_000)
    assert {what: round(z, 1) for what, z in far.items() if not z < LIMIT} == {}


@pytest.mark.parametrize("name", ["fg-a rademacher", "multi-tangent projection"])
def test_at_few_draws(name: str) -> None:
    far = measured(name, 200)
    assert {what: round(z, 1) for what, z in far.items() if not z < LIMIT} == {}


def test_feedback_that_stands_has_bias_alone() -> None:
    """FDFA between two steps: its maps are what they are, and off by e (B - J)."""
    net = Linear3()
    learner = FDFA(net.model, taps=list(HIDDEN), seed=0)
    errors = maps_near_the_jacobian(learner, net)
    batch = (net.x, net.target)
    found = diagnose(learner, half_squared_error, [batch], draws=3, components=True)
    assert found.whole.deterministic
    assert found.parameters["2.weight"].bias.value < 1e-12
    for tap, error, h in zip(HIDDEN, errors, net.inputs, strict=False):
        assert found.taps[tap].bias.value == pytest.approx(error.norm().item())
        bias = found.parameters[f"{tap}.weight"].components.bias
        assert torch.allclose(bias, -error.T @ h, rtol=1e-10)


def scaled(learner: Estimator, factor: float) -> Estimator:
    """The same rule, its result times a factor: what a slip leaves behind."""
    if isinstance(learner, (FDFA, FGA)):
        credits = learner.credits

        def wrong_credits(e: Tensor, lesson: Any) -> Callable[[int], Tensor]:
            paid = credits(e, lesson)
            return lambda number: paid(number) * factor

        learner.credits = wrong_credits
    else:
        directions = learner.directions

        def wrong_directions(*args: Any) -> Directions:
            found = directions(*args)
            return dataclasses.replace(found, weigh=lambda c: found.weigh(c) * factor)

        learner.directions = wrong_directions
    return learner


@pytest.mark.parametrize(
    ("name", "factor", "draws"),
    [
        pytest.param("fg-w normal", -1.0, 100, id="another sign"),
        pytest.param("fg-a rademacher", float(N), 100, id="1 / N missing"),
        pytest.param("fdfa-cv", 1.02, 200, id="2 % too much"),
        pytest.param(
            "multi-tangent projection", 1.02, 20_000, id="2 %, many draws", marks=pytest.mark.slow
        ),
    ],
)
def test_a_wrong_estimator_is_rejected(name: str, factor: float, draws: int) -> None:
    far = measured(name, draws, lambda learner: scaled(learner, factor))
    assert max(far.values()) > LIMIT

"""OPZO: a naive loop, derivatives where differences are exact, and the variance of each form."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.engine.probes import Probe
from tests.oracles.perturbed import explicit_jacobians, moved_output
from tests.oracles.statistics import LIMIT, mean_deviation, variance_deviation

FORMS = ["single-point", "centred", "two-point", "antithetic"]
NOISES = ["normal", "rademacher", "sphere"]
forms = pytest.mark.parametrize("form", FORMS)
noises = pytest.mark.parametrize("noise", NOISES)


def drawn(shapes: list[tuple[int, ...]], seed: int, step: int, noise: str) -> list[Tensor]:
    """The noise of (seed, step, rank 0), as the probe's docstring promises it."""
    probe = Probe(noise="rademacher" if noise == "rademacher" else "normal")
    count = len(shapes)
    z = probe.draw(shapes, [torch.float64] * count, [torch.device("cpu")] * count, seed, step, 0)
    if noise == "sphere":
        z = [torch.stack([row * math.sqrt(len(row)) / row.norm() for row in each]) for each in z]
    return z


def network() -> nn.Sequential:
    """Taps behind the dropout and the second activation; masks and statistics of a batch."""
    return nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(6, 5),
        nn.Tanh(),
        nn.Linear(5, 3),
    ).double()


TAPS = ["3", "5"]
SHAPES = [(7, 6), (7, 5)]


def answer(form: str, model: nn.Sequential, x: Tensor, z: list[Tensor], s: float) -> Tensor:
    """d, by its equation, sample by sample."""

    def output(factor: float) -> Tensor:
        with torch.no_grad():
            return moved_output(copy.deepcopy(model), TAPS, x, [factor * p for p in z], seed=1)

    if form == "antithetic":
        return (output(s) - output(-s)) / (2 * s)
    ahead = output(s)
    if form == "two-point":
        return (ahead - output(0)) / s
    if form == "centred":
        rows = [
            row - sum(ahead[m] for m in range(len(x)) if m != n) / (len(x) - 1)
            for n, row in enumerate(ahead)
        ]
        return torch.stack(rows) / s
    return ahead / s


def naive_step(
    model: nn.Sequential, x: Tensor, target: Tensor, maps: list[Tensor], moves: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Output and gradients of one pass, block by block, credits through the maps."""
    torch.manual_seed(1)
    h1 = model[:4](x)
    h2 = model[4:6](h1.detach() + moves[0])
    y = model[6](h2.detach() + moves[1])
    (e,) = torch.autograd.grad(F.cross_entropy(y, target), y, retain_graph=True)
    sources = [h1, h2, y]
    credits = [e @ maps[0], e @ maps[1], e]
    leaves = list(model.parameters())
    return y.detach(), list(torch.autograd.grad(sources, leaves, credits))


@forms
@noises
def test_trains_as_the_naive_loop(form: str, noise: str) -> None:
    """Batch statistics and dropout masks are those of the pass that learns."""
    seed, rate, s = 5, 0.3, 0.2
    model = network()
    twin = copy.deepcopy(model)
    options = {"form": form, "noise": noise, "noise_scale": s, "feedback_rate": rate}
    learner = fdfa.wrap("opzo", model, seed=seed, taps=TAPS, **options)
    maps = [torch.zeros(3, 6).double(), torch.zeros(3, 5).double()]
    for step in range(4):
        x, target = torch.randn(7, 4).double(), torch.randint(3, (7,))
        z = drawn(SHAPES, seed, step, noise)
        d = answer(form, twin, x, z, s)
        one_pass = form in ("single-point", "centred")
        moves = [s * p if one_pass else 0 * p for p in z]
        y, expected = naive_step(twin, x, target, maps, moves)
        maps = [(1 - rate) * B + rate * d.T @ p / 7 for B, p in zip(maps, z, strict=True)]
        learner.zero_grad()
        torch.manual_seed(1)
        found = learner(x)
        F.cross_entropy(found, target).backward()
        torch.testing.assert_close(found.detach(), y, rtol=1e-10, atol=1e-12)
        gradients = [p.grad for p in model.parameters()]
        torch.testing.assert_close(gradients, expected, rtol=1e-9, atol=1e-11)
        weights = [learner.feedback[tap].weight for tap in TAPS]
        torch.testing.assert_close(weights, maps, rtol=1e-9, atol=1e-11)
        assert any(gradient.any() for gradient in gradients[:2]) == bool(step)  # maps start at zero


class _Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.square()


def _linear() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)).double()


def _quadratic() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), _Square(), nn.Linear(6, 3)).double()


def _trained_maps(model: nn.Sequential, method: str, taps: list[str], **options: object) -> Tensor:
    learner = fdfa.wrap(method, copy.deepcopy(model), seed=3, taps=taps, **options)
    generator = torch.Generator().manual_seed(8)
    for _ in range(3):
        learner(torch.randn(6, 4, generator=generator).double()).sum().backward()
    return torch.cat([learner.feedback[tap].weight for tap in taps], 1)


def test_differences_that_are_exact_give_fdfas_maps() -> None:
    """Of linear networks both are; of quadratic ones the antithetic alone. However far the move."""
    for model, taps in ((_linear(), ["0", "1"]), (_quadratic(), ["0"])):
        for noise in ("normal", "rademacher"):
            truth = _trained_maps(model, "fdfa", taps, noise=noise)
            for form in ("two-point", "antithetic"):
                found = _trained_maps(model, "opzo", taps, noise=noise, form=form, noise_scale=3.0)
                exact = form == "antithetic" or model[1].__class__ is nn.Linear
                if exact:
                    torch.testing.assert_close(found, truth, rtol=1e-10, atol=1e-10)
                else:
                    assert not torch.allclose(found, truth, rtol=0.1)


def _smooth_maps(method: str, **options: object) -> Tensor:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    return _trained_maps(model.double(), method, ["1", "3"], **options)


def test_small_moves_give_the_finite_differences_of_fdfa() -> None:
    torch.manual_seed(0)
    central = _smooth_maps("fdfa", probe="finite-difference", difference_step=1e-3)
    torch.manual_seed(0)
    found = _smooth_maps("opzo", form="antithetic", noise_scale=1e-3)
    torch.testing.assert_close(found, central, rtol=1e-12, atol=1e-13)


PASSES = 40_000


def _draws(form: str, noise: str, s: float) -> tuple[Tensor, Tensor, Tensor]:
    """d_k z_i of many passes over two samples, (passes, K, n), their y - mean, and the Jacobian."""
    torch.manual_seed(2)
    model = _linear()
    learner = fdfa.wrap(
        "opzo", model, seed=6, taps=["0", "1"], form=form, noise=noise, noise_scale=s
    )
    lessons = []
    learner.teach = lessons.append
    x = torch.randn(2, 4).double()
    learner(x.repeat(PASSES, 1)).sum().backward()
    d, z = lessons[0].derivative, torch.cat(lessons[0].perturbations, 1)
    J = torch.cat([J[0, :, 0] for J in explicit_jacobians(model, ["0", "1"], x)], 1)
    y = model(x).detach()
    if form == "centred":
        y = y - y.mean(0)
    return (d[::2, :, None] * z[::2, None, :]), y[0], J


def _moments(noise: str) -> Tensor:
    """E z_i^2 z_j^2 of all units; on a sphere those of one tap depend on each other."""
    fourth = {"normal": 3.0, "rademacher": 1.0, "sphere": 0.0}[noise]
    found = torch.ones(11, 11).double() + (fourth - 1) * torch.eye(11).double()
    if noise == "sphere":
        for tap in (slice(0, 6), slice(6, 11)):
            n = tap.stop - tap.start
            found[tap, tap] = n / (n + 2) * (torch.ones(n, n) + 2 * torch.eye(n)).double()
    return found


# Every form and every noise once in the fast suite, all pairs in the slow one.
FAST = {*zip(FORMS, ["normal", "sphere", "rademacher", "normal"], strict=True)}
PAIRS = [
    pytest.param(*pair, marks=() if pair in FAST else (pytest.mark.slow,))
    for pair in itertools.product(FORMS, NOISES)
]


@pytest.mark.parametrize(("form", "noise"), PAIRS)
def test_mean_is_the_jacobian_and_variance_the_closed_form(form: str, noise: str) -> None:
    s = 0.4
    draws, y, J = _draws(form, noise, s)
    own = J.square() @ _moments(noise) - J.square()
    held = y.square()[:, None] / s**2 if form in ("single-point", "centred") else 0.0
    assert mean_deviation(draws, J) < LIMIT
    assert variance_deviation(draws, own + held) < LIMIT
    # Wrong estimators that the same checks must refuse.
    assert mean_deviation(draws * 1.1, J) > LIMIT
    assert variance_deviation(draws * 1.1, own + held) > LIMIT
    if form in ("single-point", "centred"):
        assert variance_deviation(draws, own) > LIMIT


def test_only_steps_that_move_the_taps_have_a_noisy_output() -> None:
    model = _linear()
    learner = fdfa.wrap("opzo", model, seed=3, probe_every=2)
    x = torch.randn(5, 4).double()
    same = [torch.equal(learner(x), model(x)) for _ in range(4)]
    assert same == [False, True, False, True]
    assert torch.equal(learner.eval()(x), model(x))


def test_a_sample_alone_has_no_others_to_centre_on() -> None:
    maps = [_trained_maps_of_one(form) for form in ("centred", "single-point")]
    assert maps[0].any()
    assert torch.equal(*maps)


def _trained_maps_of_one(form: str) -> Tensor:
    torch.manual_seed(4)
    learner = fdfa.wrap("opzo", _linear(), seed=3, form=form)
    learner(torch.ones(1, 4).double()).sum().backward()
    return learner.feedback["0"].weight

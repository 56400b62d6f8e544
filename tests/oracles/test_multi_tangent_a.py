"""Several tangents a sample: projections from QR on explicit Jacobians, exact laws, fg-a."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.engine.probes import Probe
from fdfa.errors import ProbeError
from tests.oracles.perturbed import explicit_jacobians
from tests.oracles.statistics import LIMIT, mean_deviation, variance_deviation
from tests.oracles.weight_space import flat

TAPS = ["1", "4"]
WIDTHS = (5, 3)
N_UNITS = sum(WIDTHS)
KINDS = ["normal", "rademacher", "orthonormal", "angle"]
kinds = pytest.mark.parametrize("kind", KINDS)


class Watched(nn.Module):
    """Notes the credit of what it returns, where there is one: not in passes that only measure."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        h = x.tanh()
        if h.requires_grad:
            h.register_hook(self._see)
        return h

    def _see(self, credit: Tensor) -> None:
        self.seen = credit


def network() -> nn.Sequential:
    torch.manual_seed(6)
    return nn.Sequential(
        nn.Linear(4, 5), Watched(), nn.Linear(5, 3), nn.LayerNorm(3), Watched(), nn.Linear(3, 2)
    ).double()


def credits(learner: fdfa.Estimator, x: Tensor, e: Tensor) -> Tensor:
    """(N, n): what arrives at the taps, side by side."""
    learner(x).backward(e)
    return torch.cat([learner.model.get_submodule(tap).seen for tap in TAPS], 1)


def truth(model: nn.Module, x: Tensor, e: Tensor) -> Tensor:
    """The true credits (N, n), from the Jacobian of every sample."""
    own = [
        torch.stack([e[n] @ J[n, :, n] for n in range(len(x))])
        for J in explicit_jacobians(model, TAPS, x)
    ]
    return torch.cat(own, 1)


def tangents(learner: fdfa.Estimator, x: Tensor, step: int = 0) -> Tensor:
    """V (N, k, n), as the learner takes them in this step."""
    V, _ = learner._draw(learner.probe, learner.plan(x), step)
    return torch.cat(list(V), 2)


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(size, 4), draw(size, 2)


@kinds
@pytest.mark.parametrize("k", [1, 3, 7])
def test_every_combination_is_its_equation(kind: str, k: int) -> None:
    """Sample by sample; Q Q^T q from QR for the projection, which projected again stays."""
    x, e = batch()
    q = truth(network(), x, e)
    for combine in ("projection", "mean", "sum"):
        learner = fdfa.wrap(
            "multi-tangent-a",
            network(),
            taps=TAPS,
            seed=5,
            count=k,
            combine=combine,
            tangents=kind,
            angle=40.0,
        )
        V, found = tangents(learner, x), credits(learner, x, e)
        assert V.shape == (6, k, N_UNITS)
        for n in range(6):
            Q, _ = torch.linalg.qr(V[n].T)
            expected = {
                "projection": Q @ (Q.T @ q[n]),
                "mean": V[n].T @ (V[n] @ q[n]) / k,
                "sum": V[n].T @ (V[n] @ q[n]),
            }[combine]
            torch.testing.assert_close(found[n], expected, rtol=1e-9, atol=1e-11)
            if combine == "projection":
                torch.testing.assert_close(Q @ (Q.T @ found[n]), found[n], rtol=1e-9, atol=1e-11)
                assert found[n] @ q[n] >= 0


def test_the_first_tangents_are_the_probes() -> None:
    """Those of (seed, step, rank 0), and of these with the tangent's number and 0."""
    x, _ = batch()
    learner = fdfa.wrap("multi-tangent-a", network(), taps=TAPS, seed=5, count=2)
    shapes, dtypes, devices = [(6, 5), (6, 3)], [torch.float64] * 2, [torch.device("cpu")] * 2
    for step in range(2):
        first = Probe().draw(shapes, dtypes, devices, 5, step, 0)
        second = Probe().draw(shapes, dtypes, devices, 5, step, 0, 1, 0)
        expected = torch.stack([torch.cat(first, 1), torch.cat(second, 1)], 1)
        assert torch.equal(tangents(learner, x, step), expected)


@pytest.mark.parametrize("noise", ["normal", "rademacher"])
@pytest.mark.parametrize("combine", ["mean", "sum"])
def test_one_tangent_is_fg_a_to_the_bit(noise: str, combine: str) -> None:
    x, e = batch()
    one = fdfa.wrap(
        "multi-tangent-a", network(), taps=TAPS, seed=5, count=1, combine=combine, tangents=noise
    )
    other = fdfa.wrap("fg-a", network(), taps=TAPS, seed=5, noise=noise)
    for _ in range(3):
        found = []
        for learner in (one, other):
            learner.zero_grad()
            learner(x).backward(e)
            found.append(flat([p.grad for p in learner.parameters()]))
        assert torch.equal(*found)


@kinds
@pytest.mark.parametrize("k", [N_UNITS, 40])
def test_as_many_tangents_as_units_give_the_gradient(kind: str, k: int) -> None:
    """With dropout: all passes meet one mask. More are no use: n are taken."""
    model = network()
    model[1] = nn.Sequential(nn.Tanh(), nn.Dropout(0.4))
    plain = copy.deepcopy(model)
    x, e = batch()
    learner = fdfa.wrap(
        "multi-tangent-a", model, taps=TAPS, seed=1, count=k, tangents=kind, angle=60.0
    )
    torch.manual_seed(2)
    learner(x).backward(e)
    torch.manual_seed(2)
    plain(x).backward(e)
    found, expected = ([p.grad for p in each.parameters()] for each in (model, plain))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_of_too_many_tangents_the_first_are_taken() -> None:
    x, _ = batch()
    few, many = (
        tangents(fdfa.wrap("multi-tangent-a", network(), taps=TAPS, seed=5, count=k), x)
        for k in (N_UNITS, 40)
    )
    assert torch.equal(few, many)


def test_positions_are_samples_of_their_own() -> None:
    """(N, T, ...) with sample_dims=2: k tangents for every position."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    plain = copy.deepcopy(model)
    x = torch.randn(2, 5, 4).double()
    learner = fdfa.wrap("multi-tangent-a", model, seed=1, count=3, sample_dims=2)
    learner(x).square().sum().backward()
    plain(x).square().sum().backward()
    found, expected = ([p.grad for p in each.parameters()] for each in (model, plain))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_finite_differences_are_forward_derivatives_to_their_error() -> None:
    x, e = batch()
    exact, near = (
        credits(
            fdfa.wrap("multi-tangent-a", network(), taps=TAPS, seed=5, count=3, probe=probe), x, e
        )
        for probe in ("forward-ad", "finite-difference")
    )
    torch.testing.assert_close(near, exact, rtol=1e-7, atol=1e-8)


def test_shapes_of_the_tangent_sets() -> None:
    """Over the units of all taps together, for every sample."""
    x, _ = batch()
    options = {"taps": TAPS, "seed": 5, "count": 4}
    V = tangents(fdfa.wrap("multi-tangent-a", network(), tangents="orthonormal", **options), x)
    gram = N_UNITS * torch.eye(4).double().expand(6, 4, 4)
    torch.testing.assert_close(V @ V.mT, gram, rtol=1e-12, atol=1e-11)
    V = tangents(
        fdfa.wrap("multi-tangent-a", network(), tangents="angle", angle=30.0, **options), x
    )
    torch.testing.assert_close(V.norm(dim=2), torch.full((6, 4), N_UNITS**0.5).double())
    cosines = (V[:, 1:] @ V[:, :1].mT) / N_UNITS
    torch.testing.assert_close(cosines, torch.full((6, 3, 1), 0.75**0.5).double())


def test_rademacher_tangents_are_drawn_until_each_samples_are_independent() -> None:
    """Of pairs of signs half are dependent; the other samples keep theirs."""
    model = nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    x = torch.randn(64, 4).double()
    learner = fdfa.wrap("multi-tangent-a", model, seed=3, count=2, tangents="rademacher")
    V = tangents(learner, x)
    assert (torch.linalg.matrix_rank(V) == 2).all()
    first = Probe("rademacher").draw([(64, 2)], [x.dtype], [x.device], 3, 0, 0)[0]
    second = Probe("rademacher").draw([(64, 2)], [x.dtype], [x.device], 3, 0, 0, 1, 0)[0]
    drawn = torch.stack([first, second], 1)
    fine = torch.linalg.matrix_rank(drawn) == 2
    assert 0 < fine.sum() < 64
    assert torch.equal(V[fine], drawn[fine])


PASSES = 4000


def _draws(seed: int = 8, **options: object) -> tuple[Tensor, Tensor]:
    """Credits of many copies of one sample, and the true one."""
    x, e = batch(1)
    learner = fdfa.wrap("multi-tangent-a", network(), taps=TAPS, seed=seed, **options)
    found = credits(learner, x.expand(PASSES, 4), e.expand(PASSES, 2))
    return found, truth(network(), x, e)[0]


def _beta(a: float, b: float) -> tuple[float, float]:
    return a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))


@pytest.mark.parametrize("k", [2, 5])
def test_laws_of_the_projection(k: int) -> None:
    found, q = _draws(count=k)
    squared = torch.nn.functional.cosine_similarity(found, q[None]).square()
    mean, variance = _beta(k / 2, (N_UNITS - k) / 2)
    assert mean_deviation(squared, mean) < LIMIT
    assert variance_deviation(squared, variance) < LIMIT
    length = q.square().sum()
    assert mean_deviation(found, k / N_UNITS * q) < LIMIT
    assert mean_deviation((found - q).square().sum(1), (1 - k / N_UNITS) * length) < LIMIT
    unbiased, _ = _draws(count=k, unbiased=True)
    torch.testing.assert_close(unbiased, N_UNITS / k * found, rtol=1e-10, atol=1e-13)
    assert mean_deviation((unbiased - q).square().sum(1), (N_UNITS / k - 1) * length) < LIMIT
    corrected, _ = _draws(count=k, length_correction=True)
    assert mean_deviation(corrected.norm(dim=1), length.sqrt()) < LIMIT
    assert mean_deviation(found, q) > LIMIT  # the bias is there, and seen
    assert mean_deviation(found.norm(dim=1), length.sqrt()) > LIMIT


def test_laws_of_the_mean() -> None:
    k = 4
    found, q = _draws(count=k, combine="mean")
    assert mean_deviation(found, q) < LIMIT
    variance = (N_UNITS + 1) / k * q.square().sum()
    assert mean_deviation((found - q).square().sum(1), variance) < LIMIT
    squared = torch.nn.functional.cosine_similarity(found, q[None]).square()
    mean, spread = _beta(k / 2, (N_UNITS - 1) / 2)
    assert mean_deviation(squared, mean) < LIMIT
    assert variance_deviation(squared, spread) < LIMIT
    assert mean_deviation(squared, k / N_UNITS) > LIMIT  # the projection's law


@pytest.mark.parametrize("kind", ["rademacher", "orthonormal", "angle"])
def test_the_mean_of_other_tangents_is_unbiased(kind: str) -> None:
    found, q = _draws(count=3, combine="mean", tangents=kind, angle=50.0)
    assert mean_deviation(found, q) < LIMIT
    assert mean_deviation(found * 1.1, q) > LIMIT


def test_dependent_tangents_are_refused() -> None:
    learner = fdfa.wrap(
        "multi-tangent-a", network().float(), taps=TAPS, count=4, tangents="angle", angle=1e-5
    )
    with pytest.raises(ProbeError, match="linearly dependent"):
        learner(batch()[0].float())

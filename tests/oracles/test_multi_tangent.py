"""Several tangents: projections from QR, exact laws of cosines and errors, closed-form descents."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.errors import ProbeError
from tests.oracles.statistics import LIMIT, mean_deviation, variance_deviation
from tests.oracles.weight_space import Point, data, directions, draws, gradient, small

TANGENTS = ["normal", "rademacher", "orthonormal", "angle"]
tangents = pytest.mark.parametrize("tangents", TANGENTS)
N = 12  # weights of the small network


def _learner(model: nn.Module, **options: object) -> fdfa.MultiTangent:
    return fdfa.MultiTangent(model, seed=5, **options)


def _projected(V: Tensor, g: Tensor) -> Tensor:
    Q, _ = torch.linalg.qr(V.T)
    return Q @ (Q.T @ g)


@tangents
@pytest.mark.parametrize("k", [1, 3, 8])
def test_every_combination_is_its_equation(tangents: str, k: int) -> None:
    """Q Q^T g from QR for the projection; also that it projects: once more changes nothing."""
    g = gradient(small(), data())
    for combine in ("projection", "mean", "sum"):
        learner = _learner(small(), count=k, combine=combine, tangents=tangents, angle=40)
        V = directions(learner, 0)
        assert V.shape == (k, N)
        expected = {
            "projection": _projected(V, g),
            "mean": V.T @ (V @ g) / k,
            "sum": V.T @ (V @ g),
        }[combine]
        found = gradient(learner, data())
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)
        if combine == "projection":
            torch.testing.assert_close(_projected(V, found), found, rtol=1e-10, atol=1e-13)
            assert found @ g >= 0


@tangents
@pytest.mark.parametrize("k", [N, 40])
def test_as_many_tangents_as_weights_give_the_gradient(tangents: str, k: int) -> None:
    """More are no use: n are taken. Rademacher's dependent sets are drawn again."""
    g = gradient(small(), data())
    for seed in range(4):
        learner = fdfa.MultiTangent(small(), seed=seed, count=k, tangents=tangents, angle=60)
        torch.testing.assert_close(gradient(learner, data()), g, rtol=1e-7, atol=1e-10)


def test_of_too_many_tangents_the_first_are_taken() -> None:
    few, many = (directions(_learner(small(), count=k), 0) for k in (N, 40))
    assert torch.equal(few, many)


def test_rademacher_tangents_are_drawn_until_they_are_independent() -> None:
    """Of pairs of signs, half are dependent."""
    for seed in range(30):
        learner = fdfa.MultiTangent(
            Point(torch.ones(2).double()), seed=seed, count=2, tangents="rademacher"
        )
        assert torch.linalg.matrix_rank(directions(learner, 0)) == 2


def test_shapes_of_the_tangent_sets() -> None:
    V = directions(_learner(small(), count=4, tangents="orthonormal"), 0)
    torch.testing.assert_close(V @ V.T, N * torch.eye(4).double(), rtol=1e-12, atol=1e-11)
    V = directions(_learner(small(), count=4, tangents="angle", angle=30), 0)
    torch.testing.assert_close(V.norm(dim=1), torch.full((4,), N**0.5).double())
    cosines = (V[1:] @ V[0]) / N
    torch.testing.assert_close(cosines, torch.full((3,), 0.75**0.5).double())


@pytest.mark.slow
def test_projection_ignores_angles_and_the_mean_does_not() -> None:
    """E cos^2 with the gradient is k/n at every angle; the mean's falls with it."""
    means = {}
    for angle in (15.0, 90.0):
        for combine in ("projection", "mean"):
            options = {"count": 4, "tangents": "angle", "angle": angle, "combine": combine}
            found, g = draws("multi-tangent", 1500, **options)
            squared = torch.nn.functional.cosine_similarity(found, g[None]).square()
            means[combine, angle] = squared.mean()
            if combine == "projection":
                assert mean_deviation(squared, 4 / N) < LIMIT
    assert means["mean", 15.0] < 0.6 * means["mean", 90.0]


def _beta(a: float, b: float) -> tuple[float, float]:
    return a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))


@pytest.mark.parametrize("k", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_laws_of_the_projection(k: int) -> None:
    found, g = draws("multi-tangent", 2500, count=k)
    squared = torch.nn.functional.cosine_similarity(found, g[None]).square()
    mean, variance = _beta(k / 2, (N - k) / 2)
    assert mean_deviation(squared, mean) < LIMIT
    assert variance_deviation(squared, variance) < LIMIT
    length = g.square().sum()
    assert mean_deviation(found, k / N * g) < LIMIT
    assert mean_deviation((found - g).square().sum(1), (1 - k / N) * length) < LIMIT
    unbiased, _ = draws("multi-tangent", 2500, count=k, unbiased=True)
    torch.testing.assert_close(unbiased, N / k * found, rtol=1e-10, atol=1e-13)
    assert mean_deviation((unbiased - g).square().sum(1), (N / k - 1) * length) < LIMIT
    assert mean_deviation(found, g) > LIMIT  # the bias is there, and seen
    corrected, _ = draws("multi-tangent", 1, count=k, length_correction=True)
    factor = corrected.norm() / found[0].norm()
    torch.testing.assert_close(corrected[0], factor * found[0], rtol=1e-10, atol=1e-13)
    assert mean_deviation(factor * found.norm(dim=1), length.sqrt()) < LIMIT
    assert mean_deviation(1.1 * factor * found.norm(dim=1), length.sqrt()) > LIMIT


@pytest.mark.parametrize("kind", ["normal", "rademacher"])
def test_laws_of_the_mean(kind: str) -> None:
    k = 4
    found, g = draws("multi-tangent", 2500, count=k, combine="mean", tangents=kind)
    variance = (N + 1 if kind == "normal" else N - 1) / k * g.square().sum()
    assert mean_deviation(found, g) < LIMIT
    assert mean_deviation((found - g).square().sum(1), variance) < LIMIT
    if kind == "normal":
        squared = torch.nn.functional.cosine_similarity(found, g[None]).square()
        mean, spread = _beta(k / 2, (N - 1) / 2)
        assert mean_deviation(squared, mean) < LIMIT
        assert variance_deviation(squared, spread) < LIMIT
        assert mean_deviation(squared, k / N) > LIMIT  # the projection's law


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["orthonormal", "angle"])
def test_the_mean_of_other_tangents_is_unbiased(kind: str) -> None:
    found, g = draws("multi-tangent", 2500, count=3, combine="mean", tangents=kind, angle=50)
    assert mean_deviation(found, g) < LIMIT


def _descents(n: int, k: int, steps: int, runs: int, combine: str) -> Tensor:
    """f_T / f_0 of plain gradient descent on |x|^2, many times."""
    rate = 0.5 if combine == "projection" else k / (2 * (n + k + 1))
    learner = fdfa.MultiTangent(Point(torch.ones(n).double()), count=k, combine=combine, seed=1)
    found = []
    for _ in range(runs):
        x = learner.model.x
        x.data.fill_(-1.0)
        for _ in range(steps):
            learner.zero_grad()
            learner(torch.zeros(1)).square().sum().backward()
            x.data.sub_(x.grad, alpha=rate)
        found.append(x.data.square().sum() / n)
    return torch.stack(found)


# n, k, steps, runs
DESCENTS = ((12, 3, 5, 250), (32, 4, 20, 1500))


@pytest.mark.parametrize(
    ("n", "k", "steps", "runs"),
    [(12, 3, 3, 100), *(pytest.param(*more, marks=pytest.mark.slow) for more in DESCENTS)],
)
@pytest.mark.parametrize("combine", ["projection", "mean"])
def test_descent_on_the_sphere(combine: str, n: int, k: int, steps: int, runs: int) -> None:
    found = _descents(n, k, steps, runs, combine)
    share = k / n if combine == "projection" else k / (n + k + 1)
    other = k / (n + k + 1) if combine == "projection" else k / n
    assert mean_deviation(found, (1 - share) ** steps) < LIMIT
    assert mean_deviation(found, (1 - other) ** steps) > LIMIT


def test_dependent_tangents_are_refused() -> None:
    learner = _learner(small().float(), count=6, tangents="angle", angle=1e-5)
    with pytest.raises(ProbeError, match="linearly dependent"):
        learner(data()[0].float())

"""Descents by learning rules, beside loops written by hand and laws in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa.data
from fdfa.studies.reproduce.descents import digits_descent, surface_descent
from fdfa.studies.reproduce.surfaces import (
    SURFACES,
    Rosenbrock,
    Sphere,
    StyblinskiTang,
    Surface,
)


def value_at(surface: Surface, *point: float) -> float:
    with torch.no_grad():
        surface.point.copy_(torch.tensor(point, dtype=torch.float64))
    return surface(torch.zeros(1)).item()


def test_surfaces_by_hand() -> None:
    assert value_at(Sphere(3), 1, 2, -3) == 14
    assert value_at(Rosenbrock(3), 1, 2, 3) == 100 * (1 + 1) + 1  # (2 - 1)^2 + (3 - 4)^2
    assert value_at(StyblinskiTang(2), 1, -2) == 0.5 * (1 - 16 + 5) + 0.5 * (16 - 64 - 10)


def test_surfaces_at_their_minima() -> None:
    assert value_at(Sphere(4), 0, 0, 0, 0) == 0
    assert value_at(Rosenbrock(4), 1, 1, 1, 1) == 0
    # the root of 2 x^3 - 16 x + 5/2 near -2.9, by bisection
    low, high = -3.0, -2.8
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 2 * middle**3 - 16 * middle + 2.5 < 0 else (low, middle)
    assert value_at(StyblinskiTang(1), low) == pytest.approx(-39.16617, abs=1e-5)


@pytest.mark.parametrize("name", SURFACES)
def test_backpropagation_goes_down_as_by_hand(name: str) -> None:
    x = SURFACES[name].start(5).requires_grad_()
    expected = []
    for _ in range(9):
        value = SURFACES[name].value(x)
        expected.append(value.item())
        (gradient,) = torch.autograd.grad(value, x)
        x = (x - 1e-3 * gradient).detach().requires_grad_()
    found = surface_descent(
        SURFACES[name](5), "backpropagation", {}, rate=1e-3, steps=8, patience=50
    )
    assert [step for step, _ in found["path"]] == list(range(9))
    assert [value for _, value in found["path"]] == pytest.approx(expected, rel=1e-12)
    assert found["value"] == pytest.approx(min(expected), rel=1e-12)


def test_as_many_tangents_as_dimensions_are_backpropagation() -> None:
    paths = [
        surface_descent(Rosenbrock(6), *rule, rate=1e-4, steps=20, patience=50)["path"]
        for rule in (("backpropagation", {}), ("multi-tangent", {"count": 6, "seed": 3}))
    ]
    for (_, exact), (_, projected) in zip(*paths, strict=True):
        assert projected == pytest.approx(exact, rel=1e-9)


SETS = [
    (1, "mean"),
    pytest.param(4, "mean", marks=pytest.mark.slow),
    pytest.param(4, "projection", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("count", "combine"), SETS)
def test_the_first_step_on_the_sphere_is_as_long_as_theory_says(count: int, combine: str) -> None:
    """E f / f_0 for gradient 2x and rate a, over 300 seeds, within 4 standard errors.

    mean: 1 - 4a + 4 a^2 (n + k + 1)/k; projection: 1 - 4a(1 - a) k/n.
    """
    n, rate = 12, 0.1
    law = {
        "mean": 1 - 4 * rate + 4 * rate**2 * (n + count + 1) / count,
        "projection": 1 - 4 * rate * (1 - rate) * count / n,
    }
    options = {"count": count, "combine": combine}
    shares = torch.tensor(
        [
            surface_descent(
                Sphere(n), "multi-tangent", {**options, "seed": s}, rate=rate, steps=1, patience=9
            )["path"][1][1]
            / n
            for s in range(300)
        ]
    )
    error = shares.std().item() / math.sqrt(len(shares))
    assert abs(shares.mean().item() - law[combine]) < 4 * error
    other = law["projection" if combine == "mean" else "mean"]
    assert abs(shares.mean().item() - other) > 4 * error, "the test could not tell them apart"


def test_a_descent_that_goes_nowhere_is_given_up() -> None:
    """After so many steps in a row; one that goes down starts the count anew."""

    class Flat(Surface):
        @staticmethod
        def value(x: Tensor) -> Tensor:
            return (x * 0).sum()

    found = surface_descent(Flat(3), "backpropagation", {}, rate=1.0, steps=100, patience=7)
    assert found["steps"] == 7
    # At rate 1.25 the point flies past the origin, to 1.5 times its distance in every step.
    found = surface_descent(Sphere(3), "backpropagation", {}, rate=1.25, steps=100, patience=7)
    assert (found["steps"], found["value"]) == (7, 3.0)
    found = surface_descent(Sphere(3), "backpropagation", {}, rate=0.1, steps=20, patience=7)
    assert found["steps"] == 20


def test_the_network_is_trained_as_by_hand() -> None:
    data = fdfa.data.load("digits", validation=0).train
    pixels = data.inputs.flatten(1) / 16
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    torch.manual_seed(5)  # what happens meanwhile must not matter
    before = torch.get_rng_state()
    found = digits_descent("backpropagation", {}, rate=0.2, steps=6)
    assert torch.equal(torch.get_rng_state(), before)
    drawn = torch.Generator().manual_seed(0)
    losses = [F.cross_entropy(network(pixels), data.labels).item()]
    for _ in range(6):
        batch = torch.randint(len(pixels), (64,), generator=drawn)
        network.zero_grad()
        F.cross_entropy(network(pixels[batch]), data.labels[batch]).backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.2 * parameter.grad
            losses.append(F.cross_entropy(network(pixels), data.labels).item())
    assert [value for _, value in found["path"]] == pytest.approx(losses, rel=1e-5)
    assert found["value"] == found["path"][-1][1]

"""How alike two representations are, against formulas written out anew; activations by hooks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import fdfa.models
from fdfa.diagnostics import linear_cka, principal_components, tapped_activations


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def rotation(units: int) -> Tensor:
    q, _ = torch.linalg.qr(noise(units, units, seed=9))
    return q


def cka_by_hand(x: Tensor, y: Tensor) -> float:
    """HSIC as a mean over all quadruples of different examples: what the estimator stands for."""
    k, l = (x @ x.T).tolist(), (y @ y.T).tolist()  # noqa: E741  # as in the papers

    def hsic(a: list[list[float]], b: list[list[float]]) -> float:
        terms = [
            a[i][j] * (b[i][j] + b[p][q] - 2 * b[i][p])
            for i, j, p, q in itertools.permutations(range(len(a)), 4)
        ]
        return sum(terms) / len(terms)

    return hsic(k, l) / math.sqrt(hsic(k, k) * hsic(l, l))


@pytest.mark.parametrize("seed", range(3))
def test_against_the_sum_over_all_quadruples(seed: int) -> None:
    x, y = noise(8, 5, seed=seed), noise(8, 3, seed=seed + 10)
    y[:, 0] += x[:, 1]
    assert linear_cka(x, y) == pytest.approx(cka_by_hand(x, y), rel=1e-10)


@pytest.mark.slow
def test_large_samples_agree_with_the_plain_estimate_on_features() -> None:
    """Kornblith et al.'s other form, by cross-covariances; the two differ by the bias, O(1/N)."""
    x = noise(4000, 6)
    y = x @ noise(6, 4, seed=1) + noise(4000, 4, seed=2)
    centred = [z - z.mean(0) for z in (x, y)]
    between = (centred[1].T @ centred[0]).norm() ** 2
    within = math.prod((z.T @ z).norm().item() for z in centred)
    assert linear_cka(x, y) == pytest.approx(between.item() / within, abs=2e-3)


def test_the_same_however_it_is_turned_scaled_or_shifted() -> None:
    x = noise(20, 7)
    assert linear_cka(x, x) == pytest.approx(1, rel=1e-12)
    assert linear_cka(x, -2.5 * x @ rotation(7) + 3) == pytest.approx(1, rel=1e-10)
    y = noise(20, 4, seed=3) + x[:, :4]
    assert linear_cka(x @ rotation(7), y) == pytest.approx(linear_cka(x, y), rel=1e-10)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x), rel=1e-12)


def test_no_invariance_to_what_changes_the_geometry() -> None:
    x = noise(20, 7)
    stretched = x * torch.tensor([30.0, 1, 1, 1, 1, 1, 1])
    assert linear_cka(x, stretched) < 0.7


def test_unrelated_representations_are_not_alike_though_units_are_many() -> None:
    """The plain estimate gives 0.87 here: more units than examples make all alike."""
    found = [linear_cka(noise(40, 300, seed=s), noise(40, 300, seed=s + 50)) for s in range(20)]
    mean = sum(found) / 20
    error = math.sqrt(sum((value - mean) ** 2 for value in found) / 19 / 20)
    assert abs(mean) < 4 * error
    assert error < 0.02


def test_what_tells_no_examples_apart_is_like_nothing() -> None:
    assert math.isnan(linear_cka(torch.ones(6, 3), noise(6, 3)))


@pytest.mark.parametrize("sizes", [(5, 6), (3, 3), (0, 0)])
def test_other_examples_or_too_few_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{sizes[0]} and {sizes[1]} examples"):
        linear_cka(noise(sizes[0], 2), noise(sizes[1], 2))


def test_principal_components_are_eigenvectors_of_the_covariance() -> None:
    x = noise(30, 5) * torch.tensor([4.0, 2.0, 1.0, 0.5, 0.1]) @ rotation(5) + 7
    points, shares = principal_components(x, 3)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    expected = (x - x.mean(0)) @ vectors.flip(1)[:, :3]
    torch.testing.assert_close(points.abs(), expected.abs(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(shares, values.flip(0)[:3] / values.sum(), rtol=1e-9, atol=0)
    assert (points.max(0).values >= -points.min(0).values).all()


def test_activations_are_those_that_a_hook_sees() -> None:
    torch.manual_seed(0)
    model = fdfa.models.build("lenet", image=(1, 28, 28), classes=4)
    model.eval()
    x = torch.rand(6, 1, 28, 28)
    found = tapped_activations(model, x)
    seen: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if name in found:
            module.register_forward_hook(
                lambda _module, _args, out, name=name: seen.update({name: out.flatten(1).clone()})
            )
    model(x)
    assert len(found) >= 3
    assert found.keys() == seen.keys()
    assert all(torch.equal(found[name], seen[name]) for name in found)


def test_looking_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.ReLU(inplace=True), nn.Linear(6, 2)
    )
    x = torch.rand(5, 4)
    before, generator = [b.clone() for b in model.buffers()], torch.get_rng_state()
    found = tapped_activations(model, x)
    assert [tuple(h.shape) for h in found.values()] == [(5, 6)]
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    assert torch.equal(generator, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())

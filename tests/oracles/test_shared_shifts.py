"""Maps that places share, against explicit Jacobians and index arithmetic written out."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.diagnostics import feedback_errors
from fdfa.engine.shared_shifts import SharedShifts, shared_shifts

CLASSES = 3


def network() -> nn.Sequential:
    """Pictures of 8 x 12, then of 4 x 6; linear, so that all samples have the same Jacobian."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, stride=2, padding=1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, CLASSES)).double()


def learner_of(**options: object) -> fdfa.FDFA:
    return fdfa.FDFA(network(), taps=["0", "1"], feedback_rate=1.0, seed=3, **options)  # type: ignore[arg-type]


def jacobians(model: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of the output by what the convolutions give, of one sample: (K, C, H, W) each."""
    h1 = model[0](x[:1])
    h2 = model[1](h1)
    first = torch.autograd.functional.jacobian(lambda h: model[1:](h)[0], h1)
    second = torch.autograd.functional.jacobian(lambda h: model[2:](h)[0], h2)
    return first[:, 0], second[:, 0]


def averaged(jacobian: Tensor, stride: int, cells: int) -> Tensor:
    """Mean over the places that share, one by one."""
    height, width = jacobian.shape[2:]
    found = torch.zeros_like(jacobian)
    high, wide = height // cells, width // cells
    for i, j in itertools.product(range(height), range(width)):
        alike = [
            jacobian[:, :, a, b]
            for a, b in itertools.product(range(height), range(width))
            if (a - i) % stride == 0 == (b - j) % stride
            and a // high == i // high
            and b // wide == j // wide
        ]
        found[:, :, i, j] = torch.stack(alike).mean(0)
    return found


@pytest.mark.parametrize("grid", [1, 2])
def test_the_map_is_the_mean_jacobian_over_the_places_that_share(grid: int) -> None:
    learner = learner_of(shift_grid=grid)
    x = torch.randn(8000, 2, 8, 12, dtype=torch.float64)
    y = learner(x)
    y.backward(torch.zeros_like(y))
    plan = learner.plan(x)
    for tap, jacobian, stride in zip(plan.taps, jacobians(network(), x), (2, 1), strict=True):
        exact = averaged(jacobian, stride, grid)
        found = learner.whole_map(plan, tap).view_as(exact)
        places = exact[0, 0].numel() // (stride * grid) ** 2
        # rows of d have variance S / N about their mean, S the sum of squares along what is probed
        S = sum(
            (averaged(other, s, grid).flatten(1) * share).square().sum(1) * share**-1
            for other, s, share in (
                (jacobians(network(), x)[0], 2, 96 // (2 * grid) ** 2),
                (jacobians(network(), x)[1], 1, 24 // grid**2),
            )
        )
        bound = 5 * (2 * S / len(x)).sqrt() / places
        assert ((found - exact).abs().flatten(1).amax(1) < bound).all()
        assert (exact.abs().flatten(1).amax(1) > 2 * bound).any()


def test_a_credit_is_that_of_the_whole_map() -> None:
    learner = learner_of(shift_grid=2)
    x = torch.randn(5, 2, 8, 12, dtype=torch.float64)
    learner(x).square().sum().backward()
    before = [learner.whole_map(learner.plan(x), tap).clone() for tap in learner.plan(x).taps]
    credits: list[Tensor] = []
    learner.on_credit = lambda tap, credit: credits.append(credit)
    y = learner(x)
    y.square().sum().backward()
    for credit in credits:
        (weight,) = (w for w in before if w.shape[1] == credit[0].numel())
        assert torch.allclose(credit.flatten(1), (2 * y.detach()) @ weight)


def test_innovation_learns_what_is_shared_exactly_where_nothing_else_is() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3, 3)
    ).double()
    learner = fdfa.FDFA(
        model,
        taps=["0", "1"],
        shift_grid=1,
        feedback_update="innovation",
        feedback_rate=0.4,
        seed=0,
    )
    x = torch.randn(16, 1, 4, 4, dtype=torch.float64)
    for _ in range(300):
        learner(x).sum().backward()
    errors = feedback_errors(learner, x)
    assert all(error.relative < 1e-6 for error in errors.values())
    assert {tuple(learner.feedback[name].weight.shape) for name in errors} == {(3, 2), (3, 3)}


@pytest.mark.parametrize(
    "shared", [SharedShifts(2, (2, 3), (3, 1), 2), SharedShifts(1, (1, 1), (4, 5), 1)]
)
def test_what_is_spread_is_gathered(shared: SharedShifts) -> None:
    found = torch.randn(4, shared.units)
    spread = shared.spread(found)
    assert spread.shape == (4, shared.units * shared.sharing)
    assert torch.equal(shared.gather(spread), found)


def test_pictures_of_one_channel_share_one_entry() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten(), nn.Linear(20, 3))
    learner = fdfa.FDFA(model, taps=["0"], shift_grid=1, feedback_rate=1.0)
    x = torch.randn(6, 1, 4, 5)
    for _ in range(2):
        learner.zero_grad()
        learner(x).sum().backward()
    assert learner.feedback["0"].weight.shape == (3, 1)
    assert model[0].weight.grad is not None
    assert model[0].weight.grad.any()


def test_sizes_that_do_not_divide_are_not_shared() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Flatten()
    )
    learner = fdfa.FDFA(nn.Sequential(*model, nn.Linear(18, 3)), taps=["1", "4"], shift_grid=1)
    learner(torch.ones(2, 1, 8, 8)).sum().backward()
    shapes = {name: learner.feedback[name].weight.shape[1] for name in learner.feedback.names()}
    assert shapes == {"1": 98, "4": 2}
    assert set(shared_shifts(learner.plan(torch.ones(2, 1, 8, 8)), 1)) == {"4"}

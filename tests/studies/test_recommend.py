"""Recommendations for networks whose answer is known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.methods.fdfa import FDFA
from fdfa.studies.recommend import RATES, RecommendConfig, choose, recommend
from fdfa.studies.tap_statistics import TapStatistics, measure_taps
from fdfa.studies.task import Task

BATCH = 16


class Gate(nn.Module):
    """Every sample opens a half of the units, by the sign of a fixed number of its own."""

    def forward(self, h: Tensor) -> Tensor:
        return h * torch.sign(torch.sin(1e4 * h.detach()))


def linear(inputs: int = 64, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 12), nn.Linear(12, 12), nn.Linear(12, classes)
    )


def gated(inputs: int = 64, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 12), nn.Linear(12, 12), Gate(), nn.Linear(12, classes)
    )


def of(factory: str, **options: float) -> RecommendConfig:
    task = Task(model=f"tests.studies.test_recommend:{factory}")
    return RecommendConfig(task=task, steps=60, batch_size=128, **options)


def test_a_linear_network_needs_no_depth() -> None:
    found = recommend(of("linear", cosine=0.8))
    assert found.depth == 1
    assert found.reached
    assert not found.hopeless
    assert [tap.name for tap in found.taps] == ["1", "2"]
    for tap in found.taps:
        assert abs(tap.spread) < 1e-6
        assert tap.ceiling == pytest.approx(1)
    assert found.cosine >= 0.8
    assert found.options["feedback_rate"] in RATES


def test_gates_ask_for_larger_blocks() -> None:
    """No fixed map carries the error to the tap below them; to the one above, the last, it does."""
    found = recommend(of("gated", cosine=0.8))
    assert found.depth == 2
    below, above = found.taps
    assert below.spread > 0.5 > above.spread
    assert below.ceiling < 0.6
    assert above.ceiling == pytest.approx(1)
    assert found.depths[1].taps == (above.name,)


def test_noise_and_drift_of_a_linear_network_in_closed_form() -> None:
    torch.manual_seed(0)
    model = linear(4, 3).double()
    x, labels = torch.randn(20, 4).double(), torch.randint(3, (20,))
    before = measure_taps(model, x, labels, batch_size=BATCH).means
    with torch.no_grad():
        model[3].weight += 0.1 * torch.randn(3, 12).double()
    measured = measure_taps(model, x, labels, batch_size=BATCH).against(before, 5)

    y = model(x).detach().requires_grad_()
    (e,) = torch.autograd.grad(F.cross_entropy(y, labels), y)
    W2, W3 = model[2].weight, model[3].weight
    energies = [(e @ W3 @ W2).square().sum().item(), (e @ W3).square().sum().item()]
    for tap, own, J, earlier in zip(measured, energies, [W3 @ W2, W3], before, strict=True):
        noise = (12 * sum(energies) - own) / BATCH / own  # Rademacher: less a unit's own
        assert tap.noise(measured) == pytest.approx(noise, rel=1e-9)
        alone = (12 * own - own) / BATCH / own
        assert tap.noise([tap]) == pytest.approx(alone, rel=1e-9)
        moved = (e @ (J - earlier)).square().sum().item() / 25 / own
        assert tap.drift == pytest.approx(moved, rel=1e-9)


def test_dropout_is_not_taken_for_drift() -> None:
    """Weights that stand still have none, whatever was drawn between the measurements."""
    model = nn.Sequential(
        nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.Dropout(0.5), nn.Linear(12, 3)
    )
    x, labels = torch.randn(20, 4), torch.randint(3, (20,))
    before = measure_taps(model, x, labels, batch_size=BATCH).means
    model(x)
    (below, _) = measure_taps(model, x, labels, batch_size=BATCH).against(before, 1)
    assert below.drift == 0


def tap(
    name: str, *, ceiling: float = 1.0, noise: float = 10.0, drift: float = 1e-6
) -> TapStatistics:
    return TapStatistics(name, 1, ceiling, 0.0, 1.0, {"1": noise, "2": noise}, 0.0, drift)


@pytest.mark.parametrize("drift", [1e-8, 1e-6, 1e-4])
def test_the_rate_is_that_of_the_closed_form(drift: float) -> None:
    """Steps of the grid are a factor of 1.12; the closed form is for small rates."""
    plan = FDFA(linear(4, 3), taps=["1"]).plan(torch.ones(2, 4))
    found = choose([tap("1", drift=drift)], [plan], RecommendConfig())
    rate = (4 * drift / 10) ** (1 / 3)
    assert found.depths[0].feedback_rate == pytest.approx(rate, rel=0.13)
    assert found.intervals[0].feedback_rate == found.depths[0].feedback_rate
    rates = [interval.feedback_rate for interval in found.intervals]
    assert rates == sorted(rates)
    cosines = [interval.cosine for interval in found.intervals]
    assert cosines == sorted(cosines, reverse=True)


def test_rare_probes_leave_the_map_behind() -> None:
    """Of one tap, by hand: 4 steps a probe, half of the map replaced by each."""
    one = tap("1", noise=0.6, drift=0.01)
    behind = 4 * (1 - 0.5) / 0.5 + 1.5
    assert one.cosine(0.5, 4, [one]) == pytest.approx((1 + 0.6 / 3 + 0.01 * behind**2) ** -0.5)


def test_what_is_enough_decides_on_depth_and_interval() -> None:
    x, model = torch.ones(2, 4), linear(4, 3)
    plans = [FDFA(model, depth=depth).plan(x) for depth in (1, 2)]
    taps = [tap("1", ceiling=0.4), tap("2")]
    modest, strict = (
        choose(taps, plans, RecommendConfig(cosine=cosine)) for cosine in (0.5, 0.999999)
    )
    assert (modest.depth, modest.reached, modest.hopeless) == (1, True, ("1",))
    assert modest.probe_every == 16
    assert (strict.depth, strict.reached, strict.hopeless) == (2, False, ())
    assert strict.cosine >= strict.intervals[0].cosine - 0.01
    assert strict.call == (
        f"fdfa.FDFA(model, depth=2, feedback_rate={strict.feedback_rate},"
        f" probe_every={strict.probe_every}, noise='rademacher')"
    )


def test_the_same_seed_says_the_same() -> None:
    config = RecommendConfig(task=Task(model_options={"width": 16}), steps=10)
    first, again = recommend(config), recommend(config)
    assert first == again
    assert first != recommend(dataclasses.replace(config, seed=1))

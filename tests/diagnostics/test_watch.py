"""A learner that is watched: what is found, when, and that it learns as if nobody looked."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.diagnostics import GradientMatch, Watch, gradient_matches
from fdfa.errors import ConfigError


def network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Linear(5, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 3)
    ).double()


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (8,), generator=generator)


def trained(method: str, *, every: int | None) -> tuple[Any, list[Any], Watch | None]:
    """Seven steps by hand; what the learner, the optimiser and the generators end with."""
    learner = fdfa.wrap(method, network(), seed=4)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    criterion = learner.criterion(F.cross_entropy)
    torch.manual_seed(6)
    random.seed(6)
    watch = None if every is None else Watch(learner, F.cross_entropy, *batch(0), every=every)
    for number in range(7):
        inputs, labels = batch(number + 1)
        optimizer.zero_grad()
        criterion(learner(inputs), labels).backward()
        optimizer.step()
        if watch is not None:
            watch.step()
    state = [*learner.state_dict().values(), *(p.grad for p in learner.parameters())]
    return learner, [*state, torch.get_rng_state(), torch.rand(1), random.random()], watch


@pytest.mark.parametrize("method", ["fg-a", "fg-w", "pseudo-zeroth-order"])
def test_every_process_finds_the_same(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is another one in each, but not that of a copy which looks at the same batch."""
    learner = fdfa.wrap(method, network(), seed=4)
    found = []
    for process in range(2):
        for place in ("estimator", "distributed"):
            monkeypatch.setattr(f"fdfa.engine.{place}.process_rank", lambda rank=process: rank)
        found.append(Watch(learner, F.cross_entropy, *batch(0)).observe())
        assert learner.noise_seeds(3) == (4, 3, process)
    assert str(found[0]) == str(found[1])


@pytest.mark.parametrize(
    "method",
    [
        "fdfa",
        "spsa",
        *(
            pytest.param(method, marks=pytest.mark.slow)
            for method in ("dkp", "opzo", "pepita", "weight-mirror", "pseudo-zeroth-order", "grape")
        ),
    ],
)
def test_a_watched_training_is_the_same_to_the_last_bit(method: str) -> None:
    _, alone, _ = trained(method, every=None)
    _, watched, watch = trained(method, every=2)
    assert watch is not None
    assert [seen.step for seen in watch.history] == [2, 4, 6]
    for left, right in zip(alone, watched, strict=True):
        equal = torch.equal(left, right) if isinstance(left, Tensor) else left == right
        assert equal


def test_what_is_found_is_what_a_direct_call_finds() -> None:
    learner, _, watch = trained("fdfa", every=7)
    assert watch is not None
    torch.manual_seed(11)  # dropout masks of the diagnosis: from where the generators stand
    seen = watch.observe()
    torch.manual_seed(11)
    assert seen.parameters == gradient_matches(learner, F.cross_entropy, *batch(0))
    assert watch.history[-1] is seen
    assert seen.parameters["0.weight"].cosine < 0.99  # a rule that is exact would prove nothing


def test_the_numbers_go_to_a_log_by_name() -> None:
    heard: list[tuple[int, dict[str, float]]] = []

    class Log:
        def log(self, values: Mapping[str, float], *, step: int) -> None:
            heard.append((step, dict(values)))

    learner = fdfa.DFA(network(), seed=0)
    watch = Watch(learner, F.cross_entropy, *batch(0), every=30, log=Log())
    assert watch.step(29) is None
    seen = watch.step(60)
    assert seen is not None
    ((step, values),) = heard
    assert (step, values) == (60, seen.numbers())
    assert values["diagnosis/angle/4.weight"] == seen.parameters["4.weight"].angle
    assert len(values) == 3 * len(list(learner.parameters()))


def test_gradients_of_known_angle_and_length() -> None:
    exact = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    turned = torch.tensor([[3.0, 4.0], [3.0, 4.0]])  # inner product 9 + 16, lengths 5 and 50**.5
    found = GradientMatch.of(turned, exact)
    cosine = 25 / (5 * math.sqrt(50))
    expected = (cosine, math.degrees(math.acos(cosine)), math.sqrt(50) / 5)
    assert (found.cosine, found.angle, found.norm_ratio) == pytest.approx(expected, rel=1e-12)
    against = GradientMatch.of(-2 * exact, exact)
    assert (against.cosine, against.angle, against.norm_ratio) == (-1.0, 180.0, 2.0)


def test_small_and_large_gradients_keep_their_angle() -> None:
    """Squares of 1e-30 vanish in float32, and those of 1e30 have no end."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 100_000, generator=generator)
    cosine = torch.cosine_similarity(a.double(), b.double(), dim=0).item()
    for scale in (1e-30, 1e30):
        found = GradientMatch.of(scale * a, b)
        assert found.cosine == pytest.approx(cosine, rel=1e-6, abs=1e-9)
        ratio = (scale * a.double().norm() / b.double().norm()).item()
        assert found.norm_ratio == pytest.approx(ratio, rel=1e-6)


@pytest.mark.parametrize(
    ("ruled", "exact", "ratio"),
    [(0.0, 1.0, 0.0), (None, 1.0, 0.0), (1.0, 0.0, math.nan), (1.0, None, math.nan)],
)
def test_nothing_has_no_direction(ruled: float | None, exact: float | None, ratio: float) -> None:
    tensors = [None if x is None else torch.tensor([x, x]) for x in (ruled, exact)]
    found = GradientMatch.of(*tensors)
    assert math.isnan(found.cosine)
    assert math.isnan(found.angle)
    assert found.norm_ratio == pytest.approx(ratio, nan_ok=True)


@pytest.mark.parametrize("every", [0, -3, True, 2.0, "5"])
def test_a_number_of_steps_that_is_none_is_refused(every: Any) -> None:
    with pytest.raises(ConfigError, match=rf"every={every!r}"):
        Watch(fdfa.DFA(network()), F.cross_entropy, *batch(0), every=every)

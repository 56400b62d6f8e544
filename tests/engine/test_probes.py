"""Perturbations: distribution, independence, and that seeds alone say them all."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fdfa.engine.probes import Probe, draw_noise, generator_for
from fdfa.errors import ConfigError

CPU = torch.device("cpu")
NOISES = ["normal", "rademacher"]
LIMIT = 4.0  # standard errors


def draw(noise: str, shape: tuple[int, ...], *seeds: int, taps: int = 1) -> list[Tensor]:
    return Probe(noise=noise).draw([shape] * taps, [torch.float64] * taps, [CPU] * taps, *seeds)


@pytest.mark.parametrize(("noise", "kurtosis"), [("normal", 3.0), ("rademacher", 1.0)])
def test_moments_are_those_of_unit_noise(noise: str, kurtosis: float) -> None:
    """Mean 0, variance 1, no skew, and the kurtosis that sets the estimator's variance."""
    (p,) = draw(noise, (1000, 301), 5)
    n = p.numel()
    for power, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, kurtosis)):
        values = p**power
        error = values.std().item() / math.sqrt(n)
        distance = abs(values.mean().item() - expected)
        assert distance <= LIMIT * error + 1e-12, power
        shifted = ((p + 0.02) ** power).mean().item()  # a bias of 2 % must be seen somewhere
        if power == 1:
            assert abs(shifted - expected) > LIMIT * error


@pytest.mark.parametrize("noise", NOISES)
def test_every_column_and_every_row_is_unbiased(noise: str) -> None:
    """A bit of the random word that is stuck, or used twice, would show in a column of 64."""
    (p,) = draw(noise, (4096, 64), 11)
    assert (p.mean(0).abs() * math.sqrt(4096)).max() < 4.5
    gram = p.T @ p / 4096 - torch.eye(64, dtype=p.dtype)
    off_diagonal = gram - gram.diag().diag()
    assert (off_diagonal.abs() * math.sqrt(4096)).max() < 5
    stuck = p.clone()
    stuck[:, 7] = stuck[:, 6]
    assert ((stuck.T @ stuck / 4096)[6, 7] * math.sqrt(4096)) > 5


@pytest.mark.parametrize("noise", NOISES)
def test_taps_steps_ranks_and_seeds_are_independent(noise: str) -> None:
    """Neighbouring numbers in any place, also swapped ones, give unrelated draws."""
    shape = (100, 200)
    draws = [
        *draw(noise, shape, 0, 0, 0, taps=2),
        *(draw(noise, shape, *s)[0] for s in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0)]),
        *(draw(noise, shape, *s)[0] for s in [(1, 2, 0), (2, 1, 0), (0, 1, 1), (2**63 - 1, 0, 0)]),
    ]
    for a, b in itertools.combinations(draws, 2):
        assert abs((a * b).mean().item()) < 5 / math.sqrt(a.numel())  # equal ones would give 1


@pytest.mark.parametrize("noise", NOISES)
def test_taps_of_different_dtypes_are_independent(noise: str) -> None:
    """Drawn by generators of their own, as taps on different devices are: not of the same seed."""
    shape = (100, 200)
    single, double = Probe(noise=noise).draw(
        [shape, shape], [torch.float32, torch.float64], [CPU, CPU], 1, 2
    )
    assert abs((single.double() * double).mean().item()) < 5 / math.sqrt(single.numel())


@pytest.mark.parametrize("noise", NOISES)
def test_successive_steps_are_uncorrelated_in_time(noise: str) -> None:
    """One unit over 4,000 steps: the mean and the lag-one product vanish as 1 / sqrt(steps)."""
    series = torch.stack([draw(noise, (1, 3), 42, step, 0)[0][0] for step in range(4000)])
    for values in (series, series[1:] * series[:-1]):
        assert (values.mean(0).abs() * math.sqrt(4000)).max() < LIMIT


@pytest.mark.parametrize("noise", NOISES)
def test_the_same_seeds_give_the_same_draw_in_every_instance(noise: str) -> None:
    torch.default_generator.manual_seed(1)
    first = draw(noise, (3, 5), 4, 2, 0, taps=3)
    torch.default_generator.manual_seed(2)  # torch's own generator has no say
    before = torch.get_rng_state()
    again = draw(noise, (3, 5), 4, 2, 0, taps=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    noise=st.sampled_from(NOISES),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_shape_and_dtype(
    shape: tuple[int, ...], dtype: torch.dtype, noise: str, seed: int
) -> None:
    """Sizes that fill no byte or word too; Rademacher values are exactly -1 and +1."""
    (p,) = Probe(noise=noise).draw([shape], [dtype], [CPU], seed)
    assert p.shape == shape
    assert p.dtype == dtype
    assert not p.requires_grad
    if noise == "rademacher":
        assert p.abs().eq(1).all()
    else:
        assert p.isfinite().all()


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("count", [1, 100, 100_003])
def test_a_scale_is_a_factor(noise: str, count: int) -> None:
    """A number, or a tensor of another dtype; also of so many that they are drawn in pieces."""
    plain = draw_noise(noise, (count,), torch.float32, generator_for(CPU, 8))
    for scale in (0.3, -2.0, torch.tensor(-0.7, dtype=torch.float64)):
        scaled = draw_noise(noise, (count,), torch.float32, generator_for(CPU, 8), scale)
        assert scaled.dtype == torch.float32
        torch.testing.assert_close(scaled, (plain.double() * float(scale)).float())


def test_rademacher_takes_both_values_in_every_place_of_a_word() -> None:
    (p,) = draw("rademacher", (200, 64), 3)
    assert (p == 1).any(0).all()
    assert (p == -1).any(0).all()


def test_taps_of_several_dtypes_are_drawn_together() -> None:
    """Each tap has its own numbers, also where another kind lies between two of one kind."""
    dtypes = [torch.float64, torch.float32, torch.float64]
    p = Probe().draw([(3, 4)] * 3, dtypes, [CPU] * 3, 7)
    assert [q.dtype for q in p] == dtypes
    assert not torch.equal(p[0], p[2])


def test_generators_of_neighbouring_numbers_are_unrelated() -> None:
    """Also where one number more or fewer is given."""
    keys = [(0,), (0, 0), (1,), (0, 1), (1, 0), (-1,), (2**64 - 2,)]
    first = [torch.rand(200, generator=generator_for(CPU, *key)) for key in keys]
    for a, b in itertools.combinations(first, 2):
        assert not torch.equal(a, b)
        correlation = torch.corrcoef(torch.stack([a, b]))[0, 1]
        assert abs(correlation) < 5 / math.sqrt(200)


@pytest.mark.parametrize("every", [1, 2, 5])
def test_due_is_one_step_in_so_many_and_the_first(every: int) -> None:
    due = [Probe(every=every).due(step) for step in range(11)]
    assert due == [step in range(0, 11, every) for step in range(11)]


def test_the_first_steps_may_each_probe() -> None:
    due = [Probe(every=4, first=3).due(step) for step in range(10)]
    assert [step for step, probes in enumerate(due) if probes] == [0, 1, 2, 4, 8]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"first": -1}, "probe_first=-1"),
        ({"first": 1.0}, "probe_first=1.0"),
        ({"noise": "norml"}, "unknown noise 'norml'. Did you mean 'normal'"),
        ({"noise": None}, "unknown noise"),
        ({"derivative": "forward_ad"}, "Did you mean 'forward-ad'"),
        ({"every": 0}, "probe_every=0"),
        ({"every": -1}, "probe_every=-1"),
        ({"every": 1.5}, "probe_every=1.5"),
        ({"every": True}, "probe_every=True"),
        ({"difference_step": 0.0}, "difference_step=0.0"),
        ({"difference_step": -1e-3}, "difference_step=-0.001"),
        ({"difference_step": math.inf}, "difference_step=inf"),
        ({"difference_step": math.nan}, "difference_step=nan"),
    ],
)
def test_bad_options_are_refused(options: dict, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Probe(**options)
    assert complaint in str(caught.value)

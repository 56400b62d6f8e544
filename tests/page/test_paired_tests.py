"""The paired test against counting every choice of signs, in exact fractions."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import pytest
import torch

from fdfa.studies.page.paired_tests import adjusted, paired, sign_flip_p


def counted_p(differences: list[Fraction]) -> float:
    """All 2^n sums, one after the other."""
    found = abs(sum(differences))
    sums = [
        abs(sum(sign * each for sign, each in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return float(Fraction(sum(each >= found for each in sums), len(sums)))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 11])
def test_p_is_the_share_of_sums_that_lie_as_far_out(count: int) -> None:
    """Hundredths, as accuracies are: many sums tie, and a tie must count."""
    generator = torch.Generator().manual_seed(count)
    for _ in range(8):
        hundredths = torch.randint(-4, 7, (count,), generator=generator).tolist()
        exact = counted_p([Fraction(each, 100) for each in hundredths])
        # What subtracting two accuracies leaves of each, with its rounding.
        assert sign_flip_p([0.9 + each / 100 - 0.9 for each in hundredths]) == exact


@pytest.mark.parametrize("count", [2, 3, 5, 10, 30])
def test_equal_differences_reach_the_smallest_p(count: int) -> None:
    found = paired(dict.fromkeys(range(count), 0.75), dict.fromkeys(range(count), 0.5))
    assert found is not None
    assert found.p == found.smallest_p == 2.0 ** (1 - count)


def test_many_pairs_are_drawn_and_agree_with_the_distribution() -> None:
    """Of 40 pairs, against the exact distribution of the sum, built up one pair after the other."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(-3, 5, (40,), generator=generator).tolist()
    sums = Counter({0: 1})
    for each in whole:
        sums = Counter(
            {
                total: sums[total - abs(each)] + sums[total + abs(each)]
                for total in {t + s for t in sums for s in (each, -each)}
            }
        )
    assert sum(sums.values()) == 2**40
    exact = sum(n for total, n in sums.items() if abs(total) >= abs(sum(whole))) / 2**40
    found = sign_flip_p([float(each) for each in whole])
    assert 0.01 < exact < 0.9
    assert abs(found - exact) < 4 * math.sqrt(exact * (1 - exact) / 100_000)


def test_pairs_are_of_common_seeds_alone() -> None:
    found = paired({0: 0.5, 1: 0.75, 2: 1.0}, {1: 0.5, 2: 0.5, 5: 0.0})
    assert found is not None
    assert (found.seeds, found.difference) == ((1, 2), 0.375)
    assert found.deviation == pytest.approx(math.sqrt(2 * 0.125**2), rel=1e-12)
    assert paired({0: 0.5}, {1: 0.5}) is None


def test_of_one_pair_nothing_follows() -> None:
    found = paired({3: 0.75}, {3: 0.5})
    assert found is not None
    assert (found.difference, found.deviation, found.p, found.smallest_p) == (
        0.25,
        None,
        None,
        None,
    )


def test_holm_is_the_largest_bonferroni_of_those_before() -> None:
    """By its definition (Holm 1979), one p at a time."""
    ps = [0.04, 0.001, 0.03, 0.5, 0.001]
    ranked = sorted(ps)
    for p, found in zip(ps, adjusted(ps), strict=True):
        last = max(place for place, other in enumerate(ranked) if other == p)
        bounds = [(len(ps) - place) * ranked[place] for place in range(last + 1)]
        assert found == pytest.approx(min(1.0, max(bounds)), rel=1e-15)
    assert adjusted([]) == []

"""Whether two methods differ by more than their seeds do."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import statistics
from collections.abc import Mapping, Sequence

import torch

__all__ = ["Paired", "adjusted", "paired", "sign_flip_p"]

_MOST_EXACT = 30  # pairs; two lists of 2^15 sums
_DRAWS = 100_000
_AT_ONCE = 1_000  # of them
_ROUNDING = 1e-9  # of the largest possible sum: below it, two sums are one


@dataclasses.dataclass(frozen=True)
class Paired:
    """Two methods, run for run from the same seeds.

    Attributes:
        seeds: of the pairs.
        difference: mean over the pairs, first minus second.
        deviation: sample standard deviation of the differences; None for a single pair.
        p: two-sided, of the sign-flip test; None for a single pair, of which nothing follows.
        smallest_p: that so many pairs can reach at all; None for a single pair.
    """

    seeds: tuple[int, ...]
    difference: float
    deviation: float | None
    p: float | None
    smallest_p: float | None


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Paired | None:
    """Compare two methods over the seeds that both have.

    Args:
        first: a number for each seed.
        second: the same of the other method.

    Returns:
        What follows; None without a common seed.

    Example:
        >>> paired({0: 0.75, 1: 0.5, 2: 1.0}, {0: 0.5, 1: 0.25, 2: 0.75, 3: 0.0})
        Paired(seeds=(0, 1, 2), difference=0.25, deviation=0.0, p=0.25, smallest_p=0.25)
    """
    seeds = tuple(sorted(set(first) & set(second)))
    if not seeds:
        return None
    differences = [first[seed] - second[seed] for seed in seeds]
    mean = statistics.fmean(differences)
    if len(seeds) == 1:
        return Paired(seeds, mean, None, None, None)
    deviation = statistics.stdev(differences)
    return Paired(seeds, mean, deviation, sign_flip_p(differences), 0.5 ** (len(seeds) - 1))


def sign_flip_p(differences: Sequence[float]) -> float:
    """The exact two-sided p of Fisher's randomisation test for paired differences.

    If the two methods were the same, each difference could as well have had the other sign: p is
    the share of all 2^n choices of signs whose sum lies at least as far from zero as the one that
    was found. It assumes nothing about how the differences are distributed, and cannot go below
    2^(1-n): 0.25 for three pairs, 0.0625 for five. For more than 30 pairs, 100,000 choices are
    drawn from a fixed seed, and the one that was found counts among them, so that p is never 0.

    Args:
        differences: one a pair.

    Returns:
        p in (0, 1].

    Example:
        >>> sign_flip_p([0.1, 0.2, 0.3]), sign_flip_p([0.1, -0.1])
        (0.25, 1.0)
    """
    sizes = [abs(difference) for difference in differences]
    found = abs(sum(differences)) - _ROUNDING * sum(sizes)
    if found <= 0:
        return 1.0
    if len(sizes) > _MOST_EXACT:
        return _drawn_p(sizes, found)
    # All sums of one half, sorted: for each of the other half, two searches count the far ones.
    half = len(sizes) // 2
    near = sorted(_signed_sums(sizes[:half]))
    far = sum(
        len(near)
        - bisect.bisect_left(near, found - other)
        + bisect.bisect_right(near, -found - other)
        for other in _signed_sums(sizes[half:])
    )
    return float(far / 2 ** len(sizes))


def _signed_sums(sizes: Sequence[float]) -> list[float]:
    return [sum(signed) for signed in itertools.product(*((size, -size) for size in sizes))]


def _drawn_p(sizes: Sequence[float], found: float) -> float:
    generator = torch.Generator().manual_seed(0)
    column = torch.tensor(sizes, dtype=torch.float64)
    far = 0
    for _ in range(_DRAWS // _AT_ONCE):
        drawn = torch.randint(2, (_AT_ONCE, len(sizes)), generator=generator, dtype=torch.float64)
        far += int(((2 * drawn - 1) @ column).abs().ge(found).sum())
    return (far + 1) / (_DRAWS + 1)


def adjusted(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction: of several comparisons, one is small by chance more easily.

    Args:
        ps: of single comparisons.

    Returns:
        The same number, each as large as or larger than it was.

    Example:
        >>> adjusted([0.25, 0.0625])
        [0.25, 0.125]
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    found = [0.0] * len(ps)
    least = 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        found[place] = least
    return found

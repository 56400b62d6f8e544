"""What one probe teaches.

The correlation of the output's derivative with each tap's perturbation.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fdfa.engine.distributed import sum_over_processes
from fdfa.engine.feedback import FeedbackMaps
from fdfa.engine.taps import Tap

__all__ = ["Lesson", "correlations"]


@dataclasses.dataclass
class Lesson:
    """A probe's result, kept until the output error has arrived.

    Attributes:
        taps: of the pass.
        derivative: d (N, K), samples and components flattened.
        perturbations: p_l (N, |h_l|), one a tap.
    """

    taps: Sequence[Tap]
    derivative: Tensor
    perturbations: Sequence[Tensor]


def correlations(
    lesson: Lesson, feedback: FeedbackMaps, *, innovation: bool
) -> Iterator[tuple[Tap, Tensor]]:
    """For each tap the mean of d^T p_l over the samples of all processes, (K, |h_l|).

    One matrix product a tap.

    A process whose derivative is not finite adds nothing; if none is finite nothing is learned.

    Args:
        lesson: the probe's result.
        feedback: the maps, for ``innovation``.
        innovation: correlate what the maps did not foresee, ``d - sum_m p_m B_m^T``, instead of d.

    Yields:
        The tap and its mean correlation.
    """
    d = lesson.derivative
    if innovation:
        d = d.clone()
        for tap, p in zip(lesson.taps, lesson.perturbations, strict=True):
            d.addmm_(p, feedback[tap].weight.T, alpha=-1)
    samples = d.shape[0]
    if not math.isfinite(d.sum().item()):
        d, samples = torch.zeros_like(d), 0
    parts = [functools.partial(torch.mm, d.T, p) for p in lesson.perturbations]
    total, sums = sum_over_processes(samples, parts, like=d)
    if total:
        for tap, summed in zip(lesson.taps, sums, strict=True):
            yield tap, summed.div_(total)

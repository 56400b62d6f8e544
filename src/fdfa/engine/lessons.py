"""What one forward pass teaches.

From a probe, the correlation of the output's derivative with each tap's perturbation.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fdfa.engine.distributed import sum_over_processes
from fdfa.engine.feedback import FeedbackMaps
from fdfa.engine.repetition import Repetition
from fdfa.engine.taps import Tap, TapPlan

__all__ = ["Correlation", "Lesson", "as_matrix", "correlations"]


@dataclasses.dataclass
class Lesson:
    """What a forward pass leaves to its method, kept until the output error has arrived.

    Samples and components are flattened.

    Attributes:
        plan: where the pass was cut.
        derivative: d (N, K), projected where the maps are (N, r); None where the pass did not
            probe.
        perturbed: the taps that were perturbed, where it probed; all, or those with a map.
        perturbations: p_l (N, |h_l|), one each of them.
        activations: h_l (N, |h_l|), one a tap, for a method that asks for them.
        error: e (N, K), projected where the maps are, when it has arrived.
        targets: t / N (N, K), in e's place, for a method that asks for them.
        repetition: runs the model again, for a method that asks for it.
        whole: d (N, K) as it was, where it was projected and credits are made of it.
        beyond: (N, 1), the part of e . d that the projection does not pass, once e has arrived.
    """

    plan: TapPlan
    derivative: Tensor | None = None
    perturbed: Sequence[Tap] = ()
    perturbations: Sequence[Tensor] = ()
    activations: Sequence[Tensor] = ()
    error: Tensor | None = None
    targets: Tensor | None = None
    repetition: Repetition | None = None
    whole: Tensor | None = None
    beyond: Tensor | None = None

    @property
    def taps(self) -> Sequence[Tap]:
        """The taps of the pass."""
        return self.plan.taps

    def note_beyond(self, e: Tensor, z: Tensor) -> None:
        """Work out :attr:`beyond`, where the derivative was projected.

        Args:
            e: the output error (N, K).
            z: the same, projected.
        """
        if self.whole is not None and self.derivative is not None:
            passed = (z * self.derivative).sum(1, keepdim=True)
            self.beyond = (e * self.whole).sum(1, keepdim=True) - passed

    def unforeseen(self, feedback: FeedbackMaps, share: float = 1.0) -> Tensor | None:
        """``d - share sum_m p_m B_m^T`` (N, K): what the maps did not foresee of the derivative.

        Args:
            feedback: the maps.
            share: how far they are trusted.

        Returns:
            A new tensor; None where the pass did not probe.
        """
        if self.derivative is None:
            return None
        rest = self.derivative.clone()
        for tap, p in zip(self.perturbed, self.perturbations, strict=True):
            rest.addmm_(p, feedback[tap].weight.T, alpha=-share)
        return rest


class Correlation(NamedTuple):
    """The mean of d^T p_l over samples, and what it is the mean over.

    Attributes:
        tap: the tap.
        mean: (K, |h_l|); zero for a unit without a sample.
        times: (|h_l|), the samples of each unit; None where all have the same.
        halves: the same of each half of the batch, where asked for.
    """

    tap: Tap
    mean: Tensor
    times: Tensor | None = None
    halves: tuple[tuple[Tensor, Tensor], ...] = ()


def correlations(
    lesson: Lesson,
    feedback: FeedbackMaps,
    *,
    innovation: bool,
    active_only: bool = False,
    halves: bool = False,
) -> Iterator[Correlation]:
    """For each perturbed tap the mean of d^T p_l over the samples of all processes, (K, |h_l|).

    One matrix product a tap, or two of half the size.

    A process whose derivative is not finite adds nothing; if none is finite nothing is learned.

    Args:
        lesson: the probe's result.
        feedback: the maps, for ``innovation``.
        innovation: correlate what the maps did not foresee, ``d - sum_m p_m B_m^T``, instead of d.
        active_only: for every unit the mean over the samples in which it was perturbed.
        halves: also the means over each half of the batch (of each process).

    Yields:
        The tap, its mean correlation, and what it is the mean over.
    """
    d = lesson.unforeseen(feedback) if innovation else lesson.derivative
    if d is None:
        return
    samples = d.shape[0]
    finite = math.isfinite(d.sum().item())
    if not finite:
        d, samples = torch.zeros_like(d), 0
    middle = d.shape[0] // 2
    rows = [slice(middle), slice(middle, None)] if halves else [slice(None)]
    counted = active_only or halves
    parts: list[Callable[[], Tensor]] = []
    for p in lesson.perturbations:
        for part in rows:
            parts.append(functools.partial(torch.mm, d[part].T, p[part]))
            if counted:
                parts.append(functools.partial(_times, p[part], active_only, finite))
    total, sums = sum_over_processes(samples, parts, like=d)
    if not total:
        return
    each = iter(sums)
    for tap in lesson.perturbed:
        if not counted:
            yield Correlation(tap, next(each).div_(total))
            continue
        found = [(next(each), next(each)) for _ in rows]
        whole, times = (sum(several[1:], several[0]) for several in zip(*found, strict=True))
        means = tuple((part / n.clamp(min=1), n) for part, n in found) if halves else ()
        seen = times if active_only else None
        yield Correlation(tap, whole / times.clamp(min=1), seen, means)


def _times(p: Tensor, active_only: bool, finite: bool) -> Tensor:
    """In how many samples each unit was perturbed, or could have been; (|h|)."""
    if not finite:
        return p.new_zeros(p.shape[1])
    return p.count_nonzero(0).to(p.dtype) if active_only else p.new_full(p.shape[1:], len(p))


def as_matrix(tensor: Tensor, sample_dims: int) -> Tensor:
    """A tensor (N, ...) as a matrix.

    Args:
        tensor: any.
        sample_dims: number of leading dimensions that count samples.

    Returns:
        One row a sample; the tensor itself where it is a matrix already.
    """
    if tensor.dim() == 2 and sample_dims == 1:
        return tensor
    return tensor.reshape(math.prod(tensor.shape[:sample_dims]), -1)

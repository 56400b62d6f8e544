"""What one forward pass teaches.

From a probe, the correlation of the output's derivative with each tap's perturbation.
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
from fdfa.engine.repetition import Repetition
from fdfa.engine.taps import Tap, TapPlan

__all__ = ["Lesson", "as_matrix", "correlations"]


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


def correlations(
    lesson: Lesson, feedback: FeedbackMaps, *, innovation: bool, active_only: bool = False
) -> Iterator[tuple[Tap, Tensor]]:
    """For each perturbed tap the mean of d^T p_l over the samples of all processes, (K, |h_l|).

    One matrix product a tap.

    A process whose derivative is not finite adds nothing; if none is finite nothing is learned.

    Args:
        lesson: the probe's result.
        feedback: the maps, for ``innovation``.
        innovation: correlate what the maps did not foresee, ``d - sum_m p_m B_m^T``, instead of d.
        active_only: for every unit the mean over the samples in which it was perturbed; for one
            that was in none, what its map says already (with ``innovation`` zero).

    Yields:
        The tap and its mean correlation.
    """
    d = lesson.unforeseen(feedback) if innovation else lesson.derivative
    if d is None:
        return
    samples = d.shape[0]
    if not math.isfinite(d.sum().item()):
        d, samples = torch.zeros_like(d), 0
    parts = [functools.partial(torch.mm, d.T, p) for p in lesson.perturbations]
    if active_only:
        counts = [functools.partial(_times_perturbed, p, samples > 0) for p in lesson.perturbations]
        parts = [part for pair in zip(parts, counts, strict=True) for part in pair]
    total, sums = sum_over_processes(samples, parts, like=d)
    if not total:
        return
    each = iter(sums)
    for tap, summed in zip(lesson.perturbed, each, strict=False):
        if not active_only:
            yield tap, summed.div_(total)
            continue
        times = next(each)
        mean = summed.div_(times.clamp(min=1))
        yield tap, mean if innovation else torch.where(times > 0, mean, feedback[tap].weight)


def _times_perturbed(p: Tensor, counts: bool) -> Tensor:
    """In how many samples each unit was, (|h|)."""
    return p.count_nonzero(0).to(p.dtype) if counts else p.new_zeros(p.shape[1])


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

"""The rate at which a feedback map learns, from what its own lessons show."""

from __future__ import annotations

import torch
from torch import Tensor

from fdfa.engine.feedback import DirectFeedbackMap
from fdfa.engine.lessons import Correlation

__all__ = ["adapted_rate"]

_SLOWEST = 1e-4
_UNKNOWN = 0.01  # as long as no lesson could be halved
_MEMORY = 1e-3  # at least this share of the estimates is new with every lesson


def adapted_rate(feedback: DirectFeedbackMap, lesson: Correlation, *, innovation: bool) -> Tensor:
    """The scalar gain of a Kalman filter for one map, as its lessons are measured.

    A lesson is ``Jhat = J + noise`` of variance s2 an entry. After ``B <- B + a (Jhat - B)`` the
    error ``|B - J|^2`` is ``(1 - a)^2 D + a^2 s2``, D the one before, and least for ``a = D / (D +
    s2)``. Both are measured without a model of how J moves: two halves of a batch give two lessons
    Jhat_1, Jhat_2 of one J with independent noise, so with ``v_i = Jhat_i - B``

        E[v_1 v_2] = (J - B)^2 = D,    E[(v_1 - v_2)^2] n_1 n_2 / (n_1 + n_2)^2 = s2,

    n_i the samples of each half. They are averaged over the entries of the map and over lessons, at
    a quarter of the rate that they give (1e-3 at least): over some four times as many lessons as
    the map itself. For innovation v_i is the halves' own, and s2 falls with D: the rate stays
    ``N / (N + n + 1)``, the fastest.

    Where J moves by delta a lesson, always the same way, the gain settles at ``a^3 = 2 delta^2 /
    s2`` and the error at 1.06 of that at the best constant rate, ``a^3 = 4 delta^2 / s2``; where it
    moves at random it is the best one. Estimates of a map of M entries scatter by ``1 / sqrt(a M)``
    of the rate: where ``a M`` is below about ten, a constant rate does better.

    Args:
        feedback: the map; the estimates become its buffers ``error``, ``noise`` and ``lessons``.
        lesson: with its halves.
        innovation: whether it is the innovation already, not Jhat.

    Returns:
        a, from 1e-4 to 1, without dimensions; 0.01 while no lesson had two samples of one unit.
    """
    weight = feedback.weight
    known = weight.new_zeros(())
    error, noise, lessons = (
        feedback._buffers.get(name, known).to(weight)  # type: ignore[union-attr]
        for name in ("error", "noise", "lessons")
    )
    (first, n_1), (second, n_2) = lesson.halves
    if not innovation:
        first, second = first - weight, second - weight
    both = ((n_1 > 0) & (n_2 > 0)).to(weight)
    entries = (both.sum() * len(weight)).clamp(min=1)
    weighed = both * n_1 * n_2 / (n_1 + n_2).clamp(min=1).square()
    measured_error = ((first * second).sum(0) * both).sum() / entries
    measured_noise = ((first - second).square().sum(0) * weighed).sum() / entries
    usable = both.any() & torch.isfinite(measured_error + measured_noise)
    lessons = lessons + usable
    share = torch.maximum(1 / lessons.clamp(min=1), _gain(error, noise) / 4).clamp(min=_MEMORY)
    error = torch.where(usable, error.lerp(measured_error, share), error)
    noise = torch.where(usable, noise.lerp(measured_noise, share), noise)
    feedback._buffers.update(error=error, noise=noise, lessons=lessons)
    return _gain(error, noise)


def _gain(error: Tensor, noise: Tensor) -> Tensor:
    error = error.clamp(min=0)
    return (error / (error + noise)).nan_to_num(_UNKNOWN).clamp(min=_SLOWEST)

"""Projections of errors on few dimensions, and Oja's rule, which finds the ones that matter."""

from __future__ import annotations

import torch
from torch import Tensor

from fdfa.errors import ConfigError

__all__ = ["check_projection", "correlate", "oja_step", "orthonormal_rows"]


def check_projection(rank: object, projection_rate: object) -> None:
    """Refuse options of a projection that are out of range.

    Args:
        rank: dimensions that are kept.
        projection_rate: of Oja's rule.

    Raises:
        ConfigError: if one is.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ConfigError(
            f"rank={rank!r}: errors are projected on at least one dimension. Pass a whole number"
            " from 1 up; the number of classes is a good one."
        )
    number = isinstance(projection_rate, (int, float)) and not isinstance(projection_rate, bool)
    if not (number and 0 < projection_rate < 1):  # type: ignore[operator]
        raise ConfigError(
            f"projection_rate={projection_rate!r}: Oja's rule is stable for rates in (0, 1). Pass"
            " 0.05, say."
        )


def orthonormal_rows(shape: tuple[int, ...], *, like: Tensor, generator: torch.Generator) -> Tensor:
    """Random matrices with orthonormal rows, in no preferred direction.

    Args:
        shape: (..., rank, width), rank at most the width.
        like: a tensor with the device and dtype.
        generator: draws them; must live on that device.

    Returns:
        The matrices.
    """
    drawn = torch.empty((*shape[:-2], shape[-1], shape[-2]), dtype=like.dtype, device=like.device)
    columns: Tensor = torch.linalg.qr(drawn.normal_(generator=generator)).Q
    return columns.mT.contiguous()


def correlate(P: Tensor, errors: Tensor) -> Tensor:
    """What errors have to teach a projection: sums over samples, to be added up.

    Args:
        P: (..., r, n).
        errors: (..., N, n).

    Returns:
        (..., r, n + 1): ``(errors P^T)^T errors``, and in the last column the errors' squared
        length; zeros where that is not finite.
    """
    errors = errors.to(P.dtype)
    energy = torch.linalg.vector_norm(errors, dim=(-2, -1), keepdim=True).square()
    energy = energy.expand(*P.shape[:-1], 1)
    sums = torch.cat([(errors @ P.mT).mT @ errors, energy], -1)
    return torch.where(energy.isfinite(), sums, 0)


def oja_step(P: Tensor, sums: Tensor, rate: float) -> Tensor:
    """One step of Oja's subspace rule, ``P + rate (P C - P C P^T P)``.

    C is the errors' second moment, divided by its trace: a step is as long whatever the scale of
    the loss, and rates below 1 are stable.

    Args:
        P: (..., r, n).
        sums: from :func:`correlate`; where they are zero, P stays.
        rate: in (0, 1).

    Returns:
        The new P.
    """
    energy = sums[..., -1:]
    PC = sums[..., :-1] / torch.where(energy > 0, energy, 1)
    return P + rate * (PC - (PC @ P.mT) @ P)

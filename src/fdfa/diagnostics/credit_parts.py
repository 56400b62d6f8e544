"""The parts of a credit's error, from the moments of per-sample Jacobians."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from fdfa.diagnostics.jacobian_moments import JacobianMoments

__all__ = ["CreditError", "FeedbackError", "credit_error", "explainable_share", "feedback_error"]


@dataclasses.dataclass(frozen=True)
class FeedbackError:
    """How far a feedback map B is from the mean Jacobian Jbar.

    Attributes:
        relative: ``|B - Jbar| / |Jbar|``, Frobenius norms.
        cosine: of the two as vectors.
        sampling: what ``relative`` would be for a perfect map, because Jbar is the mean over a
            sub-sample only.
    """

    relative: float
    cosine: float
    sampling: float


@dataclasses.dataclass(frozen=True)
class CreditError:
    """How the error of a tap's credit divides: energies, as shares of the true credit's.

    e_n is the output error of a sample, q_n its true credit, J_n its Jacobian, Jbar the mean of
    those over samples, E B the mean of the map over probes. The error of the credit e_n B is

        ``e_n B - q_n = e_n (B - E B) + e_n (E B - Jbar) + e_n (Jbar - J_n) + (e_n J_n - q_n)``

    in this order: noise, lag, spread, coupling. ``map``, ``projection``, ``spread``, ``coupling``
    and ``interaction`` add up to ``total``, and ``noise`` and ``lag`` to ``map``.

    Attributes:
        total: energy of the error, measured.
        map: of ``e_n (B - Jbar)``, noise and lag together.
        noise: of the map, from the probes: its expected energy. Zero where maps never learn, NaN
            where there is no formula (an optimiser moves the map, or another rule).
        lag: of the map's mean behind the mean Jacobian, which moves with the weights; all of the
            map's error where maps never learn. It is what ``map`` exceeds the noise by, so one near
            zero may come out negative. NaN where the noise is.
        projection: of what the mean Jacobian holds outside the dimensions that ``rank=`` keeps.
        spread: of single samples' Jacobians about their mean, which no fixed map can remove.
        coupling: of a sample's effects on *other* samples' outputs (batch norm in training mode,
            positions of a sequence), which its own output error does not know of.
        interaction: twice the inner products of the parts.
        cosine: of the credit and the true one, over all samples measured.
        explainable: share of the true credit's energy that the best linear map of the output error
            explains: least squares, each sample by a map fitted to all others of the batch.
        feedback: the map against the mean Jacobian.
    """

    total: float
    map: float
    noise: float
    lag: float
    projection: float
    spread: float
    coupling: float
    interaction: float
    cosine: float
    explainable: float
    feedback: FeedbackError


def feedback_error(B: Tensor, moments: JacobianMoments) -> FeedbackError:
    r"""A map against the mean Jacobian.

    Args:
        B: (K, |h|), as it acts on the whole output error.
        moments: of the tap's Jacobians.

    Returns:
        Distance and cosine; NaN where one of the two is zero.
    """
    B, (one, other) = B.double(), (mean.double() for mean in moments.means)
    square = (one * other).sum().item()
    lengths = math.sqrt(max(square, 0)) * B.norm().item()
    distance = ((B - one) * (B - other)).sum().item()
    sampling = moments.covariance.trace().item() / moments.samples
    return FeedbackError(
        relative=_root(_share(distance, square)),
        cosine=_share((B * (one + other)).sum().item() / 2, lengths),
        sampling=_root(_share(sampling, square)),
    )


def credit_error(
    B: Tensor,
    P: Tensor | None,
    moments: JacobianMoments,
    *,
    e: Tensor,
    exact_credit: Tensor,
    noise: Tensor | None,
    explainable: float,
) -> CreditError:
    r"""Divide the error of one tap's credit; see :class:`CreditError`.

    Args:
        B: the map (K, |h|); (r, |h|) with a projection.
        P: the projection of the output error (r, K), if there is one.
        moments: of the tap's Jacobians.
        e: the output error of the samples measured (samples, K).
        exact_credit: q of these samples (samples, |h|).
        noise: the expected covariance of the map's rows, summed over its units; None if unknown.
        explainable: goes into the result.

    Returns:
        The parts.
    """
    e, q, B = e.double(), exact_credit.double(), B.double()
    keep = torch.eye(e.shape[1], dtype=e.dtype, device=e.device) if P is None else P.double()
    z = e @ keep.T  # (samples, r), what the map sees
    kept = z @ keep  # (samples, K), the same among all components
    means = [mean.double() for mean in moments.means]
    own = [credit.double() for credit in moments.credits]
    credit = z @ B
    missed = moments.covariance / moments.samples  # of the mean over a sub-sample
    lost = _energy(e, missed)
    kept_lost, left_lost = _energy(kept, missed), _energy(kept - e, missed)
    on_map = _product([credit - kept @ mean for mean in means]) - kept_lost
    projection = _product([(kept - e) @ mean for mean in means]) - left_lost
    spread = _product([e @ mean - c for mean, c in zip(means, own, strict=True)]) + lost
    coupling = _product([c - q for c in own])
    total = _product([credit - q])
    whole = _product([q])
    from_noise = math.nan if noise is None else _energy(z, noise)
    parts = {
        "total": total,
        "map": on_map,
        "noise": from_noise,
        "lag": on_map - from_noise,
        "projection": projection,
        "spread": spread,
        "coupling": coupling,
        "interaction": total - on_map - projection - spread - coupling,
    }
    return CreditError(
        **{name: _share(part, whole) for name, part in parts.items()},
        cosine=_share((credit * q).sum().item(), math.sqrt(whole * _product([credit]))),
        explainable=explainable,
        feedback=feedback_error(keep.T @ B, moments),
    )


def explainable_share(e: Tensor, credit: Tensor) -> float:
    r"""How much of the credits a linear map of the errors explains, fitted without the sample.

    Leave-one-out residuals of least squares are ``r_n / (1 - H_nn)``, H the projector on the
    errors' columns: no fit is made twice.

    Args:
        e: errors (N, K).
        credit: true credits (N, |h|).

    Returns:
        1 less the residuals' share of the credit's energy: at most 1, negative where samples are
        too few for a map. NaN without credit, where no sample can be left out, and where an error
        is not finite.

    Example:
        >>> e = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
        >>> round(explainable_share(e, e @ torch.ones(3, 5)), 6)
        1.0
    """
    if not torch.isfinite(e).all():
        return math.nan
    columns, values, _ = torch.linalg.svd(e.double(), full_matrices=False)
    rank = values > values.max() * max(e.shape) * torch.finfo(e.dtype).eps
    columns = columns[:, rank]
    rest = 1 - columns.square().sum(1, keepdim=True)  # 1 - H_nn
    q = credit.double()
    if not (rest > 1e-9).all():
        return math.nan
    residual = (q - columns @ (columns.T @ q)) / rest
    return 1 - _share(_product([residual]), _product([q]))


def _energy(rows: Tensor, covariance: Tensor) -> float:
    """The sum of ``v C v^T`` over the rows v."""
    return (rows.T @ rows * covariance).sum().item()


def _product(twice: list[Tensor]) -> float:
    """Sum of squares; of two independent measurements of the same, one times the other."""
    return (twice[0] * twice[-1]).sum().item()


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def _root(square: float) -> float:
    return math.sqrt(max(square, 0)) if not math.isnan(square) else math.nan

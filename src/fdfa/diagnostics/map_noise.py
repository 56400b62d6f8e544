"""How far the noise of probes moves a feedback map, worked out without drawing any."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fdfa.diagnostics.jacobian_moments import JacobianMoments, symmetric_product
from fdfa.engine.tap_rule import TapRule
from fdfa.engine.tapped import TappedEstimator
from fdfa.methods.fdfa import FDFA

__all__ = ["expected_noise", "probe_covariances"]

_KURTOSIS = {"normal": 3, "rademacher": 1}


def expected_noise(
    learner: TappedEstimator,
    moments: Sequence[JacobianMoments],
    feedback: Sequence[Tensor],
    P: Tensor | None,
    probe_batch: int,
) -> list[Tensor] | None:
    """The covariance of every map's rows about the map's mean, summed over its units.

    The mean is over the probes' perturbations and over the samples that they were taken on. With
    momentum a map is ``a sum_j (1 - a)^j Jhat_j``, so after t probes its variance is
    ``a / (2 - a) (1 - (1 - a)^(2 t))`` times that of one ``Jhat`` (at the weights as they are now).
    With innovation it is the same sum of ``B + (d - sum_m p_m B_m^T)^T p / N``, whose variance is
    driven by ``J - B`` in J's place: taken at the maps as they are now, so it holds once they move
    about a mean, some ``1 / a`` probes after the start.

    Args:
        learner: with its probe, rate and step count.
        moments: of the Jacobians, one a tap, as the maps see them.
        feedback: the maps B (r, |h|).
        P: the projection before the maps (r, K), if there is one.
        probe_batch: samples in a probe.

    Returns:
        (r, r) a tap, zeros where maps never learn; None where there is no formula: for maps that an
        optimiser moves, that learn by another rule, at an adaptive rate, or from active units
        alone.
    """
    if type(learner).teach is TapRule.teach:
        return [torch.zeros(len(B), len(B), dtype=torch.float64, device=B.device) for B in feedback]
    if not isinstance(learner, FDFA) or type(learner).teach is not FDFA.teach:
        return None
    if learner.feedback_update not in ("momentum", "innovation") or learner.probe is None:
        return None
    if learner.probe.active_only:
        return None
    a = learner.feedback_rate
    if isinstance(a, str):
        return None
    probes = -(-learner.steps // learner.probe.every)
    gathered = a / (2 - a) * (1 - (1 - a) ** (2 * probes))
    driven = learner.feedback_update == "innovation"
    seen = moments if P is None else [moment.projected(P) for moment in moments]
    one = probe_covariances(
        seen,
        [B.shape[1] for B in feedback],
        noise=learner.probe.noise,
        batch=probe_batch,
        known=feedback if driven else None,
    )
    return [gathered * covariance for covariance in one]


def probe_covariances(
    moments: Sequence[JacobianMoments],
    units: Sequence[int],
    *,
    noise: str,
    batch: int,
    known: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """The covariance of the rows of ``Jhat_l = d^T p_l / N``, summed over units.

    For perturbations of kurtosis kap, independent over samples, taps and units,
    ``Cov(Jhat[k,i], Jhat[k',i]) = (1/N) mean_n(sum_m J_m[k] . J_m[k'] + (kap - 2) J_l[k,i]
    J_l[k',i]) + (1/N) Cov_n(J_l[k,i], J_l[k',i])``, the last part that of a batch of samples. Where
    samples meet, the first sum runs over other samples' activations too; products of two different
    samples' effects on each other, at most a share ``1 / |h_l|`` of it, are left out.

    Args:
        moments: of the Jacobians, one a tap.
        units: |h_l| of each tap.
        noise: of the probe.
        batch: N, samples in a probe.
        known: what the maps foresee of the derivative, B (K, |h_l|) a tap; None for nothing.

    Returns:
        (K, K) a tap.
    """
    own, reach = [], []
    for place, moment in enumerate(moments):
        rest = moment.products
        if known is not None:  # that of J - B
            B = known[place].to(moment.mean.dtype)
            rest = rest - 2 * symmetric_product(moment.mean, B) + symmetric_product(B, B)
        own.append(rest)
        reach.append(rest + moment.reach - moment.products)
    everywhere = torch.stack(reach).sum(0)
    beside = _KURTOSIS[noise] - 2
    return [
        (n * everywhere + beside * rest + moment.covariance) / batch
        for n, rest, moment in zip(units, own, moments, strict=True)
    ]

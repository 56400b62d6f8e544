"""Where the error of a direct feedback credit comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fdfa.diagnostics.credit_parts import (
    CreditError,
    FeedbackError,
    credit_error,
    explainable_share,
    feedback_error,
)
from fdfa.diagnostics.jacobian_moments import measure_moments
from fdfa.diagnostics.jacobians import OpenedLearner, OpenTaps, open_learner
from fdfa.diagnostics.map_noise import expected_noise
from fdfa.engine.estimator import Estimator
from fdfa.engine.lessons import as_matrix
from fdfa.engine.tapped import TappedEstimator
from fdfa.errors import ConfigError

__all__ = ["credit_errors", "feedback_errors"]


def feedback_errors(
    learner: Estimator,
    inputs: Tensor | tuple[Any, ...],
    *,
    samples: int = 64,
    exact: bool = True,
) -> dict[str, FeedbackError]:
    """How far every feedback map is from the mean Jacobian of the output by its tap.

    The mean over a sub-sample of the batch, from exact per-sample Jacobians; see
    :func:`fdfa.diagnostics.jacobians` for what they are where samples meet, and for the cost. The
    learner is left bit for bit as it was.

    Args:
        learner: of a method whose maps carry the output error.
        inputs: the batch; a tuple for a model with several arguments.
        samples: how many of its samples are measured, evenly spread.
        exact: as in :func:`credit_errors`.

    Returns:
        Name of each tap that has a map to its error.

    Raises:
        ConfigError: if the learner has no such maps, or fewer than two samples are measured.

    Example:
        >>> import fdfa
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... )
        >>> learner = fdfa.FDFA(model)
        >>> x = torch.rand(5, 4)
        >>> learner(x).sum().backward()  # the first probe of a hundred or more
        >>> found = feedback_errors(learner, x)["1"]
        >>> found.relative > 0.5, found.sampling < 1e-3  # all samples have the same Jacobian
        (True, True)
    """
    _check_samples(samples)
    with open_learner(learner, inputs) as opened:
        twin = opened.twin
        mapped = [tap for tap in opened.plan.taps if tap in twin.feedback]
        if twin.needs_targets or (opened.plan.taps and not mapped):
            raise ConfigError(
                f"method '{learner.method}' has no map that carries the output error: none could be"
                " compared with the mean Jacobian of the output. Give a learner of fdfa, dfa, adfa,"
                " ifa, dkp, grape or opzo."
            )
        if not mapped:
            return {}
        taps = _measured(opened, samples)
        e = taps.y.detach()[taps.chosen]  # any error will do: no credit is asked for
        moments = measure_moments(taps, e, exact=exact)
        of_tap = dict(zip(opened.plan.taps, moments, strict=True))
        P = _projection(twin)
        maps = {tap.name: twin.whole_map(opened.plan, tap) for tap in mapped}
        return {
            tap.name: feedback_error(
                maps[tap.name] if P is None else P.T @ maps[tap.name], of_tap[tap]
            )
            for tap in mapped
        }


def credit_errors(
    learner: Estimator,
    loss_function: Callable[[Any, Any], Tensor],
    inputs: Tensor | tuple[Any, ...],
    targets: Any,
    *,
    samples: int = 64,
    probe_batch: int | None = None,
    exact: bool = True,
) -> dict[str, CreditError]:
    """How the error of every tap's credit divides into noise, lag, spread and the rest.

    All of it is measured in one pass of a copy of the learner, with exact per-sample Jacobians of
    a sub-sample of the batch, in the modes in which the modules stand. The noise's part is the
    closed form of its expectation with these Jacobians: no probe is drawn, and the learner is left
    bit for bit as it was. What the sub-sample's mean Jacobian misses of the mean over all data
    would count as the map's error; its expectation is taken off there, and added to the spread.

    Cost: one copy of the learner and one forward pass of it, and K + 3 backward passes to the taps,
    K the number of output components. Where samples meet (batch norm in training mode, positions
    that attend to one another), every sample measured takes K backward passes of the whole batch;
    ``exact=False`` does with 2 K in all. Positions of ``sample_dims=2`` count as samples, and as
    independent draws.

    Args:
        learner: of a method whose credit is the output error through one map a tap.
        loss_function: (what the model returns, targets) to a scalar.
        inputs: the batch; a tuple for a model with several arguments.
        targets: passed to the loss function.
        samples: how many of the batch's samples are measured, evenly spread.
        probe_batch: samples in one probe of the training, in all processes together; None for as
            many as this batch has.
        exact: where samples meet, take every sample's own Jacobian exactly; else estimate them by
            random signs, twice, without bias in any of the parts.

    Returns:
        Name of each tap to its error, in order.

    Raises:
        ConfigError: if the credit of the learner's method is another, or fewer than two samples are
            measured.

    Example:
        >>> import fdfa
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... )
        >>> learner = fdfa.FDFA(model)
        >>> x, targets = torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
        >>> error = credit_errors(learner, torch.nn.functional.cross_entropy, x, targets)["1"]
        >>> round(error.lag, 4), error.noise, error.spread < 1e-6  # the map is still zero
        (1.0, 0.0, True)
    """
    _check_samples(samples)
    if probe_batch is not None and (not isinstance(probe_batch, int) or probe_batch < 1):
        raise ConfigError(
            f"probe_batch={probe_batch!r}: how many samples does one probe have? Pass the batch"
            " size of the training, such as 64."
        )
    with open_learner(learner, inputs) as opened:
        twin = opened.twin
        if not twin.direct_feedback:
            raise ConfigError(
                f"the credit of method '{learner.method}', as it is set up, is not the output error"
                " through one map a tap: its error does not divide into noise, lag and spread of"
                " such maps. Give a learner of dfa, adfa, dkp, grape, opzo or fdfa (with"
                " credit='plain', relay=0, bias_correction=False and shift_grid=None)."
            )
        if not opened.run.offsets:
            return {}
        taps, P = _measured(opened, samples), _projection(twin)
        loss = loss_function(opened.run.returned, targets)
        (error,) = torch.autograd.grad(loss, opened.run.output, retain_graph=True)
        e = as_matrix(error, twin.sample_dims)
        credits = taps.credits(e)
        chosen = taps.chosen
        moments = measure_moments(taps, e[chosen], exact=exact)
        maps = [twin.whole_map(opened.plan, tap) for tap in opened.plan.taps]
        noise = expected_noise(twin, moments, maps, P, probe_batch or len(e))
        return {
            tap.name: credit_error(
                maps[place],
                P,
                moments[place],
                e=e[chosen],
                exact_credit=credits[place][chosen],
                noise=None if noise is None else noise[place],
                explainable=explainable_share(e, credits[place]),
            )
            for place, tap in enumerate(opened.plan.taps)
        }


def _measured(opened: OpenedLearner, samples: int) -> OpenTaps:
    """The backward passes; refused where they would see a single sample."""
    taps = OpenTaps(opened.run, opened.twin.sample_dims, samples)
    if len(taps.chosen) < 2:
        raise ConfigError(
            f"the batch has {len(taps.y)} sample(s): how Jacobians spread about their mean needs"
            " two or more. Pass a larger batch."
        )
    return taps


def _projection(twin: TappedEstimator) -> Tensor | None:
    return None if twin.projection is None else twin.projection.weight


def _check_samples(samples: int) -> None:
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise ConfigError(
            f"samples={samples!r}: how Jacobians spread about their mean needs two samples or more."
            " Pass 64, say."
        )

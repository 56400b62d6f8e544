"""How a feedback map takes in what a probe has taught."""

from __future__ import annotations

import functools
from typing import Literal, cast

import torch
from torch import Tensor

from fdfa.engine.adaptive_rate import adapted_rate
from fdfa.engine.feedback import DirectFeedbackMap, FeedbackOptimizer
from fdfa.engine.lessons import Correlation
from fdfa.errors import ConfigError, unknown_name

__all__ = ["FeedbackRate", "FeedbackUpdate", "check_update", "take_in"]

FeedbackUpdate = Literal["momentum", "innovation", "adam"] | FeedbackOptimizer
FeedbackRate = float | Literal["adaptive"]

_UPDATES = ("momentum", "innovation", "adam")


def check_update(update: object, rate: object, *, bias_correction: bool) -> None:
    """Refuse what is no way to learn.

    Args:
        update: as in :class:`fdfa.FDFA`, ``feedback_update``.
        rate: ``feedback_rate``.
        bias_correction: whether lessons are counted.

    Raises:
        ConfigError: if a value is unknown or out of range, or two do not go together.
    """
    if rate != "adaptive" and not (isinstance(rate, (int, float)) and 0 < rate <= 1):
        raise ConfigError(
            f"feedback_rate={rate!r}: the share of a map that one probe replaces lies in (0, 1]."
            " Pass 0.01, say, or 'adaptive' to have it measured."
        )
    if update not in _UPDATES and not callable(update):
        raise ConfigError(unknown_name("feedback_update", str(update), _UPDATES))
    averages = update in ("momentum", "innovation")
    if rate == "adaptive" and not averages:
        raise ConfigError(
            "feedback_rate='adaptive' goes with feedback_update='momentum' or 'innovation': an"
            " optimiser has a rate of another kind. Pass one of these, or a number."
        )
    if bias_correction and not averages:
        raise ConfigError(
            "bias_correction=True goes with feedback_update='momentum' or 'innovation': only there"
            " a map's mean is too small by a known factor. Leave it out."
        )


def take_in(
    feedback: DirectFeedbackMap,
    lesson: Correlation,
    *,
    update: FeedbackUpdate,
    rate: FeedbackRate,
    bias_correction: bool,
) -> None:
    """Move a map by one lesson; a unit without a sample in it learns nothing.

    Args:
        feedback: the map.
        lesson: the mean of d^T p, or of what the maps did not foresee, for innovation.
        update: which rule.
        rate: its rate.
        bias_correction: whether the lesson is counted.
    """
    times = lesson.times
    if callable(update) or update == "adam":
        adam = functools.partial(torch.optim.Adam, lr=cast(float, rate))
        gradient = torch.sub(feedback.weight, lesson.mean)
        idle = None if times is None else times == 0
        feedback.step(gradient, update if callable(update) else adam, idle)
        return
    a: float | Tensor
    if rate == "adaptive":
        a = adapted_rate(feedback, lesson, innovation=update == "innovation")
    else:
        a = rate
    if times is not None:
        a = a * (times > 0).to(feedback.weight)
    if update == "momentum":
        feedback.weight.lerp_(lesson.mean, a)
    else:
        feedback.weight.add_(lesson.mean.mul_(a))
    if bias_correction:
        feedback.count_lesson(a)

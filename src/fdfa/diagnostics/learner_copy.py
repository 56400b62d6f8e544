"""The copy of a learner on which a diagnosis makes its passes."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

from fdfa.engine.estimator import Estimator

__all__ = ["copy_alone", "refuse_other"]

AnyEstimator = TypeVar("AnyEstimator", bound=Estimator)


def refuse_other(learner: nn.Module) -> None:
    """Refuse what is no estimator, such as one that is wrapped for several processes.

    Args:
        learner: what a user passed.

    Raises:
        TypeError: if it is anything else.
    """
    if not isinstance(learner, Estimator):
        raise TypeError(
            f"the learner is a {type(learner).__name__} and no estimator: it has no rule to"
            " diagnose. Pass fdfa.FDFA(model), say; of a wrapper around a learner, such as"
            " DistributedDataParallel, its .module."
        )


def copy_alone(learner: AnyEstimator) -> AnyEstimator:
    """A copy that speaks with no other process, and teaches nothing but gradients.

    Args:
        learner: stays as it is. What its modules keep of an earlier pass may hang in a graph.

    Returns:
        The copy.
    """
    kept = [value for module in learner.modules() for value in vars(module).values()]
    hanging = (value for value in kept if isinstance(value, Tensor) and not value.is_leaf)
    twin = copy.deepcopy(learner, {id(tensor): tensor.detach().clone() for tensor in hanging})
    twin.alone = True
    return twin

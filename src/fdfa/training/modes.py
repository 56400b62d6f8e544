"""Training and eval mode of the modules of a network: the user's choice, module by module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

__all__ = ["eval_mode", "start_training"]


def start_training(model: nn.Module) -> None:
    """Put a model that is in eval mode itself into training mode as a whole.

    In one that is in training mode already, modules in eval mode (frozen batch norm) stay so.

    Args:
        model: a learner or a plain module.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
        >>> start_training(model)
        >>> model[1].training
        False
    """
    if not model.training:
        model.train()


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; afterwards every module is in the mode in which it was.

    Args:
        model: a learner or a plain module.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
        >>> with eval_mode(model):
        ...     [module.training for module in model]
        [False, False]
        >>> [module.training for module in model]
        [True, False]
    """
    learning = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in learning:
            module.training = True

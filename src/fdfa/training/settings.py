"""How a network is trained: one frozen record for Python, the command line and ``config.json``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from fdfa.errors import ConfigError, unknown_name

__all__ = ["TrainingSettings"]

_OPTIMIZERS = ("adam", "sgd")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a network is trained.

    Attributes:
        epochs: passes over the training examples.
        batch_size: examples in one step.
        optimizer: what turns gradients into steps.
        learning_rate: step size in the first epoch.
        decay: the learning rate is multiplied by this after every epoch.
        momentum: of sgd; adam does not use it.
        weight_decay: share of each weight that is added to its gradient.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> TrainingSettings(epochs=5).learning_rate
        0.001
    """

    epochs: int = 20
    batch_size: int = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    decay: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Check every value."""
        if self.optimizer not in _OPTIMIZERS:
            raise ConfigError(unknown_name("optimizer", str(self.optimizer), _OPTIMIZERS))
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}={value!r} is not possible. Give a whole number from 1.")
        for name, lowest in (("learning_rate", 0.0), ("decay", 0.0)):
            value = getattr(self, name)
            if not lowest < value < math.inf:
                raise ConfigError(f"{name}={value!r} is not possible. Give a positive number.")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum={self.momentum!r} is not possible. Give one in [0, 1).")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(
                f"weight_decay={self.weight_decay!r} is not possible. Give 0 or a positive number."
            )

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser for these parameters.

        Args:
            parameters: what is trained.

        Returns:
            A fresh optimiser.
        """
        if self.optimizer == "adam":
            return torch.optim.Adam(
                parameters, lr=self.learning_rate, weight_decay=self.weight_decay
            )
        return torch.optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

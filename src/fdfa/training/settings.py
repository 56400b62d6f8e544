"""How a network is trained: one frozen record for Python, the command line and ``config.json``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import nn

from fdfa.errors import ConfigError, unknown_name
from fdfa.training.evaluation import LossFunction
from fdfa.training.losses import LOSSES

__all__ = ["TrainingSettings"]

_LARGEST_RATE = 1e37  # ten times as much, as in the first step of Adam, has to be a float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a network is trained.

    Attributes:
        epochs: passes over the training examples, at most.
        batch_size: examples in one step, over all processes and parts.
        accumulate: parts in which a batch is learned, one after the other, to save memory.
        optimizer: what turns gradients into steps.
        learning_rate: step size, before schedule, decay and warm-up.
        schedule: constant, or cosine: along half a cosine down to 0 at the end of the last epoch.
        decay: the learning rate is multiplied by this after every epoch.
        warmup_epochs: over so many epochs, or a part of one, the learning rate grows from 0.
        momentum: of sgd; the others do not use it.
        weight_decay: share of each weight that is added to its gradient; of adamw: that each step
            takes off the weight, times the learning rate.
        clip_norm: gradients longer than this, all taken together, are shortened to it.
        patience: stop after so many epochs without a better validation accuracy, and go back to
            the best weights.
        precision: float32, or autocast to bfloat16 or float16 (this one with scaled gradients).
        loss: cross-entropy (of a softmax), binary-cross-entropy (of a sigmoid unit for each class),
            or squared-error (half of it); the last two are summed over the classes.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> TrainingSettings(epochs=5).learning_rate
        0.001
    """

    epochs: int = 20
    batch_size: int = 64
    accumulate: int = 1
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    decay: float = 1.0
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip_norm: float | None = None
    patience: int | None = None
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    loss: Literal["cross-entropy", "binary-cross-entropy", "squared-error"] = "cross-entropy"

    def __post_init__(self) -> None:
        """Check every value."""
        for name, hint in get_type_hints(type(self)).items():
            value, choices = getattr(self, name), get_args(hint)
            if get_origin(hint) is Literal and value not in choices:
                raise ConfigError(unknown_name(name, str(value), choices))
        for name in ("epochs", "batch_size", "accumulate", "patience"):
            value = getattr(self, name)
            if name == "patience" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}={value!r} is not possible. Give a whole number from 1.")
        for name in ("learning_rate", "decay", "clip_norm"):
            value = getattr(self, name)
            most = _LARGEST_RATE if name == "learning_rate" else math.inf
            if not (name == "clip_norm" and value is None) and not 0 < value < math.inf:
                raise ConfigError(f"{name}={value!r} is not possible. Give a positive number.")
            if value is not None and value > most:
                raise ConfigError(f"{name}={value!r} is not possible. Give one up to {most:g}.")
        for name in ("weight_decay", "warmup_epochs"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name}={value!r} is not possible. Give 0 or a positive number.")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum={self.momentum!r} is not possible. Give one in [0, 1).")
        if self.warmup_epochs > self.epochs:
            raise ConfigError(
                f"warmup_epochs={self.warmup_epochs!r} is longer than the training of "
                f"{self.epochs} epochs. Give less."
            )
        if self.accumulate > self.batch_size:
            raise ConfigError(
                f"accumulate={self.accumulate!r} makes more parts of a batch than it has examples "
                f"({self.batch_size}). Give less."
            )

    @property
    def evaluation_batch_size(self) -> int:
        """Examples in a forward pass without gradients, which keeps no activations."""
        return min(1024, 4 * self.batch_size)

    @property
    def loss_function(self) -> LossFunction:
        """What the loss is called with outputs (N, K) and labels (N,)."""
        return LOSSES[self.loss]

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser for these parameters.

        Args:
            parameters: what is trained.

        Returns:
            A fresh optimiser.
        """
        kinds: dict[str, Any] = {
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
            "sgd": torch.optim.SGD,
            "rmsprop": torch.optim.RMSprop,
        }
        options: dict[str, Any] = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        if self.optimizer == "sgd":
            options["momentum"] = self.momentum
        optimizer: torch.optim.Optimizer = kinds[self.optimizer](parameters, **options)
        return optimizer

    def rate_factor(self, step: int, steps_an_epoch: int) -> float:
        """What the learning rate is multiplied by at a step: schedule, decay and warm-up.

        A function of the step alone, so that there is no state to save and none to lose.

        Args:
            step: steps taken before.
            steps_an_epoch: how many an epoch has.

        Returns:
            The factor, 0 to 1 unless ``decay`` is above 1.

        Example:
            >>> settings = TrainingSettings(epochs=2, schedule="cosine", warmup_epochs=0.5)
            >>> [round(settings.rate_factor(step, 4), 3) for step in range(8)]
            [0.5, 1.0, 1.0, 0.933, 0.75, 0.5, 0.25, 0.067]
        """
        factor = self.decay ** (step // steps_an_epoch)
        rising = self.warmup_epochs * steps_an_epoch
        if step + 1 < rising:
            factor *= (step + 1) / rising
        if self.schedule == "cosine" and step > rising:
            done = (step - rising) / (self.epochs * steps_an_epoch - rising)
            factor *= 0.5 * (1 + math.cos(math.pi * done))
        return factor

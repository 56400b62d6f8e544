"""What a training tells to whoever listens: the place for code of your own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fdfa.errors import ConfigError
from fdfa.training.evaluation import Score

if TYPE_CHECKING:
    from fdfa.training.trainer import Trainer

__all__ = ["Callback", "EpochResult", "StepResult", "check_every_steps"]


class StepResult(NamedTuple):
    """What one optimiser step brought.

    Attributes:
        epoch: number of the running epoch, from 1.
        step: optimiser steps taken since the start of the training.
        share: of the epoch that is done, in (0, 1].
        loss: mean over the batch as it was learned; of this process's part of it.
        learning_rate: that the step used.
    """

    epoch: int
    step: int
    share: float
    loss: float
    learning_rate: float


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """What one epoch brought.

    Attributes:
        epoch: its number, from 1.
        step: optimiser steps taken since the start of the training.
        train: mean over the epoch's batches as they were learned, in training mode.
        validation: after the epoch, in eval mode; None without validation examples.
        learning_rate: that the epoch's last step used.
        seconds: wall time of the epoch without the validation; of its last part if it was resumed.
    """

    epoch: int
    step: int
    train: Score
    validation: Score | None
    learning_rate: float
    seconds: float


class Callback:
    """Is told how a training goes. Every method does nothing until a subclass overrides it.

    Under several processes each one has its own. What :meth:`state` returns is saved in every
    checkpoint and comes back through :meth:`restore`.

    Example:
        >>> class Narrator(Callback):
        ...     def epoch_finished(self, trainer, result):
        ...         print(f"epoch {result.epoch}: {result.train.accuracy:.0%}")
        >>> import torch
        >>> from fdfa.data import Examples
        >>> from fdfa.training import Trainer, TrainingSettings
        >>> examples = Examples(torch.eye(2).repeat(8, 1), torch.tensor([0, 1]).repeat(8))
        >>> settings = TrainingSettings(epochs=1, learning_rate=0.5)
        >>> _ = torch.manual_seed(0)
        >>> trainer = Trainer(torch.nn.Linear(2, 2), settings, callbacks=[Narrator()])
        >>> _ = trainer.fit(examples)
        epoch 1: 50%

    Attributes:
        last: whether it wants to be told after all others, to know what they have done.
    """

    last: ClassVar[bool] = False

    def training_started(self, trainer: Trainer) -> None:
        """Before the first step, also of a resumed training.

        Args:
            trainer: what trains.
        """

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        """After every optimiser step.

        Args:
            trainer: what trains.
            result: what the step brought.
        """

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        """After every epoch and its validation.

        Args:
            trainer: what trains.
            result: what the epoch brought.
        """

    def training_finished(self, trainer: Trainer) -> None:
        """After the last epoch.

        Args:
            trainer: what trains.
        """

    def training_ended(self, trainer: Trainer) -> None:
        """At the very end, however it came: finished, interrupted or failed.

        Args:
            trainer: what trains.
        """

    def training_interrupted(self, trainer: Trainer) -> None:
        """Between two steps, when the training was asked to stop.

        Args:
            trainer: what trains.
        """

    def state(self) -> Mapping[str, Any]:
        """What must come back when the training is resumed.

        Returns:
            Values that JSON can hold.
        """
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` returned.

        Args:
            state: from a checkpoint.
        """


def check_every_steps(value: object, *, name: str = "every_steps") -> None:
    """Refuse a number of steps that is none.

    Args:
        value: None, or a whole number from 1.
        name: of the argument.

    Raises:
        ConfigError: if it is anything else.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(f"{name}={value!r} is not possible. Give a whole number from 1.")

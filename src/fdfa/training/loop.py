"""Epochs over examples that lie whole in memory, for any learner with ``loss.backward()``."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.errors import NonFiniteLossError
from fdfa.training.modes import eval_mode, start_training
from fdfa.training.settings import TrainingSettings

__all__ = [
    "EpochResult",
    "Examples",
    "Observer",
    "Score",
    "Trainer",
    "evaluate",
]

LossFunction = Callable[[Tensor, Tensor], Tensor]


class Examples(NamedTuple):
    """Inputs (N, ...) and class labels (N,), whole in memory."""

    inputs: Tensor
    labels: Tensor


@dataclasses.dataclass(frozen=True)
class Score:
    """How well a network does on some examples.

    Attributes:
        accuracy: share of examples whose largest output is the label's, 0 to 1.
        loss: mean over the examples.
    """

    accuracy: float
    loss: float


@dataclasses.dataclass(frozen=True)
class EpochResult:
    """What one epoch brought.

    Attributes:
        epoch: its number, from 1.
        step: optimiser steps taken since the start of the training.
        train: mean over the epoch's batches as they were learned, in training mode.
        validation: after the epoch, in eval mode; None without validation examples.
        learning_rate: that the epoch used.
        seconds: wall time of the epoch without the validation.
    """

    epoch: int
    step: int
    train: Score
    validation: Score | None
    learning_rate: float
    seconds: float


class Observer:
    """Is told how a training goes. Every method does nothing until a subclass overrides it."""

    def step_finished(self, epoch: int, share: float) -> None:
        """After every optimiser step.

        Args:
            epoch: number of the running epoch, from 1.
            share: of the epoch that is done, in (0, 1].
        """

    def epoch_finished(self, result: EpochResult) -> None:
        """After every epoch.

        Args:
            result: what it brought.
        """


class Trainer:
    """Trains a learner: examples shuffled by index, one optimiser step a batch.

    A single example left over at the end of an epoch is left out: batch norm cannot use it. Modules
    keep the modes in which they stand: what you froze with ``.eval()`` stays frozen. Only a learner
    that is itself in eval mode is put into training mode as a whole.

    Args:
        learner: an estimator of any method, or a plain module.
        settings: how to train.
        seed: of the order of the examples, drawn from a generator of its own.
        loss_function: (outputs, labels) to the mean loss of a batch.
        observers: are told of the progress.

    Attributes:
        epoch: epochs finished.
        step: optimiser steps taken.

    Example:
        >>> learner = torch.nn.Linear(2, 2)
        >>> examples = Examples(torch.eye(2).repeat(8, 1), torch.tensor([0, 1]).repeat(8))
        >>> trainer = Trainer(learner, TrainingSettings(epochs=60, batch_size=4, learning_rate=0.1))
        >>> trainer.fit(examples)[-1].train.accuracy
        1.0
    """

    def __init__(
        self,
        learner: nn.Module,
        settings: TrainingSettings,
        *,
        seed: int = 0,
        loss_function: LossFunction = F.cross_entropy,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.learner = learner
        self.settings = settings
        self.loss_function = loss_function
        self.observers = tuple(observers)
        self.optimizer = settings.make_optimizer(learner.parameters())
        self.schedule = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, gamma=settings.decay)
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = 0
        self.step = 0

    def fit(self, train: Examples, validation: Examples | None = None) -> tuple[EpochResult, ...]:
        """Train for as many epochs as the settings still ask for.

        Args:
            train: examples to learn from.
            validation: examples to measure on after every epoch.

        Returns:
            One result an epoch.

        Raises:
            NonFiniteLossError: at the first step whose loss is not finite, before it changes a
                weight.
        """
        return tuple(self.epochs(train, validation))

    def epochs(self, train: Examples, validation: Examples | None = None) -> Iterator[EpochResult]:
        """As :meth:`fit`, epoch by epoch: what is done stays known when a later one fails.

        Args:
            train: examples to learn from.
            validation: examples to measure on after every epoch.

        Yields:
            The result of each epoch.

        Raises:
            NonFiniteLossError: at the first step whose loss is not finite, before it changes a
                weight.
        """
        while self.epoch < self.settings.epochs:
            learning_rate = self.optimizer.param_groups[0]["lr"]
            started = time.perf_counter()
            score = self._run_epoch(train)
            seconds = time.perf_counter() - started
            self.schedule.step()
            self.epoch += 1
            result = EpochResult(
                epoch=self.epoch,
                step=self.step,
                train=score,
                validation=None
                if validation is None
                else evaluate(self.learner, validation, loss_function=self.loss_function),
                learning_rate=float(learning_rate),
                seconds=seconds,
            )
            for observer in self.observers:
                observer.epoch_finished(result)
            yield result

    def _run_epoch(self, train: Examples) -> Score:
        """One pass over the shuffled examples."""
        start_training(self.learner)
        order = torch.randperm(len(train.labels), generator=self.generator)
        order = order.to(train.labels.device)
        batches = torch.split(order, self.settings.batch_size)
        if len(batches[-1]) == 1 < self.settings.batch_size and len(batches) > 1:
            batches = batches[:-1]
        seen, total_loss, correct = 0, 0.0, torch.zeros((), device=train.labels.device)
        for number, batch in enumerate(batches, 1):
            labels = train.labels[batch]
            self.optimizer.zero_grad()
            outputs = self.learner(train.inputs[batch])
            loss = self.loss_function(outputs, labels)
            value = loss.item()
            if not math.isfinite(value):
                raise NonFiniteLossError(self._astray(value))
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.step += 1
            seen += len(batch)
            total_loss += value * len(batch)
            correct += (outputs.detach().argmax(dim=1) == labels).sum()
            for observer in self.observers:
                observer.step_finished(self.epoch + 1, number / len(batches))
        return Score(accuracy=correct.item() / seen, loss=total_loss / seen)

    def _astray(self, value: float) -> str:
        return (
            f"the loss is {value} at step {self.step + 1} (epoch {self.epoch + 1}): outputs or "
            "weights have grown beyond all bounds, or the inputs are not finite. The training "
            f"stopped before this step. Lower the learning rate ({self.settings.learning_rate:g}) "
            "and check the inputs."
        )


def evaluate(
    model: nn.Module,
    examples: Examples,
    *,
    batch_size: int = 1024,
    loss_function: LossFunction = F.cross_entropy,
) -> Score:
    """Measure accuracy and mean loss in eval mode; every module's mode is as before afterwards.

    Args:
        model: a learner or a plain module.
        examples: to measure on.
        batch_size: examples in one forward pass; without influence on the result but for rounding.
        loss_function: (outputs, labels) to the mean loss of a batch.

    Returns:
        The score.

    Raises:
        ValueError: if there are no examples.

    Example:
        >>> examples = Examples(torch.eye(2), torch.tensor([0, 0]))
        >>> evaluate(torch.nn.Identity(), examples).accuracy
        0.5
    """
    if not len(examples.labels):
        raise ValueError("there are no examples to evaluate on: give at least one.")
    loss, correct = 0.0, 0
    with torch.no_grad(), eval_mode(model):
        for inputs, labels in zip(
            torch.split(examples.inputs, batch_size),
            torch.split(examples.labels, batch_size),
            strict=True,
        ):
            outputs = model(inputs)
            loss += loss_function(outputs, labels).item() * len(labels)
            correct += int((outputs.argmax(dim=1) == labels).sum())
    return Score(accuracy=correct / len(examples.labels), loss=loss / len(examples.labels))

"""Epochs over examples, for any learner with ``loss.backward()``."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from fdfa.errors import CheckpointError, NonFiniteLossError
from fdfa.training.batching import check_batch_size, check_examples, epoch_steps
from fdfa.training.callbacks import Callback, EpochResult, StepResult
from fdfa.training.evaluation import ExampleSource, LossFunction, Score, evaluate
from fdfa.training.learning import Learning
from fdfa.training.modes import start_training
from fdfa.training.non_finite import not_finite, unset_buffers
from fdfa.training.processes import Processes
from fdfa.training.progress import Best, Progress
from fdfa.training.settings import TrainingSettings

__all__ = ["Trainer", "TrainingInterrupted"]

# Processes ask each other this often whether someone wants to stop: each time costs a message.
STEPS_BETWEEN_AGREEMENTS = 16


class TrainingInterrupted(KeyboardInterrupt):
    """A training that was asked to stop and did, between two steps.

    Args:
        step: optimiser steps taken.

    Attributes:
        step: the same.
    """

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class Trainer:
    """Trains a learner: examples shuffled by index, one optimiser step a batch.

    Modules keep the modes in which they stand: what you froze with ``.eval()`` stays frozen. Only a
    learner that is itself in eval mode is put into training mode as a whole. A single example left
    over at the end of an epoch is left out: batch norm cannot use it.

    In a process group (``torchrun``) every process makes one, with the same arguments; they share
    each batch, and what they learn is what one process would have learned, to rounding.

    Args:
        learner: an estimator of any method, or a plain module, on the device where it is to train.
        settings: how to train.
        seed: of the order of the examples and of what changes them at random; both are drawn from
            generators of their own.
        loss_function: (what the learner returns, labels) to the mean loss of a batch; in place of
            the one that the settings name.
        callbacks: are told of the progress, in this order; those that want to be last, at last.
        optimizer: in place of the one that the settings describe; over the learner's parameters.
            The learning rate of each of its groups is multiplied by schedule, decay and warm-up.

    Attributes:
        optimizer: steps the weights.
        progress: epochs and steps done.
        unset: names of buffers that were no numbers at the start, and may stay so.
        best: the best weights so far, with ``patience``.
        stop_requested: set it, from a signal handler say, to have :class:`TrainingInterrupted`
            raised after the running step and its callbacks.

    Raises:
        ConfigError: if a batch has too few examples for so many parts and processes.

    Example:
        >>> from fdfa.data import Examples
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
        loss_function: LossFunction | None = None,
        callbacks: Sequence[Callback] = (),
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.learner = learner
        self.settings = settings
        self.loss_function = loss_function or settings.loss_function
        self.callbacks = tuple(sorted(callbacks, key=lambda callback: callback.last))
        self.processes = Processes.present()
        check_batch_size(settings, self.processes)
        self.optimizer = optimizer or settings.make_optimizer(learner.parameters())
        self.learning = Learning(
            learner, self.optimizer, settings, self.loss_function, self.processes
        )
        self.order_generator = torch.Generator().manual_seed(seed)
        self.augmentation_generator = torch.Generator().manual_seed(seed + 1)
        self.progress = Progress()
        self.unset = unset_buffers(learner)
        self.best: Best | None = None
        self.stop_requested = False

    @property
    def model(self) -> nn.Module:
        """The user's own model, without the learner around it."""
        return self.learning.model

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: all epochs are done, or patience has run out."""
        patience, best = self.settings.patience, self.best
        waited = 0 if best is None else self.progress.epoch - best.epoch
        return self.progress.epoch >= self.settings.epochs or (
            patience is not None and waited >= patience
        )

    def fit(
        self, train: ExampleSource, validation: ExampleSource | None = None
    ) -> tuple[EpochResult, ...]:
        """Train for as many epochs as the settings still ask for.

        With ``patience`` the learner ends with the weights and the state that it had after the
        epoch of the best validation accuracy.

        Args:
            train: examples to learn from.
            validation: examples to measure on after every epoch.

        Returns:
            One result an epoch.

        Raises:
            ConfigError: if ``patience`` has nothing to be measured on, or there are too few
                examples for so many processes.
            CheckpointError: if there are other examples than before a resume.
            NonFiniteLossError: at the first step whose loss is not finite, before it changes a
                weight; it says where that began. Also if a validation loss or a weight is not.
            TrainingInterrupted: after ``stop_requested``.
        """
        return tuple(self.epochs(train, validation))

    def epochs(
        self, train: ExampleSource, validation: ExampleSource | None = None
    ) -> Iterator[EpochResult]:
        """As :meth:`fit`, epoch by epoch: what is done stays known when a later one fails.

        Args:
            train: examples to learn from.
            validation: examples to measure on after every epoch.

        Yields:
            The result of each epoch.

        Raises:
            ConfigError: if ``patience`` has nothing to be measured on, or there are too few
                examples for so many processes.
            CheckpointError: if there are other examples than before a resume.
            NonFiniteLossError: at the first step whose loss is not finite, before it changes a
                weight; it says where that began. Also if a validation loss or a weight is not.
            TrainingInterrupted: after ``stop_requested``.
        """
        if validation is not None and not len(validation):
            validation = None
        check_examples(self.settings, self.processes, train, validation)
        self._tell("training_started")
        try:
            while not self.finished:
                started = time.perf_counter()
                self._run_epoch(train)
                yield self._finish_epoch(validation, time.perf_counter() - started)
            if self.best is not None:
                self.learner.load_state_dict(self.best.state)
            self._tell("training_finished")
        finally:
            self._tell("training_ended")

    def _run_epoch(self, train: ExampleSource) -> None:
        """One pass over the shuffled examples, or what is left of it after a resume."""
        start_training(self.learner)
        progress = self.progress
        if not progress.in_epoch:
            state = self.order_generator.get_state()
            progress.start_epoch(state, self.learning.device, examples=len(train))
        if progress.examples != len(train):
            raise CheckpointError(
                f"the training was interrupted in an epoch of {progress.examples} examples, and "
                f"there are {len(train)} now: it would learn some twice and others never. Resume "
                "it with the examples that it was started with."
            )
        self.order_generator.set_state(progress.order_state)
        steps = epoch_steps(
            torch.randperm(len(train), generator=self.order_generator),
            batch_size=self.settings.batch_size,
            parts=self.settings.accumulate,
            rank=self.processes.rank,
            processes=self.processes.count,
        )
        left = steps[progress.steps_in_epoch :]
        parts = train.batches(
            [part for step in left for part in step.parts], generator=self.augmentation_generator
        )
        for step in left:
            rate = self.learning.set_learning_rate(progress.step, len(steps))
            loss = self.learning.take(step, parts, progress)
            progress.step += 1
            progress.steps_in_epoch += 1
            result = StepResult(
                progress.epoch + 1, progress.step, progress.steps_in_epoch / len(steps), loss, rate
            )
            for callback in self.callbacks:
                callback.step_finished(self, result)
            if self._is_to_stop():
                self._tell("training_interrupted")
                raise TrainingInterrupted(progress.step)

    def _is_to_stop(self) -> bool:
        if self.processes.count == 1:
            return self.stop_requested
        due = self.progress.step % STEPS_BETWEEN_AGREEMENTS == 0
        return due and self.processes.any(self.stop_requested)

    def _finish_epoch(self, validation: ExampleSource | None, seconds: float) -> EpochResult:
        train = self.progress.score(self.processes)
        what = not_finite(self.learner, self.optimizer, unset=self.unset)
        if self.processes.any(what is not None):
            what = what or "something in another process"
            raise NonFiniteLossError(
                f"{what} is not finite after epoch {self.progress.epoch + 1} (step "
                f"{self.progress.step}): a gradient of its last steps was not. Lower the learning "
                f"rate ({self.settings.learning_rate:g}), or shorten gradients with clip_norm."
            )
        self.processes.share_buffers(self.learner)
        score = None
        if validation is not None:
            if self.processes.first:
                score = evaluate(
                    self.learner,
                    validation,
                    batch_size=self.settings.evaluation_batch_size,
                    loss_function=self.loss_function,
                )
            score = self.processes.from_first(score)
            if not math.isfinite(score.loss):
                raise NonFiniteLossError(
                    f"the validation loss is {score.loss} after epoch {self.progress.epoch + 1} "
                    f"(step {self.progress.step}): the network has grown beyond all bounds, or the "
                    "validation inputs are not finite. Lower the learning rate "
                    f"({self.settings.learning_rate:g}) and check the inputs."
                )
        self.progress.finish_epoch()
        self._keep_if_best(score)
        result = EpochResult(
            epoch=self.progress.epoch,
            step=self.progress.step,
            train=train,
            validation=score,
            learning_rate=float(self.optimizer.param_groups[0]["lr"]),
            seconds=seconds,
        )
        for callback in self.callbacks:
            callback.epoch_finished(self, result)
        return result

    def _keep_if_best(self, score: Score | None) -> None:
        if self.settings.patience is None or score is None:
            return
        if self.best is None or score.accuracy > self.best.accuracy:
            self.best = Best.of(self.learner, epoch=self.progress.epoch, accuracy=score.accuracy)

    def _tell(self, event: str) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self)

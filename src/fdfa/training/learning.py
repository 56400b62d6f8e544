"""One optimiser step: a batch, in parts, by one process or several."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fdfa.engine.estimator import Estimator
from fdfa.errors import NonFiniteLossError
from fdfa.training.batching import Step
from fdfa.training.evaluation import LossFunction, device_of, output_of
from fdfa.training.non_finite import where_it_began
from fdfa.training.processes import Processes
from fdfa.training.progress import Progress
from fdfa.training.settings import TrainingSettings

__all__ = ["Learning"]


class Learning:
    """Steps a learner with an optimiser: parts of a batch, mixed precision, clipping, rates.

    Args:
        learner: an estimator of any method, or a plain module.
        optimizer: over its parameters.
        settings: how to train.
        loss_function: (what the learner returns, labels) to the mean loss of a batch.
        processes: that share each step.

    Attributes:
        scaler: of the gradients; does nothing but in float16.
        rates: learning rate of each group of parameters, before schedule, decay and warm-up.
    """

    def __init__(
        self,
        learner: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: TrainingSettings,
        loss_function: LossFunction,
        processes: Processes,
    ) -> None:
        self.learner = learner
        self.optimizer = optimizer
        self.settings = settings
        self.loss_function = (
            learner.criterion(loss_function) if isinstance(learner, Estimator) else loss_function
        )
        self.processes = processes
        self.device = device_of(learner)
        half = settings.precision == "float16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self._parallel = processes.parallel(learner)
        self.rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    @property
    def model(self) -> nn.Module:
        """The user's own model, without the learner around it."""
        return self.learner.model if isinstance(self.learner, Estimator) else self.learner

    def set_learning_rate(self, step: int, steps_an_epoch: int) -> float:
        """Set the rate of every group of parameters for a step.

        Args:
            step: steps taken before.
            steps_an_epoch: how many an epoch has.

        Returns:
            The rate of the first group.
        """
        factor = self.settings.rate_factor(step, steps_an_epoch)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        return self.rates[0] * factor

    def take(self, step: Step, parts: Iterator[tuple[Tensor, Tensor]], progress: Progress) -> float:
        """Learn the parts of one batch and step.

        Args:
            step: which examples.
            parts: gives inputs and labels of each part in turn.
            progress: counts them.

        Returns:
            The mean loss over this process's share of the batch.

        Raises:
            NonFiniteLossError: if a loss is not finite, or with ``clip_norm`` a gradient, before a
                weight is changed.
        """
        self.optimizer.zero_grad()
        mean = 0.0
        share = sum(len(part) for part in step.parts)
        for number, part in enumerate(step.parts, 1):
            inputs, labels = next(parts)
            inputs, labels = self._here(inputs), self._here(labels)
            with self._unsynchronized(number < len(step.parts)):
                with self._autocast():
                    returned = self._parallel(inputs)
                    loss = self.loss_function(returned, labels)
                value = loss.item()
                # All processes stop, or those that went on would wait for ever for this one.
                if self.processes.any(not math.isfinite(value)):
                    raise NonFiniteLossError(self._astray(value, inputs, returned, progress))
                # Every example counts the same, whatever the sizes of parts and shares.
                if (weight := len(part) * self.processes.count / step.examples) != 1:
                    loss = loss * weight
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            mean += value * len(part) / share
            progress.count(output_of(self.learner, returned), labels, value)
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.settings.clip_norm)
            # In float16 the scaler itself leaves such a step out. All processes see this norm.
            if not (self.scaler.is_enabled() or norm.isfinite()):
                otherwise = "The loss is finite: a derivative, as of a square root at 0, is not."
                where = self._where(inputs, returned, progress, otherwise)
                raise NonFiniteLossError(f"the gradient is not finite {where}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return mean

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.device == self.device else tensor.to(self.device, non_blocking=True)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.settings.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.settings.precision))

    def _unsynchronized(self, more_parts: bool) -> contextlib.AbstractContextManager[Any]:
        """Processes exchange gradients once a step, with its last part."""
        if more_parts and isinstance(self._parallel, DistributedDataParallel):
            return self._parallel.no_sync()
        return contextlib.nullcontext()

    def _astray(self, value: float, inputs: Tensor, returned: Any, progress: Progress) -> str:
        if math.isfinite(value):
            return (
                f"the loss is not finite in another process at step {progress.step + 1} (epoch "
                f"{progress.epoch + 1}), which says where that began. This one stopped with it."
            )
        otherwise = "It began in the loss function: the outputs of the network are finite."
        return f"the loss is {value} {self._where(inputs, returned, progress, otherwise)}"

    def _where(self, inputs: Tensor, returned: Any, progress: Progress, otherwise: str) -> str:
        with self._autocast():
            began = where_it_began(self.model, inputs, output_of(self.learner, returned))
        return (
            f"at step {progress.step + 1} (epoch {progress.epoch + 1}). {began or otherwise} The "
            "training stopped before this step. Lower the learning rate "
            f"({self.settings.learning_rate:g}) and check the inputs."
        )

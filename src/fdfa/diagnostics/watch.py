"""Diagnoses of a learner while it trains, in a loop of any kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from fdfa.diagnostics.alignment import GradientMatch, gradient_matches
from fdfa.diagnostics.credit import credit_errors
from fdfa.diagnostics.credit_parts import CreditError
from fdfa.diagnostics.learner_copy import refuse_other
from fdfa.engine.estimator import Estimator
from fdfa.engine.tap_rule import TapRule
from fdfa.errors import ConfigError

__all__ = ["NumberLog", "Observation", "Watch"]


class NumberLog(Protocol):
    """Takes numbers by name: :class:`fdfa.training.TensorBoard`, say, or your own."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Take some numbers.

        Args:
            values: by name.
            step: optimiser steps taken.
        """


@dataclasses.dataclass(frozen=True)
class Observation:
    """What one diagnosis found.

    Attributes:
        step: optimiser steps that the learner had taken.
        parameters: how the rule's gradient of each trainable parameter lies to the exact one.
        taps: what the error of each tap's credit is made of; empty where it was not measured, and
            for methods whose credit is no feedback map times the output error.
    """

    step: int
    parameters: Mapping[str, GradientMatch]
    taps: Mapping[str, CreditError]

    def numbers(self) -> dict[str, float]:
        """All that was measured, by names such as ``"diagnosis/angle/0.weight"``.

        Returns:
            The numbers; NaN where there was nothing to measure.

        Example:
            >>> Observation(100, {"0.weight": GradientMatch(0.5, 60.0, 2.0)}, {}).numbers()
            {'diagnosis/cosine/0.weight': 0.5, 'diagnosis/angle/0.weight': 60.0,
             'diagnosis/norm_ratio/0.weight': 2.0}
        """
        parts = (*self.parameter_values().items(), *self.tap_values().items())
        return {
            f"diagnosis/{quantity}/{name}": value
            for name, values in parts
            for quantity, value in values.items()
        }

    def parameter_values(self) -> dict[str, dict[str, float]]:
        """What was found of each parameter, by name.

        Returns:
            ``cosine``, ``angle`` and ``norm_ratio`` of each.
        """
        return {name: dataclasses.asdict(match) for name, match in self.parameters.items()}

    def tap_values(self) -> dict[str, dict[str, float]]:
        """What was found of each tap, by name.

        Returns:
            The parts of the credit's error, as :class:`~fdfa.diagnostics.CreditError` has them, and
            ``feedback_error``, the map's relative distance from the mean Jacobian.
        """
        found = {}
        for name, error in self.taps.items():
            values = dataclasses.asdict(error)
            feedback = values.pop("feedback")
            found[name] = {"feedback_error": feedback["relative"], **values}
        return found


class Watch:
    """Diagnoses a learner every so many steps of your own loop, always on the same batch.

    The learner, its gradients and all random number generators are left bit for bit as they were:
    a training that is watched ends with the same weights as one that is not. In a process group
    every process calls it, at the same steps: each finds the same.

    A diagnosis takes one step of the rule, one of backpropagation, and copies of both. The errors
    at the taps take far more, two backward passes for each output component where samples meet
    (batch norm), so they are measured less often.

    Args:
        learner: an estimator of any method.
        loss_function: (what the learner returns, targets) to a scalar.
        inputs: the batch; a tuple for a model with several arguments.
        targets: passed to the loss function.
        every: diagnose after so many steps.
        taps_every: measure the errors at the taps in one diagnosis of so many, the first among
            them.
        probe_batch: samples in one probe of the training; None for as many as this batch has.
        log: also takes the numbers; it must be open.

    Attributes:
        history: what was found, in order.

    Raises:
        ConfigError: if ``every`` or ``taps_every`` is no positive whole number.

    Example:
        >>> import torch, fdfa
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... )
        >>> learner = fdfa.FDFA(model, seed=0)
        >>> optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
        >>> x, y = torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> loss_function = torch.nn.functional.cross_entropy
        >>> watch = Watch(learner, loss_function, x, y, every=10)
        >>> for _ in range(20):
        ...     optimizer.zero_grad()
        ...     loss_function(learner(x), y).backward()
        ...     optimizer.step()
        ...     _ = watch.step()
        >>> [(seen.step, round(seen.parameters["2.weight"].angle)) for seen in watch.history]
        [(10, 0), (20, 0)]
    """

    def __init__(
        self,
        learner: Estimator,
        loss_function: Callable[[Any, Any], Tensor],
        inputs: Tensor | tuple[Any, ...],
        targets: Any,
        *,
        every: int = 100,
        taps_every: int = 8,
        probe_batch: int | None = None,
        log: NumberLog | None = None,
    ) -> None:
        refuse_other(learner)
        for name, value in (("every", every), ("taps_every", taps_every)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}={value!r} is not possible. Give a whole number from 1.")
        self.learner = learner
        self.loss_function = loss_function
        self.inputs = inputs
        self.targets = targets
        self.every = every
        self.taps_every = taps_every
        self.probe_batch = probe_batch
        self.log = log
        self.history: list[Observation] = []
        self._steps = 0

    def step(self, step: int | None = None) -> Observation | None:
        """Call it after every optimiser step.

        Args:
            step: how many were taken; None counts the calls.

        Returns:
            What was found, if a diagnosis was due.
        """
        self._steps = self._steps + 1 if step is None else step
        number, over = divmod(self._steps, self.every)
        # By the step alone: a training that goes on elsewhere measures where it would have.
        return None if over else self.observe(taps=(number - 1) % self.taps_every == 0)

    def observe(self, *, taps: bool = True) -> Observation:
        """Diagnose now, due or not.

        Args:
            taps: whether to measure the errors at the taps, too.

        Returns:
            What was found; it is the last of the history, too.
        """
        task = (self.learner, self.loss_function, self.inputs, self.targets)
        matches = gradient_matches(*task)
        direct = isinstance(self.learner, TapRule) and self.learner.direct_feedback
        errors: Mapping[str, CreditError] = {}
        if taps and direct:
            errors = credit_errors(*task, probe_batch=self.probe_batch, exact=False)
        seen = Observation(self._steps, matches, errors)
        self.history.append(seen)
        if self.log is not None:
            self.log.log(seen.numbers(), step=seen.step)
        return seen

"""Estimators with local losses: the user's own loss, of what a head at each tap makes of it.

The error of every head's result is worked out when the output's error arrives. The loss function
says it, with the targets that it was given for the output.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.autocast import without_autocast
from fdfa.engine.credit import Payer, join_credit
from fdfa.engine.cut import CutPass
from fdfa.engine.heads import LocalHeads
from fdfa.engine.lessons import Lesson
from fdfa.engine.notes import Note
from fdfa.engine.tapped import TappedEstimator
from fdfa.engine.taps import Tap, TapPlan
from fdfa.engine.targets import weighed
from fdfa.errors import FDFAError, UnsupportedModelError

__all__ = ["LocalEstimator", "LocalPass"]


@dataclasses.dataclass
class LocalPass:
    """What the heads made of one pass.

    Attributes:
        outputs: one a tap with a head, of the output's shape; with the graph of the head at least.
        taps: tapped activations that get a credit of their own.
        credits: from the output's error and the errors of ``outputs`` to what gives each of
            ``taps``, by number, its credit.
    """

    outputs: Sequence[Tensor]
    taps: Sequence[Tensor] = ()
    credits: Callable[[Tensor, Sequence[Tensor]], Payer] | None = None


class LocalEstimator(TappedEstimator):
    """A model with local losses: the graph is cut wherever a head hangs.

    Args:
        model: with heads.
        **options: of :class:`fdfa.engine.tapped.TappedEstimator`, but for what the heads say.

    Attributes:
        model: the user's model, without the heads.
        heads: one a tap with a head.
        head_names: the taps, in the same order.

    Raises:
        UnsupportedModelError: if the model has no heads.
    """

    needs_targets = True

    def __init__(self, model: nn.Module, **options: Any) -> None:
        with_heads = model if isinstance(model, LocalHeads) else None
        super().__init__(
            model if with_heads is None else with_heads.model,
            sample_dims=1 if with_heads is None else with_heads.sample_dims,
            output=None if with_heads is None else with_heads.output,
            depth=1,
            start=None,
            **options,
        )
        if with_heads is None:
            raise UnsupportedModelError(
                f"method '{self.method}' needs a loss for each block, and"
                f" {type(model).__name__} has no local heads. Give it some:"
                f" fdfa.wrap('{self.method}', fdfa.LocalHeads(model, x)), x a batch of inputs."
            )
        self.heads = with_heads.heads
        self.head_names = with_heads.names

    @abc.abstractmethod
    def local_pass(self, plan: TapPlan, run: CutPass) -> LocalPass:
        """Run the heads.

        Args:
            plan: where the pass was cut.
            run: the pass.

        Returns:
            What they made of it.
        """

    def head(self, tap: Tap) -> nn.Module:
        """The head at a tap.

        Args:
            tap: any that has one.

        Returns:
            The head, of the model's type.
        """
        head = self.heads[self.head_names.index(tap.name)]
        dtype = next(self.model.parameters()).dtype
        weight = next(head.parameters(), None)
        if weight is not None and (weight.dtype, weight.device) != (dtype, tap.device):
            head.to(tap.device, dtype)  # the model alone was moved
        return head

    def _join(self, plan: TapPlan, run: CutPass, lesson: Lesson) -> Tensor:
        local = self.local_pass(plan, run)
        outputs = [output.detach() for output in local.outputs]
        like = [(tensor.shape, tensor.dtype) for tensor in (*local.outputs, *local.taps)]
        make = local.credits

        def credits(e: Tensor, notes: Sequence[Note]) -> Payer:
            errors = _errors(outputs, notes, method=self.method)
            with without_autocast([e.device]):
                paid = None if make is None else make(e, errors)

            def pay(number: int) -> Tensor:
                shape, dtype = like[number]
                if paid is None or number < len(errors):
                    return errors[number].to(dtype)
                with without_autocast([e.device]):
                    return paid(number - len(errors)).view(shape).to(dtype)

            return pay

        return join_credit(
            run.output, [*local.outputs, *local.taps], credits=credits, once=make is not None
        )

    def state_conflicts(self, state: Mapping[str, Any]) -> list[str]:
        """Adds the heads to what must fit."""
        problems = super().state_conflicts(state)
        for key, value in self.heads.state_dict(prefix="heads.").items():
            there = getattr(state.get(key, value), "shape", None)
            if there != value.shape:
                sizes = f"{tuple(there or ())} in the state and {tuple(value.shape)} here"
                problems.append(f"'{key}' is {sizes}.")
        return problems


def _errors(outputs: Sequence[Tensor], notes: Sequence[Note], *, method: str) -> list[Tensor]:
    """The gradient of the loss by each of these in the output's place."""
    errors = [torch.zeros_like(output) for output in outputs]
    for note, weight in weighed(notes, method=method):
        if note.loss_of is None:
            raise FDFAError(
                f"method '{method}' computes the loss of each block's own output, and the criterion"
                " was given something else than the learner's output, which cannot be repeated for"
                " others. Put what lies between into the loss function: criterion ="
                " learner.criterion(lambda y, targets: loss_function(change(y), targets))."
            )
        for output, total in zip(outputs, errors, strict=True):
            y = output.detach().requires_grad_()
            with torch.enable_grad():
                loss = note.loss_of(y)
            total += torch.autograd.grad(loss, y, weight)[0]
    return errors

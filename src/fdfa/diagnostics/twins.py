"""Copies of a learner and of its model, on which a diagnosis makes its passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.diagnostics.learner_copy import copy_alone
from fdfa.engine.estimator import Estimator
from fdfa.engine.intercept import untouched_state
from fdfa.engine.open_taps import open_pass
from fdfa.engine.tapped import TappedEstimator
from fdfa.engine.taps import Tap, TapPlan

__all__ = ["Tensors", "Twins"]

Tensors = dict[str, Tensor]


class Twins:
    """A copy of the learner that draws, and one of its model that is exact.

    Every pass meets the same weights, buffers and random number generators.

    Args:
        learner: is copied.
        loss_function: of what the model returns, and targets.

    Attributes:
        sample_dims: number of leading dimensions of a tapped tensor that count samples.
    """

    def __init__(self, learner: Estimator, loss_function: Callable[[Any, Any], Tensor]) -> None:
        self._twin = copy_alone(learner)  # other processes are not making these passes
        self._plain = copy.deepcopy(self._twin.model)
        self._loss_function = loss_function
        self._step = self._twin.steps
        self._credits: Tensors = {}
        self.sample_dims = 1
        if isinstance(self._twin, TappedEstimator):
            self._twin.on_credit = self._note
            self.sample_dims = self._twin.sample_dims
        # not what the method keeps: it learns nothing, and makes its maps in the first pass
        self._guarded = nn.ModuleList([self._twin.model])
        if isinstance(heads := getattr(self._twin, "heads", None), nn.Module):
            self._guarded.append(heads)

    def plan(self, args: tuple[Any, ...]) -> TapPlan | None:
        """Where the rule cuts the model.

        Args:
            args: of the model.

        Returns:
            The taps; None for a method without.
        """
        return self._twin.plan(*args) if isinstance(self._twin, TappedEstimator) else None

    def exact(
        self, plan: TapPlan | None, args: tuple[Any, ...], targets: Any
    ) -> tuple[Tensors, Tensors]:
        """Autograd's own gradients, at one batch.

        Args:
            plan: where the taps are.
            args: of the model.
            targets: of the loss function.

        Returns:
            By name, the gradient of each trainable parameter, and that of each tapped activation.
        """
        by_tap: Tensors = {}
        with untouched_state(self._plain):
            if plan is not None and plan.taps:
                run = open_pass(
                    self._plain,
                    plan,
                    args,
                    {},
                    output=self._twin.output,
                    sample_dims=self.sample_dims,
                )
                returned = run.returned
                by_tap = {tap.name: zero for tap, zero in zip(plan.taps, run.offsets, strict=True)}
            else:
                returned = self._plain(*args)
            loss = self._loss_function(returned, targets)
            return _gradients(loss, self._plain, by_tap)

    def draw(self, number: int, args: tuple[Any, ...], targets: Any) -> tuple[Tensors, Tensors]:
        """The rule's gradients at one batch, with noise of its own.

        Args:
            number: of the noise; 0 is that of the learner's coming step itself.
            args: of the model.
            targets: of the loss function.

        Returns:
            By name, the gradient of each trainable parameter, and what the block of each tap gets.
        """
        twin, self._credits = self._twin, {}
        twin.steps, twin.redraw = self._step, number
        with untouched_state(self._guarded):
            loss = twin.criterion(self._loss_function)(twin(*args), targets)
            gradients, _ = _gradients(loss, twin.model, {})
        return gradients, self._credits

    def _note(self, tap: Tap, credit: Tensor) -> None:
        self._credits[tap.name] = credit


def _gradients(loss: Tensor, model: nn.Module, more: Tensors) -> tuple[Tensors, Tensors]:
    """Of each trainable parameter, and of more tensors; zeros where none arrives."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    leaves = [*named.values(), *more.values()]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    whole = [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves, found, strict=True)
    ]
    return dict(zip(named, whole[: len(named)], strict=True)), dict(
        zip(more, whole[len(named) :], strict=True)
    )

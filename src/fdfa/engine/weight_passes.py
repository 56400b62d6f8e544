"""The forward passes of one step that take the output's derivative along directions of weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fdfa.engine.directions import Direction, Directions, StackedDirections
from fdfa.engine.intercept import Interception, standing_in, untouched_state
from fdfa.engine.leaves import forwards_of_padding
from fdfa.engine.outputs import map_tensors
from fdfa.engine.probes import Probe
from fdfa.engine.side_by_side import goes_side_by_side, output_and_derivatives
from fdfa.engine.weight_rules import forwards_with_rules
from fdfa.errors import ProbeError

__all__ = ["WeightPasses"]


class WeightPasses:
    """The forward passes of one step, each with moved or dual tensors in the parameters' places.

    Args:
        model: the user's model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        parameters: that learn.
        inputs: that require a gradient, among the arguments.
        find_output: picks the output out of what the model returns.
        probe: how derivatives are taken.
        one_sided: whether a difference starts from the output itself: a pass less.

    Attributes:
        returned: what the model returned in the pass that counts.
        output: the output within it.
    """

    def __init__(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        parameters: Sequence[Tensor],
        inputs: Sequence[Tensor],
        find_output: Callable[[Any], Tensor],
        probe: Probe,
        one_sided: bool = False,
    ) -> None:
        self.returned: Any = None
        self.output: Tensor = torch.empty(0)
        self._model = model
        self._find_output = find_output
        self._probe = probe
        self._one_sided = one_sided
        self._with_rules = Interception(forwards_with_rules(model))
        self._with_padding = Interception(forwards_of_padding(model))
        self._arguments = (args, kwargs)
        self._parameters = [parameter.detach() for parameter in parameters]
        self._inputs = [tensor.detach() for tensor in inputs]
        self._stand_ins = [*map(id, parameters), *map(id, inputs)]

    def derivatives(self, directions: Directions) -> Sequence[Tensor]:
        """Of the output along directions over the parameters, all in one pass where that can be.

        The last pass is the one that counts.

        Args:
            directions: over the parameters.

        Returns:
            d along each, of the output's shape.
        """
        differentiates = self._probe.derivative == "forward-ad"
        if (
            isinstance(directions, StackedDirections)
            and differentiates
            and goes_side_by_side(self._model)
        ):
            self.output, along = output_and_derivatives(
                lambda *weights: self._find_output(self._run([*weights, *self._inputs])),
                self._parameters,
                directions.stacks,
            )
            self.returned = self.output
            return along
        last = len(directions.each) - 1
        return [
            self.derivative(direction, over_inputs=False, counts=number == last)
            for number, direction in enumerate(directions.each)
        ]

    def derivative(self, direction: Direction, *, over_inputs: bool, counts: bool) -> Tensor:
        """Of the output along a direction.

        Args:
            direction: over the parameters, or over the inputs.
            over_inputs: which of both.
            counts: whether this is the pass that steps the model's state and returns.

        Returns:
            d, of the output's shape.

        Raises:
            ProbeError: if the output has no tangent, or the model is too narrow for differences.
        """
        if self._probe.derivative == "finite-difference":
            return self._difference(direction, over_inputs=over_inputs, counts=counts)
        guard = contextlib.nullcontext() if counts else untouched_state(self._model)
        # of the kernels of attention only MATH has a forward derivative
        with guard, sdpa_kernel(SDPBackend.MATH), self._with_rules, fwAD.dual_level():
            moved = self._inputs if over_inputs else self._parameters
            duals = [
                fwAD.make_dual(x, direction.leaf(i))  # type: ignore[no-untyped-call]
                for i, x in enumerate(moved)
            ]
            rest = self._parameters if over_inputs else self._inputs
            returned = self._run([*rest, *duals] if over_inputs else [*duals, *rest])
            dual = self._find_output(returned)
            tangent = fwAD.unpack_dual(dual).tangent  # type: ignore[no-untyped-call]
            if tangent is None:
                raise ProbeError(
                    "the output has no tangent: something before it drops forward derivatives (a"
                    " compiled module, detach(), .data, an operator on integers). Pass the plain"
                    " module, or pass probe='finite-difference'."
                )
            if counts:
                self.returned = map_tensors(returned, self._plain(dual))
            along: Tensor = tangent.detach()
            return along.clone() if tangent._is_view() else along

    def _plain(self, output: Tensor) -> Callable[[Tensor], Tensor]:
        """Takes the tangent off a returned tensor."""

        def plain(tensor: Tensor) -> Tensor:
            primal, tangent = fwAD.unpack_dual(tensor)  # type: ignore[no-untyped-call]
            found: Tensor = tensor if tangent is None else primal.detach()
            if tensor is output:
                self.output = found
            return found

        return plain

    def _difference(self, direction: Direction, *, over_inputs: bool, counts: bool) -> Tensor:
        """``(y(w + s v) - y(w - s v)) / 2 s`` or ``(y(w + s v) - y(w)) / s``, in full precision."""
        moved = self._inputs if over_inputs else self._parameters
        if any(x.dtype.itemsize < 4 for x in moved):
            raise ProbeError(
                "finite differences need float32 or wider, and the model is narrower: they would be"
                " differences of rounding errors. Keep the model in float32 under autocast, or take"
                " the method 'fg-w', which differentiates."
            )
        step = self._probe.difference_step
        if step is None:
            step = 1e-5 if any(x.dtype == torch.float64 for x in moved) else 1e-3
        # w itself is never written to
        there = [direction.scaled(i, step).add_(x) for i, x in enumerate(moved)]
        ahead = self._output_at(there, over_inputs=over_inputs)
        # what autocast has rounded is no end of a difference
        rounded = any(torch.is_autocast_enabled(x.device.type) for x in moved)
        if self._one_sided and counts and not rounded:
            self._count()
            return (ahead - self.output) / step
        for x, place in zip(moved, there, strict=True):
            if self._one_sided:
                place.copy_(x)
            else:
                place.lerp_(x, 2)  # w - s v: no second draw, no more memory
        behind = self._output_at(there, over_inputs=over_inputs)
        if counts:
            self._count()
        return (ahead - behind) / (step if self._one_sided else 2 * step)

    def _count(self) -> None:
        """The pass at w itself, which steps the model's state and returns."""
        self.returned = self._run([*self._parameters, *self._inputs])
        self.output = self._find_output(self.returned)

    def _output_at(self, moved: list[Tensor], *, over_inputs: bool) -> Tensor:
        with untouched_state(self._model), contextlib.ExitStack() as stack:
            for device_type in {"cpu", *(x.device.type for x in moved)}:
                stack.enter_context(torch.autocast(device_type, enabled=False))
            rest = self._parameters if over_inputs else self._inputs
            return self._find_output(self._run([*rest, *moved] if over_inputs else [*moved, *rest]))

    def _run(self, tensors: Sequence[Tensor]) -> Any:
        """The model with these in the places of its parameters and inputs."""
        places = dict(zip(self._stand_ins, tensors, strict=True))
        args, kwargs = map_tensors(self._arguments, lambda x: places.get(id(x), x))
        with self._with_padding, standing_in(self._model, places):
            return self._model(*args, **kwargs)

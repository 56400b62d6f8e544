"""A credit that travels forward, from the first tap to all others, as a tangent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fdfa.engine.activation_watch import ActivationWatch
from fdfa.engine.activations import is_activation
from fdfa.engine.at_taps import AtTaps
from fdfa.engine.forward_derivatives import forward_derivatives
from fdfa.engine.handover import Handover
from fdfa.engine.intercept import Forward
from fdfa.engine.repetition import Repetition
from fdfa.engine.tangents import TangentCarrier
from fdfa.engine.taps import Tap, TapPlan
from fdfa.errors import ProbeError

__all__ = ["relay"]


def relay(repetition: Repetition, plan: TapPlan, first: Tensor) -> list[Tensor]:
    """Send a credit on, in one more pass without a graph, as a tangent from tap to tap.

    Where a tapped tensor is what a known activation function makes of another, the tangent enters
    and is read there, at the pre-activation.

    Args:
        repetition: of the pass.
        plan: its taps.
        first: the credit of the first tap.

    Returns:
        One credit a tap, in order, each of the tap's shape.

    Raises:
        ProbeError: if it does not arrive at a tap, if something lies between a tap and the
            activation before it, or if an operator has no forward derivative.
    """
    model, watch = repetition.model, ActivationWatch(repetition.model)
    carrier, handover = _Carrier(), Handover(repetition.model)
    handover.ruled = {module for module in handover.ruled if not is_activation(module)}
    credits: list[Tensor] = []

    def pass_on(tap: Tap, tensor: Tensor) -> Tensor:
        plain = handover.take()
        made = watch.made(tensor)
        if made is not None and made.then is not None:
            raise ProbeError(
                f"tap '{tap.name}' lies behind the activation {made.name}, with {made.then}"
                f" between: the credit would meet the derivative of {made.name} twice. Cut at the"
                " activation itself: make it a module, as in torch.nn.ReLU(), and leave taps='auto'"
                " or name it with taps=[...]."
            )
        primal, tangent = carrier.split(tensor)
        credit = tangent if made is None else made.tangent
        if not credits:
            watch.primals = False
            credit = first
            tangent = first if made is None else made.derivative(first)
        if credit is None or tangent is None:
            raise ProbeError(
                f"no credit arrives at tap '{tap.name}': nothing that has a forward derivative"
                f" leads to it from the first tap, '{plan.taps[0].name}'. Name taps that"
                " lie one behind the other, with taps=[...]."
            )
        credits.append(credit.reshape(tap.shape))
        tangent = tangent.reshape(tap.shape)
        return carrier.join(primal, tangent if plain else tangent.clone(), plain=plain)

    at_taps = AtTaps(model, plan, pass_on, carrier, handover)
    differentiable = forward_derivatives(
        model, attention=plan.attention, otherwise="Choose taps behind it, with taps=[...],"
    )
    with torch.no_grad(), repetition.again(), at_taps, differentiable, carrier, watch:
        returned = model(*repetition.args, **repetition.kwargs)
        del returned
        carrier.forget()
    return credits


class _Carrier(TangentCarrier):
    """Activations get their tangent themselves, where they are seen."""

    def beside(self, module: nn.Module, travels_plain: Callable[[], bool]) -> Forward | None:
        return None if is_activation(module) else super().beside(module, travels_plain)

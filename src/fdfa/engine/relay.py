"""A credit that travels forward, from the first tap to all others, as a tangent."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from fdfa.engine.activations import is_activation
from fdfa.engine.at_taps import AtTaps
from fdfa.engine.forward_derivatives import forward_derivatives
from fdfa.engine.handover import Handover
from fdfa.engine.repetition import Repetition
from fdfa.engine.tangents import TangentCarrier
from fdfa.engine.taps import Tap, TapPlan
from fdfa.errors import ProbeError

__all__ = ["relay"]


def relay(repetition: Repetition, plan: TapPlan, first: Tensor) -> list[Tensor]:
    """Send a credit on, in one more pass without a graph, as a tangent from tap to tap.

    Where a tap is the output of an activation module, the tangent enters and is read at that
    module's input, the pre-activation, which has the same shape.

    Args:
        repetition: of the pass.
        plan: its taps.
        first: the credit of the first tap.

    Returns:
        One credit a tap, in order, each of the tap's shape.

    Raises:
        ProbeError: if it does not arrive at a tap, or an operator has no forward derivative.
    """
    model, plan = repetition.model, _before_activations(repetition.model, plan)
    carrier, handover = TangentCarrier(), Handover(model)
    credits: list[Tensor] = []

    def pass_on(tap: Tap, tensor: Tensor) -> Tensor:
        plain = handover.take()
        primal, tangent = carrier.split(tensor)
        if not credits:
            tangent = first
        if tangent is None:
            raise ProbeError(
                f"no credit arrives at tap '{tap.name}': nothing that has a forward derivative"
                f" leads to it from the first tap, '{plan.taps[0].name}'. Name taps that"
                " lie one behind the other, with taps=[...]."
            )
        credits.append(tangent)
        return carrier.join(primal, tangent if plain else tangent.clone(), plain=plain)

    at_taps = AtTaps(model, plan, pass_on, carrier, handover)
    differentiable = forward_derivatives(
        model, attention=plan.attention, otherwise="Choose taps behind it, with taps=[...],"
    )
    with torch.no_grad(), repetition.again(), at_taps, differentiable, carrier:
        returned = model(*repetition.args, **repetition.kwargs)
        del returned
        carrier.forget()
    return credits


def _before_activations(model: nn.Module, plan: TapPlan) -> TapPlan:
    modules = dict(model.named_modules())
    taps = tuple(
        dataclasses.replace(tap, kind="input")
        if tap.kind == "output" and is_activation(modules[tap.module])
        else tap
        for tap in plan.taps
    )
    return dataclasses.replace(plan, taps=taps)

"""The probe for what has no forward derivative.

More forward passes, with the taps moved a little.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.at_taps import AtTaps
from fdfa.engine.autocast import without_autocast
from fdfa.engine.intercept import untouched_state
from fdfa.engine.taps import Tap, TapPlan
from fdfa.errors import ProbeError

__all__ = ["central_difference", "moved_outputs"]


def central_difference(
    model: nn.Module,
    plan: TapPlan,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    find_output: Callable[[Any], Tensor],
    noises: Sequence[Tensor],
    perturbed: Sequence[Tap] | None = None,
    step: float | None = None,
    active_only: bool = False,
) -> Tensor:
    """The directional derivative ``(y(h + s p) - y(h - s p)) / 2 s``.

    The model's state keeps no trace of it.

    Called before the pass that learns, both passes meet the random number generators as that pass
    will: dropout masks are the same in all three. Batch-norm statistics step on copies. Autocast is
    off: a difference of rounded outputs would be noise.

    Args:
        model: the user's model.
        plan: where the taps are.
        args: positional arguments of the model.
        kwargs: keyword arguments of the model.
        find_output: picks the output out of what the model returns.
        noises: p_l, one a perturbed tap.
        perturbed: the taps that get them; None for all.
        step: s; None takes 1e-3, or 1e-5 in float64.
        active_only: one pass more finds the units at zero, and sets their noise to zero, in place.

    Returns:
        d, of the output's shape.

    Raises:
        ProbeError: if the model is narrower than float32.
    """
    if step is None:
        double = any(parameter.dtype == torch.float64 for parameter in model.parameters())
        step = 1e-5 if double else 1e-3
    ahead, behind = moved_outputs(
        model,
        plan,
        args,
        kwargs,
        find_output=find_output,
        noises=noises,
        perturbed=perturbed,
        distances=(step, -step),
        active_only=active_only,
    )
    return (ahead - behind) / (2 * step)


def moved_outputs(
    model: nn.Module,
    plan: TapPlan,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    find_output: Callable[[Any], Tensor],
    noises: Sequence[Tensor],
    perturbed: Sequence[Tap] | None = None,
    distances: Sequence[float],
    active_only: bool = False,
) -> list[Tensor]:
    """The outputs ``y(h + s p)``, each by a pass of its own as :func:`central_difference` says.

    Args:
        model: the user's model.
        plan: where the taps are.
        args: positional arguments of the model.
        kwargs: keyword arguments of the model.
        find_output: picks the output out of what the model returns.
        noises: p_l, one a perturbed tap.
        perturbed: the taps that get them; None for all.
        distances: every s.
        active_only: one pass more finds the units at zero, and sets their noise to zero, in place.

    Returns:
        One output a distance.

    Raises:
        ProbeError: if the model is narrower than float32.
    """

    def move(distance: float, tap: Tap, tensor: Tensor) -> Tensor:
        noise = noise_of.get(tap.name)
        return tensor if noise is None else tensor.add(noise.to(tensor.dtype), alpha=distance)

    def silence(tap: Tap, tensor: Tensor) -> Tensor:
        if tap.name in noise_of:
            noise_of[tap.name].mul_(tensor != 0)
        return tensor

    def output(visit: Callable[[Tap, Tensor], Tensor]) -> Tensor:
        devices = [tap.device for tap in plan.taps]
        at_taps = AtTaps(model, plan, visit)
        with torch.no_grad(), untouched_state(model), without_autocast(devices), at_taps:
            return find_output(model(*args, **kwargs))

    if any(p.is_floating_point() and p.dtype.itemsize < 4 for p in model.parameters()):
        raise ProbeError(
            "finite differences need float32 or wider, and the model is narrower: they would be"
            " differences of rounding errors. Keep the model in float32 under autocast, or pass"
            " probe='forward-ad' where the method has it."
        )
    moved = plan.taps if perturbed is None else perturbed
    noise_of = {tap.name: noise for tap, noise in zip(moved, noises, strict=True)}
    if active_only:
        output(silence)
    return [output(functools.partial(move, distance)) for distance in distances]

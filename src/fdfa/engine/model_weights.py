"""The weights of a model by name, those that a parametrisation computes among them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from fdfa.engine.intercept import Interception

__all__ = ["has_weight", "matrices", "read_aside", "weight_value"]


def matrices(model: nn.Module) -> dict[str, Tensor]:
    """Parameters with two or more dimensions, by name; those under a parametrisation aside.

    Args:
        model: any module.

    Returns:
        Dotted name to parameter; a shared one stands once.
    """
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2 and parameter.numel() and "parametrizations" not in name.split(".")
    }


def has_weight(model: nn.Module, name: str) -> bool:
    """Whether there is a weight of this name, a parametrised one included.

    Args:
        model: any module.
        name: dotted.

    Returns:
        True if there is.
    """
    owner, _, tensor = name.rpartition(".")
    try:
        module = model.get_submodule(owner)
    except AttributeError:
        return False
    return isinstance(getattr(module, tensor, None), Tensor)


@torch.no_grad()
def weight_value(model: nn.Module, name: str) -> Tensor:
    """A weight's value, also where it is parametrised.

    Args:
        model: any module.
        name: of the weight, dotted.

    Returns:
        Its value, detached.
    """
    owner, _, tensor = name.rpartition(".")
    value: Tensor = getattr(model.get_submodule(owner), tensor)
    return value.detach()


def read_aside(
    model: nn.Module, *, pause: Callable[[], Any], found: Callable[[str, Tensor], None]
) -> contextlib.AbstractContextManager[None]:
    """While a model runs, every parametrised weight is announced when it has been computed.

    Args:
        model: any module.
        pause: makes a context within which it is computed.
        found: called with the weight's dotted name and value.

    Returns:
        The context within which to run the model.
    """
    forwards: dict[nn.Module, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, ParametrizationList):
            owner, _, tensor = name.rpartition(".")
            dotted = f"{owner.removesuffix('parametrizations')}{tensor}"

            def forward(inner: Any = module.forward, dotted: str = dotted) -> Any:
                with pause():
                    value = inner()
                if isinstance(value, Tensor) and value.dim() >= 2:
                    found(dotted, value)
                return value

            forwards[module] = forward
    return Interception(forwards) if forwards else contextlib.nullcontext()

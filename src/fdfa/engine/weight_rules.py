"""Forward derivatives of modules along directions of weights, where dual numbers fail or waste."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import _WeightNorm

from fdfa.engine.intercept import Forward

__all__ = ["forwards_with_rules"]


def forwards_with_rules(model: nn.Module) -> dict[nn.Module, Forward]:
    """What is to run in the place of some modules' ``forward`` inside a dual level.

    Args:
        model: any module.

    Returns:
        Module to a function with the same result, to the last bit, and its tangent.
    """
    found: dict[nn.Module, Forward] = {}
    for module in model.modules():
        if type(module) is _WeightNorm:
            found[module] = _weight_norm(module)
        elif type(module) in _PRODUCTS and "forward" not in module.__dict__:
            found[module] = _layer(module)
    return found


def _linear(_: nn.Linear, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight, bias)


def _convolution(
    module: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    y: Tensor = module._conv_forward(x, weight, bias)
    return y


_PRODUCTS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Linear: _linear,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
}


def _layer(module: Any) -> Forward:
    """``x W^T + b``; its tangent ``x dW^T + db + dx W^T`` from those products that are not zero."""
    # dual numbers multiply the zero tangent of a first layer's input by the weights (torch 2.13)
    product = _PRODUCTS[type(module)]

    def with_tangent(input: Tensor) -> Tensor:
        x, dx = _split(input)
        W, dW = _split(module.weight)
        b, db = (None, None) if module.bias is None else _split(module.bias)
        y = product(module, x, W, b)
        tangent: Tensor | None = None
        if dW is not None:
            tangent = product(module, x, dW, db)
        elif db is not None:
            tangent = product(module, torch.zeros_like(x), W, db)
        if dx is not None:
            through = product(module, dx, W, None)
            tangent = through if tangent is None else tangent.add_(through)
        return y if tangent is None else fwAD.make_dual(y, tangent)  # type: ignore[no-untyped-call]

    return with_tangent


def _weight_norm(module: _WeightNorm) -> Forward:
    """The module's own output; its tangent from operators that have one."""
    # the fused kernel of weight norm has no forward derivative (torch 2.13)
    forward: Forward = module.forward

    def with_tangent(magnitude: Tensor, direction: Tensor) -> Tensor:
        norm = torch.norm_except_dim(direction, 2, module.dim)
        _, tangent = _split(direction * (magnitude / norm))
        y: Tensor = forward(_split(magnitude)[0], _split(direction)[0])
        return y if tangent is None else fwAD.make_dual(y, tangent)  # type: ignore[no-untyped-call]

    return with_tangent


def _split(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """Primal and tangent."""
    primal, tangent = fwAD.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    return primal, tangent

"""Activation functions that are modules: where a pre-activation and an activation can be met."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fdfa.engine.intercept import Forward

__all__ = ["Nonlinearity", "is_activation", "with_backward_of"]

# component by component, without parameters, the same in every pass
_ELEMENTWISE = frozenset(
    {
        nn.CELU,
        nn.ELU,
        nn.GELU,
        nn.Hardshrink,
        nn.Hardsigmoid,
        nn.Hardswish,
        nn.Hardtanh,
        nn.LeakyReLU,
        nn.LogSigmoid,
        nn.Mish,
        nn.ReLU,
        nn.ReLU6,
        nn.SELU,
        nn.SiLU,
        nn.Sigmoid,
        nn.Softplus,
        nn.Softshrink,
        nn.Softsign,
        nn.Tanh,
        nn.Tanhshrink,
        nn.Threshold,
    }
)


def is_activation(module: nn.Module) -> bool:
    """Whether a module applies a known function to each component of its input.

    Args:
        module: any module; a subclass, or one with a forward of its own, is not known.

    Returns:
        True if so.
    """
    return type(module) in _ELEMENTWISE and "forward" not in module.__dict__


def with_backward_of(module: nn.Module, g: Any) -> Forward:
    """A forward with the module's own result, and g(a) in place of its derivative.

    Args:
        module: an activation.
        g: from the pre-activation a to what the credit is multiplied by.

    Returns:
        What is to stand in for the module's forward.
    """

    def activated(*args: Any, **kwargs: Any) -> Tensor:
        x = args[0] if args else kwargs["input"]
        y: Tensor = Nonlinearity.apply(x, module, g)  # type: ignore[no-untyped-call]
        return y

    return activated


class Nonlinearity(torch.autograd.Function):
    """Any activation forwards, any function of the pre-activation backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Module, g: Any) -> Tensor:
        """The module's result."""
        in_place = getattr(module, "inplace", False)
        ctx.save_for_backward(x.clone() if in_place else x)
        ctx.g = g
        y: Tensor = type(module).forward(module, x)
        if in_place:
            ctx.mark_dirty(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The gradient times g(a)."""
        (a,) = ctx.saved_tensors
        return gradient * ctx.g(a).to(gradient.dtype), None, None

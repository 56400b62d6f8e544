"""All tangents of a step in one forward pass, where ``vmap`` runs the model as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["goes_side_by_side", "output_and_derivatives"]

# What neither keeps a state nor draws random numbers, and calls nothing of the user's.
_PLAIN = frozenset(
    (
        *(nn.Sequential, nn.Identity, nn.Flatten, nn.Unflatten, nn.Linear, nn.Embedding),
        *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.LayerNorm, nn.GroupNorm),
        *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool2d),
        *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.Sigmoid),
    )
)


def goes_side_by_side(model: nn.Module) -> bool:
    """Whether the model's pass is the same to the last bit under ``vmap``.

    Args:
        model: the user's model.

    Returns:
        True if it is made of known layers in sequence, without hooks, and runs without autocast.
    """
    return not any(map(torch.is_autocast_enabled, ("cpu", "cuda"))) and all(
        type(module) in _PLAIN
        and "forward" not in module.__dict__
        and not module._forward_hooks
        and not module._forward_pre_hooks
        for module in model.modules()
    )


def output_and_derivatives(
    output: Callable[..., Tensor], at: Sequence[Tensor], stacks: Sequence[Tensor]
) -> tuple[Tensor, Sequence[Tensor]]:
    """A function's value, and its derivatives along several directions, in one evaluation.

    Args:
        output: a function of tensors.
        at: the tensors.
        stacks: k directions: a tensor (k, ...) for each of them.

    Returns:
        The value, and k derivatives of its shape.

    Example:
        >>> y, d = output_and_derivatives(
        ...     lambda x: x**2, [torch.tensor(3.0)], [torch.tensor([1.0, 2.0])]
        ... )
        >>> y, torch.stack(d)
        (tensor(9.), tensor([ 6., 12.]))
    """

    def along(*direction: Tensor) -> tuple[Tensor, Tensor]:
        value, derivative = torch.func.jvp(output, tuple(at), direction)  # type: ignore[misc]
        return value, derivative

    value, derivatives = torch.vmap(along, out_dims=(None, 0))(*stacks)  # type: ignore[arg-type]
    return value, derivatives.unbind()

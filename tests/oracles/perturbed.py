"""A model with its tapped tensors moved by plain forward hooks: what every tangent must agree with.

Shares no code with ``src``: taps are outputs of named modules, Jacobians come from reverse mode,
differences from two passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def moved_output(
    model: nn.Module, taps: Sequence[str], x: Tensor, moves: Sequence[Tensor], seed: int = 0
) -> Tensor:
    """The output with ``moves[l]`` added to what ``taps[l]`` returns; dropout by ``seed``."""
    handles = [
        model.get_submodule(name).register_forward_hook(lambda m, args, out, move=move: out + move)
        for name, move in zip(taps, moves, strict=True)
    ]
    try:
        torch.default_generator.manual_seed(seed)
        return model(x)
    finally:
        for handle in handles:
            handle.remove()


def tap_shapes(model: nn.Module, taps: Sequence[str], x: Tensor) -> list[torch.Size]:
    """Shapes of the tapped tensors."""
    shapes: dict[str, torch.Size] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda m, args, out, name=name: shapes.__setitem__(name, out.shape)
        )
        for name in taps
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return [shapes[name] for name in taps]


def central_difference(
    model: nn.Module, taps: Sequence[str], x: Tensor, p: Sequence[Tensor], step: float = 1e-5
) -> Tensor:
    """Directional derivative of the output along all of p at once, to the order of ``step**2``."""
    with torch.no_grad():
        ahead = moved_output(model, taps, x, [step * q for q in p])
        behind = moved_output(model, taps, x, [-step * q for q in p])
    return (ahead - behind) / (2 * step)


def explicit_jacobians(model: nn.Module, taps: Sequence[str], x: Tensor) -> list[Tensor]:
    """dy/dh_l of every tap, with all cross-sample terms: shape of y followed by shape of h_l."""
    zeros = tuple(torch.zeros(s, dtype=x.dtype) for s in tap_shapes(model, taps, x))

    def output(*moves: Tensor) -> Tensor:
        return moved_output(model, taps, x, moves)

    return list(torch.autograd.functional.jacobian(output, zeros))


def jacobian_products(jacobians: Sequence[Tensor], p: Sequence[Tensor]) -> Tensor:
    """``sum_l J_l p_l``, the directional derivative."""
    return sum(torch.tensordot(J, q, dims=q.dim()) for J, q in zip(jacobians, p, strict=True))

"""The forward derivatives of the usual modules, exact and much cheaper than dual numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.engine.saved_tensors import saved_tensors_readable

__all__ = ["RULES", "TangentRule"]

aten: Any = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class TangentRule:
    """The forward derivative of one module type.

    Attributes:
        tangent: ``(module, x, y, t) -> tangent of y`` for input x, output y and tangent t of x.
        reads_graph: it reads what autograd saved for the backward pass of y, so x must need a
            gradient.
        reads_input: it reads x, which a module with ``inplace=True`` has overwritten.
    """

    tangent: Callable[[Any, Tensor, Tensor, Tensor], Tensor]
    reads_graph: bool = False
    reads_input: bool = False


def _linear(m: nn.Linear, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return F.linear(t, m.weight)


def _convolution(m: Any, x: Tensor, y: Tensor, t: Tensor) -> Any:
    return m._conv_forward(t, m.weight, None)


def _same_operation(m: Any, x: Tensor, y: Tensor, t: Tensor) -> Any:
    """For modules that are linear maps without a bias."""
    return type(m).forward(m, t)


def _relu(m: Any, x: Tensor, y: Tensor, t: Tensor) -> Any:
    return aten.threshold_backward(t, y, 0)  # y, not x: it is also right where x was overwritten


def _hardtanh(m: nn.Hardtanh, x: Tensor, y: Tensor, t: Tensor) -> Any:
    # y is clipped to the borders, where the slope is 0
    return aten.hardtanh_backward(t, y, m.min_val, m.max_val)


def _dropout(m: Any, x: Tensor, y: Tensor, t: Tensor) -> Any:
    if not m.training or m.p == 0:
        return t
    if type(y.grad_fn).__name__ == "NativeDropoutBackward0":
        mask, scale = y.grad_fn._saved_result1, 1 / (1 - m.p)  # type: ignore[union-attr]
        return t * mask * scale
    return t * y.grad_fn._saved_other  # type: ignore[union-attr]  # the mask, scaled already


def _max_pool(spatial: int) -> Callable[[Any, Tensor, Tensor, Tensor], Tensor]:
    def tangent(m: Any, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        winners: Tensor = y.grad_fn._saved_result1  # type: ignore[union-attr]
        return t.flatten(-spatial).gather(-1, winners.flatten(-spatial)).view_as(winners)

    return tangent


def _batch_norm(m: Any, x: Tensor, y: Tensor, t: Tensor) -> Any:
    if not m.training and m.running_mean is not None:
        scale = (m.running_var + m.eps).rsqrt()
        scale = scale if m.weight is None else scale * m.weight
        return t * scale.view([1, -1] + [1] * (t.dim() - 2)).to(t.dtype)
    # In training mode the Jacobian is symmetric (the weight is constant within a channel and
    # commutes), so the backward kernel applied to the tangent is the forward derivative.
    mean, inverse_deviation = _saved_statistics(y, "BatchNormBackward0")
    if mean is None:
        over = [0, *range(2, x.dim())]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = wide.mean(over)
        inverse_deviation = (wide.var(over, unbiased=False) + m.eps).rsqrt()
        if m.weight is not None:  # the kernel wants them as it would have saved them
            kind = torch.promote_types(x.dtype, m.weight.dtype)
            mean, inverse_deviation = mean.to(kind), inverse_deviation.to(kind)
    args = (t, x, m.weight, None, None, mean, inverse_deviation, True, m.eps, [True, False, False])
    return aten.native_batch_norm_backward(*args)[0]


def _layer_norm(m: nn.LayerNorm, x: Tensor, y: Tensor, t: Tensor) -> Any:
    # Without its weight the normalisation's Jacobian is symmetric; the weight follows.
    mean, inverse_deviation = _saved_statistics(y, "LayerNormBackward0")
    if mean is None:
        _, mean, inverse_deviation = aten.native_layer_norm(
            x, m.normalized_shape, None, None, m.eps
        )
    # Under autocast a weight in float32 has the kernel save these wider than a narrow input.
    wide, mask = mean.dtype, [True, False, False]
    t = aten.native_layer_norm_backward(
        t.to(wide), x.to(wide), m.normalized_shape, mean, inverse_deviation, None, None, mask
    )[0]
    return (t if m.weight is None else t * m.weight).to(y.dtype)


def _group_norm(m: nn.GroupNorm, x: Tensor, y: Tensor, t: Tensor) -> Any:
    n, channels, *rest = x.shape
    size = x[0, 0].numel()
    x, t = x.contiguous(), t.contiguous()
    mean, inverse_deviation = _saved_statistics(y, "GroupNormBackward0")
    if mean is None:
        _, mean, inverse_deviation = aten.native_group_norm(
            x, None, None, n, channels, size, m.num_groups, m.eps
        )
    mask = [True, False, False]
    t = aten.native_group_norm_backward(
        t, x, mean, inverse_deviation, None, n, channels, size, m.num_groups, mask
    )[0]
    return t if m.weight is None else t * m.weight.view([1, -1] + [1] * len(rest))


def _saved_statistics(y: Tensor, kind: str) -> tuple[Tensor | None, Tensor | None]:
    if not saved_tensors_readable() or not type(y.grad_fn).__name__.endswith(kind):
        return None, None
    return y.grad_fn._saved_result1, y.grad_fn._saved_result2  # type: ignore[union-attr]


RULES: dict[type[nn.Module], TangentRule] = {
    nn.ReLU: TangentRule(_relu),
    nn.ReLU6: TangentRule(_hardtanh),
    nn.Hardtanh: TangentRule(_hardtanh),
    nn.Tanh: TangentRule(lambda m, x, y, t: aten.tanh_backward(t, y)),
    nn.Sigmoid: TangentRule(lambda m, x, y, t: aten.sigmoid_backward(t, y)),
    nn.GELU: TangentRule(lambda m, x, y, t: aten.gelu_backward(t, x, approximate=m.approximate)),
    nn.SiLU: TangentRule(lambda m, x, y, t: aten.silu_backward(t, x), reads_input=True),
    nn.LeakyReLU: TangentRule(
        lambda m, x, y, t: aten.leaky_relu_backward(t, x, m.negative_slope, False), reads_input=True
    ),
    nn.Softplus: TangentRule(lambda m, x, y, t: aten.softplus_backward(t, x, m.beta, m.threshold)),
    nn.Linear: TangentRule(_linear),
    **{kind: TangentRule(_convolution) for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d)},
    **{
        kind: TangentRule(_same_operation)
        for kind in (
            nn.AvgPool1d,
            nn.AvgPool2d,
            nn.AvgPool3d,
            nn.AdaptiveAvgPool1d,
            nn.AdaptiveAvgPool2d,
            nn.AdaptiveAvgPool3d,
            nn.ZeroPad2d,
        )
    },
    nn.MaxPool2d: TangentRule(_max_pool(2), reads_graph=True),
    nn.MaxPool3d: TangentRule(_max_pool(3), reads_graph=True),
    nn.Dropout: TangentRule(_dropout, reads_graph=True),
    **{kind: TangentRule(_batch_norm) for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)},
    nn.LayerNorm: TangentRule(_layer_norm),
    nn.GroupNorm: TangentRule(_group_norm),
}

"""Modules of every type that has a tangent rule, and of every branch that a rule takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

__all__ = ["CASES", "TangentCase", "ready"]


@dataclasses.dataclass(frozen=True)
class TangentCase:
    """A module and the shape of an input for it.

    Attributes:
        make: the module, in float32; weights of normalisations are moved off 1 by the test.
        shape: of the input.
        reads_graph: the rule needs an input that requires a gradient, else dual numbers serve.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    reads_graph: bool = False


def case(make: Callable[[], nn.Module], *shape: int, reads_graph: bool = False) -> TangentCase:
    return TangentCase(make, shape, reads_graph)


CASES: dict[str, TangentCase] = {
    "relu": case(nn.ReLU, 5, 7),
    "relu in place": case(lambda: nn.ReLU(inplace=True), 5, 7),
    "relu6": case(nn.ReLU6, 50, 7),
    "relu6 in place": case(lambda: nn.ReLU6(inplace=True), 50, 7),
    "hardtanh": case(lambda: nn.Hardtanh(-0.5, 0.25), 5, 7),
    "hardtanh in place": case(lambda: nn.Hardtanh(-0.5, 0.25, inplace=True), 5, 7),
    "tanh": case(nn.Tanh, 5, 7),
    "sigmoid": case(nn.Sigmoid, 5, 7),
    "gelu": case(nn.GELU, 5, 7),
    "gelu by tanh": case(lambda: nn.GELU("tanh"), 5, 7),
    "silu": case(nn.SiLU, 5, 7),
    "leaky relu": case(lambda: nn.LeakyReLU(0.2), 5, 7),
    "leaky relu turned": case(lambda: nn.LeakyReLU(-0.2), 5, 7),
    "softplus": case(nn.Softplus, 5, 7),
    "softplus past its threshold": case(lambda: nn.Softplus(2.0, 1.0), 5, 7),
    "linear": case(lambda: nn.Linear(7, 4), 5, 7),
    "linear without bias on a sequence": case(lambda: nn.Linear(7, 4, bias=False), 5, 3, 7),
    "conv1d": case(lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), 3, 4, 9),
    "conv1d reflecting": case(
        lambda: nn.Conv1d(4, 6, 3, padding=2, padding_mode="reflect"), 3, 4, 9
    ),
    "conv2d": case(lambda: nn.Conv2d(4, 6, 3), 3, 4, 6, 7),
    "conv2d with every option": case(
        lambda: nn.Conv2d(
            4, 6, 3, stride=2, padding=(2, 1), dilation=2, groups=2, padding_mode="circular"
        ),
        *(3, 4, 9, 8),
    ),
    "conv2d same": case(lambda: nn.Conv2d(4, 6, 3, padding="same", bias=False), 3, 4, 6, 7),
    "conv2d depthwise": case(lambda: nn.Conv2d(4, 8, 3, groups=4), 3, 4, 6, 7),
    "conv3d": case(lambda: nn.Conv3d(2, 3, 2, padding=1), 3, 2, 4, 3, 5),
    "identity": case(nn.Identity, 5, 7),
    "flatten": case(nn.Flatten, 5, 2, 3),
    "unflatten": case(lambda: nn.Unflatten(1, (2, 3)), 5, 6),
    "avg pool 1d": case(lambda: nn.AvgPool1d(3, 2, 1), 3, 4, 9),
    "avg pool 2d": case(
        lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), 3, 4, 6, 7
    ),
    "avg pool 2d with a divisor": case(lambda: nn.AvgPool2d(2, divisor_override=3), 3, 4, 6, 7),
    "avg pool 3d": case(lambda: nn.AvgPool3d(2), 3, 2, 4, 5, 6),
    "adaptive avg pool 1d": case(lambda: nn.AdaptiveAvgPool1d(4), 3, 4, 9),
    "adaptive avg pool 2d": case(lambda: nn.AdaptiveAvgPool2d((None, 3)), 3, 4, 6, 7),
    "adaptive avg pool 3d": case(lambda: nn.AdaptiveAvgPool3d(2), 3, 2, 4, 5, 6),
    "zero pad": case(lambda: nn.ZeroPad2d((1, 2, 0, -1)), 3, 4, 6, 7),
    "max pool 2d": case(lambda: nn.MaxPool2d(2), 3, 4, 6, 7, reads_graph=True),
    "max pool 2d overlapping": case(
        lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), 3, 4, 6, 7, reads_graph=True
    ),
    "max pool 2d dilated": case(
        lambda: nn.MaxPool2d(2, 1, dilation=2), 3, 4, 6, 7, reads_graph=True
    ),
    "max pool 3d": case(lambda: nn.MaxPool3d(2), 3, 2, 4, 5, 6, reads_graph=True),
    "dropout": case(lambda: nn.Dropout(0.3), 5, 7, reads_graph=True),
    "dropout in place": case(lambda: nn.Dropout(0.3, inplace=True), 5, 7, reads_graph=True),
    "dropout of nothing": case(lambda: nn.Dropout(0.0), 5, 7, reads_graph=True),
    "dropout of everything": case(lambda: nn.Dropout(1.0), 5, 7, reads_graph=True),
    "batch norm 1d": case(lambda: nn.BatchNorm1d(7), 5, 7),
    "batch norm 1d on a sequence": case(lambda: nn.BatchNorm1d(4), 5, 4, 3),
    "batch norm 2d": case(lambda: nn.BatchNorm2d(4), 3, 4, 6, 7),
    "batch norm 2d without affine": case(lambda: nn.BatchNorm2d(4, affine=False), 3, 4, 6, 7),
    "batch norm 2d without statistics": case(
        lambda: nn.BatchNorm2d(4, track_running_stats=False), 3, 4, 6, 7
    ),
    "batch norm 3d": case(lambda: nn.BatchNorm3d(2, eps=1e-2), 3, 2, 4, 3, 5),
    "layer norm": case(lambda: nn.LayerNorm(7), 5, 3, 7),
    "layer norm over two dimensions": case(lambda: nn.LayerNorm((3, 7), bias=False), 5, 3, 7),
    "layer norm without affine": case(lambda: nn.LayerNorm(7, elementwise_affine=False), 5, 7),
    "group norm": case(lambda: nn.GroupNorm(2, 4), 3, 4, 6, 7),
    "group norm on vectors": case(lambda: nn.GroupNorm(2, 8), 5, 8),
    "group norm without affine": case(lambda: nn.GroupNorm(4, 4, affine=False), 3, 4, 9),
}


def ready(name: str) -> nn.Module:
    """The module, with what would be 1 or 0 drawn at random so that leaving it out shows."""
    module = CASES[name].make()
    for key, tensor in (*module.named_parameters(), *module.named_buffers()):
        if "Norm" in type(module).__name__ and tensor.is_floating_point():
            with torch.no_grad():
                tensor.uniform_(0.5, 2) if "var" in key else tensor.normal_()
    return module

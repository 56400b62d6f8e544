"""Networks that cost nothing, their parameters counted by hand and by torch, their shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fdfa import models

__all__ = ["build", "convolution", "dense", "order", "outputs_of", "parameters"]


def build(name: str, **options: Any) -> nn.Module:
    """A network of any size, for counting: on the meta device it costs nothing."""
    with torch.device("meta"):
        return getattr(models, name)(**options)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def convolution(inputs: int, outputs: int, side: int) -> int:
    """Parameters of a convolution with a bias, batch norm included."""
    return (inputs * side * side + 1) * outputs + 2 * outputs


def dense(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer with a bias."""
    return (inputs + 1) * outputs


def order(model: nn.Module) -> str:
    """One letter a layer."""
    letters = {nn.Conv2d: "c", nn.BatchNorm2d: "n", nn.BatchNorm1d: "n", nn.ReLU: "r"}
    letters |= {nn.MaxPool2d: "p", nn.AdaptiveAvgPool2d: "a", nn.Flatten: "f", nn.Linear: "l"}
    return "".join(letters[type(layer)] for layer in model.children())


def outputs_of(model: nn.Sequential, image: tuple[int, int, int]) -> dict[str, torch.Size]:
    """The shape of every layer's output for one example."""
    shapes, x = {}, torch.zeros(1, *image, device=next(model.parameters()).device)
    with torch.no_grad():
        for name, layer in model.eval().named_children():
            x = layer(x)
            shapes[name] = x.shape[1:]
    return shapes

"""Reference networks: those of the paper, and a few small ones of other shapes."""

from __future__ import annotations

from fdfa.models.convolution import alexnet, convolutional, lenet
from fdfa.models.dense import fully_connected
from fdfa.models.registry import build, names
from fdfa.models.residual import resnet20

__all__ = [
    "alexnet",
    "build",
    "convolutional",
    "fully_connected",
    "lenet",
    "names",
    "resnet20",
]

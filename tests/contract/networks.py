"""Networks small enough that every method can run through every clause."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["batch", "busy", "convolutional", "dense", "images"]

INPUTS, CLASSES = 5, 3


def dense(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Three hidden layers and nothing random: what exact claims are made on."""
    torch.default_generator.manual_seed(11)
    return nn.Sequential(
        nn.Linear(INPUTS, 8),
        nn.Tanh(),
        nn.Linear(8, 7),
        nn.ReLU(),
        nn.Linear(7, 6),
        nn.Tanh(),
        nn.Linear(6, CLASSES),
    ).to(dtype)


def busy(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Batch norm and dropout: state and randomness of the model's own in every pass."""
    torch.default_generator.manual_seed(12)
    return nn.Sequential(
        nn.Linear(INPUTS, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(8, 7),
        nn.BatchNorm1d(7, momentum=None),  # the cumulative average reads the step counter
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(7, CLASSES),
    ).to(dtype)


def convolutional(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Two convolutions, batch norm, pooling."""
    torch.default_generator.manual_seed(13)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 2 * 2, CLASSES),
    ).to(dtype)


def batch(
    number: int = 0, size: int = 6, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """The inputs and classes of one batch; the same number gives the same batch."""
    generator = torch.Generator().manual_seed(100 + number)
    x = torch.randn(size, INPUTS, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randint(CLASSES, (size,), generator=generator)


def images(
    number: int = 0, size: int = 6, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """The images and classes of one batch for the convolutional network."""
    generator = torch.Generator().manual_seed(200 + number)
    x = torch.randn(size, 2, 4, 4, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randint(CLASSES, (size,), generator=generator)

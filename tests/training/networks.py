"""Networks and examples small enough that a training can be cut at every step."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fdfa.data import Augmentation, Examples, Normalization

__all__ = ["CLASSES", "Apply", "busy", "dense", "pictures", "points"]

INPUTS, CLASSES = 4, 3


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def dense(seed: int = 3, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Two hidden layers and nothing random."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(INPUTS, 8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, CLASSES)
    ).to(dtype)


def busy(seed: int = 3, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """For pictures: convolution, both batch norms, dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(12, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(6, CLASSES),
    ).to(dtype)


@functools.cache
def points(count: int = 24, dtype: torch.dtype = torch.float64) -> Examples:
    """Examples for the dense network."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, INPUTS, generator=generator, dtype=torch.float64)
    return Examples(inputs.to(dtype), _classes(inputs.sum(1)))


@functools.cache
def pictures(count: int = 24, *, augmented: bool = True, brightest: int = 255) -> Examples:
    """Examples for the busy network: bytes, cropped and flipped at random."""
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(256, (count, 2, 4, 4), generator=generator, dtype=torch.uint8)
    labels = _classes(pixels[:, 0, :2].double().mean((1, 2)) - 127)
    augmentation = Augmentation(padding=1, flip=True) if augmented else None
    return Examples(pixels, labels, Normalization(brightest=brightest), augmentation)


def _classes(values: Tensor) -> Tensor:
    """Classes of about equal size."""
    return torch.bucketize(values, torch.quantile(values, torch.tensor([1 / 3, 2 / 3]).double()))

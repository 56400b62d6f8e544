"""Scales of pixels: bounds, and mean and variance against torch's own."""

from __future__ import annotations

import pytest
import torch

import fdfa.data
from fdfa.data.dataset import Dataset, assemble
from fdfa.data.pixel_scales import scaled
from fdfa.data.pixels import Normalization

SCALES = ("symmetric", "unit", "standard")


def _pictures(*shape: int) -> Dataset:
    """Two channels of other means, where there are channels; brighter pictures for the test."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randint(0, 90, (40, *shape), generator=generator, dtype=torch.uint8)
    if len(shape) == 3:
        inputs[:, 1] += 100
    labels = torch.arange(40) % 3
    return assemble(
        "pictures",
        train=(inputs, labels),
        test=(inputs + 60, labels),
        classes=3,
        validation=10,
        normalization=Normalization(),
    )


def test_symmetric_pixels_are_those_that_were_loaded() -> None:
    digits = fdfa.data.load("digits")
    assert scaled(digits, "symmetric") is digits
    inputs, _ = digits.train.first(500)
    assert (inputs.min().item(), inputs.max().item()) == (-1, 1)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_unit_pixels_are_shares_of_the_brightest(part: str) -> None:
    data = scaled(_pictures(2, 3, 3), "unit")
    stored = getattr(data, part).inputs
    inputs, _ = getattr(data, part).first(len(stored))
    torch.testing.assert_close(inputs, stored / 255)


@pytest.mark.parametrize("shape", [(2, 3, 3), (7,)])
def test_standard_pixels_have_mean_0_and_variance_1_in_each_channel(shape: tuple[int, ...]) -> None:
    data = scaled(_pictures(*shape), "standard")
    inputs, _ = data.train.first(len(data.train))
    dims = [0, 2, 3] if len(shape) == 3 else [0, 1]
    mean, variance = inputs.mean(dims), inputs.var(dims, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-5)
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0, atol=1e-5)
    # Test pictures are moved as the training pictures are, not by a mean of their own.
    torch.testing.assert_close(
        data.test.first(40)[0].mean(dims) > 1, torch.ones_like(mean, dtype=torch.bool)
    )

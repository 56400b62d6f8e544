"""Between which numbers the pixels of a data set come to lie."""

from __future__ import annotations

import dataclasses
import math
from typing import Final, Literal

import torch
from torch import Tensor

from fdfa.data.dataset import Dataset
from fdfa.data.examples import Examples
from fdfa.data.pixels import Normalization
from fdfa.errors import ConfigError, unknown_name

__all__ = ["PIXEL_SCALES", "PixelScale", "scaled"]

PixelScale = Literal["symmetric", "unit", "standard"]
PIXEL_SCALES: Final = ("symmetric", "unit", "standard")


def scaled(data: Dataset, pixels: PixelScale) -> Dataset:
    """The same data set with its pixels on another scale.

    Args:
        data: as it was loaded.
        pixels: ``"symmetric"``, black is -1 and the brightest pixel 1, as data sets are loaded;
            ``"unit"``, 0 and 1; ``"standard"``, mean 0 and variance 1 over the training pictures,
            in each channel.

    Returns:
        A data set that shares this one's tensors.

    Raises:
        ConfigError: if there is no such scale, the inputs are no pixels, or their mean is asked for
            and they are not in memory or all the same.

    Example:
        >>> import fdfa.data
        >>> digits = scaled(fdfa.data.load("digits"), "unit")
        >>> inputs, _ = digits.train.first(100)
        >>> inputs.min().item(), inputs.max().item()
        (0.0, 1.0)
    """
    if pixels not in PIXEL_SCALES:
        raise ConfigError(unknown_name("pixels", str(pixels), PIXEL_SCALES))
    if pixels == "symmetric":
        return data
    stored = data.train.normalization
    if stored is None:
        raise ConfigError(
            f"pixels={pixels!r}: the inputs of data set {data.name!r} are numbers, not pixels, and "
            "stay as they are. Leave it out."
        )
    if pixels == "unit":
        normalization = dataclasses.replace(stored, mean=0.0, deviation=1.0)
    else:
        normalization = _standard(data, stored.brightest)
    parts = ("train", "validation", "test")
    changed = {
        part: dataclasses.replace(getattr(data, part), normalization=normalization)
        for part in parts
    }
    return dataclasses.replace(data, **changed)


def _standard(data: Dataset, brightest: float) -> Normalization:
    """By mean and deviation of each channel of the training pictures."""
    if not isinstance(data.train, Examples):
        raise ConfigError(
            f"pixels='standard': data set {data.name!r} is read picture by picture, and its mean "
            "is not known before. Take pixels='unit', or leave it out."
        )
    inputs = data.train.inputs
    channels = inputs.unbind(1) if inputs.dim() == 4 else (inputs,)
    means, deviations = zip(*(_mean_and_deviation(channel) for channel in channels), strict=True)
    if not all(deviations):
        raise ConfigError(
            f"pixels='standard': all pixels of a channel of data set {data.name!r} are the same. "
            "Take pixels='unit', or leave it out."
        )
    mean = tuple(mean / brightest for mean in means)
    deviation = tuple(deviation / brightest for deviation in deviations)
    if inputs.dim() != 4:  # no channels: one number for all
        return Normalization(brightest, *mean, *deviation)
    return Normalization(brightest, mean, deviation)


def _mean_and_deviation(pixels: Tensor) -> tuple[float, float]:
    """Exactly, from how often each of the 256 values occurs: no copy as floats is made."""
    counts = torch.bincount(pixels.flatten(), minlength=256).double()
    values = torch.arange(len(counts), dtype=torch.float64)
    mean = float(counts @ values / counts.sum())
    return mean, math.sqrt(float(counts @ (values - mean) ** 2 / counts.sum()))

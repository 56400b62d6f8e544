"""What happens to a batch of pictures before a network sees it, as tensor operations."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fdfa.errors import ConfigError

__all__ = ["Augmentation", "Normalization"]


@dataclasses.dataclass(frozen=True)
class Normalization:
    """Turns pixels into inputs: ``(x / brightest - mean) / deviation``.

    The defaults are the paper's, which maps 0 to -1 and the brightest pixel to 1 (Bacho & Chu,
    arXiv:2212.07282).

    Args:
        brightest: the pixel value that stands for 1.
        mean: one value, or one a channel.
        deviation: one value, or one a channel.

    Raises:
        ConfigError: if a divisor is not positive, or a number is not finite.

    Example:
        >>> Normalization(brightest=16)(torch.tensor([[[[0, 8, 16]]]], dtype=torch.uint8))
        tensor([[[[-1.,  0.,  1.]]]])
    """

    brightest: float = 255
    mean: float | tuple[float, ...] = 0.5
    deviation: float | tuple[float, ...] = 0.5

    def __post_init__(self) -> None:
        """Check the numbers."""
        means = self.mean if isinstance(self.mean, tuple) else (self.mean,)
        deviations = self.deviation if isinstance(self.deviation, tuple) else (self.deviation,)
        if not all(0 < divisor < math.inf for divisor in (self.brightest, *deviations)):
            raise ConfigError(
                f"brightest={self.brightest!r}, deviation={self.deviation!r}: inputs are divided "
                "by these. Give positive numbers."
            )
        if not all(map(math.isfinite, means)):
            raise ConfigError(f"mean={self.mean!r} is not possible. Give finite numbers.")

    def __call__(self, images: Tensor) -> Tensor:
        """The inputs.

        Args:
            images: (N, C, H, W), any dtype; where one number is for all channels, of any shape.

        Returns:
            float32 of the same shape.

        Raises:
            ConfigError: if there are not as many means or deviations as channels.
        """
        # In place: for 60,000 pictures each temporary would be another 188 MB.
        inputs = images.to(torch.float32, copy=True).div_(self.brightest)
        return inputs.sub_(_a_channel(self.mean, inputs)).div_(_a_channel(self.deviation, inputs))


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Changes every picture of a batch at random.

    Args:
        padding: black pixels put round each picture, out of which one of its own size is cut.
        flip: whether left and right change places in half of the pictures.

    Raises:
        ConfigError: if the padding is negative.

    Example:
        >>> pictures = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> always = Augmentation(flip=True)
        >>> flipped = [always(pictures, torch.Generator().manual_seed(s)).tolist() for s in (0, 1)]
        >>> flipped
        [[[[[1.0, 0.0], [3.0, 2.0]]]], [[[[0.0, 1.0], [2.0, 3.0]]]]]
    """

    padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        """Check the padding."""
        if isinstance(self.padding, bool) or not isinstance(self.padding, int) or self.padding < 0:
            raise ConfigError(
                f"padding={self.padding!r} is not possible. Give a whole number of pixels from 0."
            )

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The changed pictures.

        Args:
            images: (N, C, H, W), any dtype.
            generator: on the CPU, whatever the device of the pictures; None takes torch's own.

        Returns:
            The same shape and dtype.

        Raises:
            ConfigError: if these are no pictures (N, C, H, W).
        """
        if images.dim() != 4:
            raise ConfigError(
                f"only pictures (N, C, H, W) can be cropped and flipped, not inputs of shape "
                f"{tuple(images.shape)}. Choose no augmentation, or reshape the inputs."
            )
        if self.padding:
            images = self._cropped(images, generator)
        if self.flip:
            chosen = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(
                chosen.to(images.device)[:, None, None, None], images.flip(3), images
            )
        return images

    def _cropped(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        count, _, height, width = images.shape
        padded = F.pad(images, [self.padding] * 4)
        corners = torch.randint(2 * self.padding + 1, (2, count), generator=generator)
        top, left = corners.to(images.device)
        rows = top[:, None] + torch.arange(height, device=images.device)  # (N, H)
        columns = left[:, None] + torch.arange(width, device=images.device)  # (N, W)
        picture = torch.arange(count, device=images.device)[:, None, None]
        cut = padded[picture, :, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
        return cut.permute(0, 3, 1, 2).contiguous()


def _a_channel(value: float | tuple[float, ...], images: Tensor) -> float | Tensor:
    """A number, or one a channel that spreads over (N, C, H, W)."""
    if not isinstance(value, tuple):
        return value
    if images.dim() != 4 or images.shape[1] != len(value):
        raise ConfigError(
            f"normalization by {value!r}, one a channel, does not fit inputs of shape "
            f"{tuple(images.shape)}. Give one number, or {len(value)} channels (N, C, H, W)."
        )
    return torch.tensor(value, dtype=images.dtype, device=images.device)[:, None, None]

"""Feedback maps that places share which lie a multiple of the stride apart.

A convolutional network treats a picture and the same picture shifted by the product of its strides
alike, but for the borders, if it pools its last pictures. (A linear layer on flattened pictures has
other weights for every place.) So the mean Jacobian of the output by an activation changes less
from one place to another that lies a multiple of the strides behind it away than from one place to
its neighbour. A map that is shared among the former has fewer entries, so each is learned from
more, with less noise.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping

from torch import Tensor

from fdfa.engine.taps import TapPlan
from fdfa.errors import ConfigError

__all__ = ["SharedShifts", "check_shift_grid", "shared_shifts"]


@dataclasses.dataclass(frozen=True)
class SharedShifts:
    """Which places of an activation (N, C, H, W) share the entries of a map.

    Those that differ by a multiple of the stride, within one cell of a grid over the picture.

    Attributes:
        channels: C.
        grid: cells along height and width.
        repeats: places along height and width, in one cell, that share an entry.
        stride: of all that lies behind.

    Example:
        >>> SharedShifts(channels=16, grid=(2, 2), repeats=(4, 4), stride=4).units
        1024
    """

    channels: int
    grid: tuple[int, int]
    repeats: tuple[int, int]
    stride: int

    @property
    def units(self) -> int:
        """Entries of a row of the map, instead of C H W."""
        return self.channels * math.prod(self.grid) * self.stride**2

    @property
    def sharing(self) -> int:
        """Places that share an entry."""
        return math.prod(self.repeats)

    def spread(self, shared: Tensor) -> Tensor:
        """Every entry at all of its places.

        Args:
            shared: (M, units).

        Returns:
            (M, C H W).
        """
        (rows, columns), (high, wide) = self.grid, self.repeats
        s, c = self.stride, self.channels
        placed = shared.view(-1, c, rows, 1, s, columns, 1, s)
        placed = placed.expand(-1, c, rows, high, s, columns, wide, s)
        return placed.reshape(len(shared), -1).contiguous()  # of one channel it would be a view

    def gather(self, spread: Tensor) -> Tensor:
        """What was spread.

        Args:
            spread: (M, C H W).

        Returns:
            (M, units).
        """
        (rows, columns), (high, wide) = self.grid, self.repeats
        s, c = self.stride, self.channels
        placed = spread.view(-1, c, rows, high, s, columns, wide, s)
        return placed[:, :, :, 0, :, :, 0].reshape(len(spread), -1)


@functools.lru_cache(maxsize=64)
def shared_shifts(plan: TapPlan, grid: int) -> Mapping[str, SharedShifts]:
    """For every tap that shows pictures, which places share.

    A tap of four dimensions is taken for (N, C, H, W), whatever it is. The stride behind a tap is
    taken from the sizes: the height of its picture over that of the smallest one.

    Args:
        plan: with the taps.
        grid: cells along each side of the picture, at most; one shares all over the picture.

    Returns:
        By name; taps are left out whose sizes are no multiples, or where nothing would be shared.

    Example:
        >>> import torch
        >>> from fdfa.engine.taps import plan_taps
        >>> layers = [torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU()]
        >>> layers += [torch.nn.Conv2d(4, 8, 3, stride=2, padding=1), torch.nn.ReLU()]
        >>> layers += [torch.nn.Conv2d(8, 2, 3, padding=1), torch.nn.Flatten(2)]
        >>> plan = plan_taps(torch.nn.Sequential(*layers), (torch.ones(1, 3, 16, 16),), {})
        >>> {name: (found.stride, found.units) for name, found in shared_shifts(plan, 2).items()}
        {'1': (2, 64), '3': (1, 32)}
    """
    pictures = [tap for tap in plan.taps if len(tap.shape) == 4]
    smallest = min((min(tap.shape[2:]) for tap in pictures), default=1)
    found = {}
    for tap in pictures:
        _, channels, height, width = tap.shape
        stride = min(height, width) // smallest
        if height % stride or width % stride:
            continue
        cells = [math.gcd(side // stride, grid) for side in (height, width)]
        repeats = [side // stride // n for side, n in zip((height, width), cells, strict=True)]
        if math.prod(repeats) > 1:
            found[tap.name] = SharedShifts(
                channels, (cells[0], cells[1]), (repeats[0], repeats[1]), stride
            )
    return found


def check_shift_grid(
    shift_grid: object, *, credit: str, average_over: str, sample_dims: int
) -> None:
    """Refuse a grid that is none, or that does not go with other options.

    Args:
        shift_grid: as the user gave it; None for no sharing.
        credit: of the learner.
        average_over: of the learner.
        sample_dims: of the learner.

    Raises:
        ConfigError: if it is no whole number from 1 up, or each unit has to be told apart.
    """
    if shift_grid is None:
        return
    if isinstance(shift_grid, bool) or not isinstance(shift_grid, int) or shift_grid < 1:
        raise ConfigError(
            f"shift_grid={shift_grid!r}: in how many cells along a side of the picture do places"
            " share a map? Pass a whole number from 1 up, or None for a map without sharing."
        )
    others = (("credit", credit, "plain"), ("average_over", average_over, "all"))
    for name, value, plain in (*others, ("sample_dims", sample_dims, 1)):
        if value != plain:
            raise ConfigError(
                f"shift_grid={shift_grid} and {name}={value!r} do not go together: places that"
                f" share a map are perturbed alike. Pass shift_grid=None, or {name}={plain!r}."
            )

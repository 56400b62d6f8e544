"""Checks of the sizes and choices that a reference network is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fdfa.errors import ConfigError, unknown_name

__all__ = ["check_at_least", "check_choice", "check_divides", "check_image"]


def check_at_least(least: int, /, **sizes: object) -> None:
    """Refuses sizes that are not whole numbers or too small.

    Args:
        least: the smallest value allowed.
        **sizes: the values, by the names that the user knows.

    Raises:
        ConfigError: naming the first bad one.

    Example:
        >>> check_at_least(1, width=800, classes=10)
    """
    for name, size in sizes.items():
        # bool is an int to Python, but `depth=True` is a mistake.
        if not isinstance(size, int) or isinstance(size, bool) or size < least:
            raise ConfigError(
                f"{name}={size!r} is not a possible size. Give a whole number of at least {least}."
            )


def check_choice(valid: Sequence[object], /, **choices: object) -> None:
    """Refuses what is not among the values that an option may have.

    Args:
        valid: the values allowed.
        **choices: the values, by the names that the user knows.

    Raises:
        ConfigError: naming the first bad one, with those that would have been right.

    Example:
        >>> check_choice(("code", "announced"), form="code")
    """
    for name, choice in choices.items():
        if choice not in valid:
            raise ConfigError(unknown_name(name, str(choice), [str(value) for value in valid]))


def check_divides(name: str, parts: object, *, wholes: Mapping[str, int]) -> None:
    """Refuses a number of parts, or a size of one, that leaves a remainder.

    Args:
        name: of the option, as the user knows it.
        parts: its value.
        wholes: what it has to divide, by the names that the user knows.

    Raises:
        ConfigError: with the values that would have been right.

    Example:
        >>> check_divides("heads", 4, wholes={"dim": 64})
    """
    check_at_least(1, **{name: parts})
    common = math.gcd(*wholes.values())
    if not isinstance(parts, int) or common % parts:
        equals = " and ".join(f"{whole}={size}" for whole, size in wholes.items())
        fitting = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
        raise ConfigError(
            f"{name}={parts!r} does not divide {equals}: a remainder would be left out. "
            f"Give one of {fitting}."
        )


def check_image(image: tuple[int, int, int], *, network: str, smallest: int) -> None:
    """Refuses an image shape that is malformed, or too small for the network's layers.

    Args:
        image: (channels, height, width).
        network: the network's name, for the text.
        smallest: the smallest height and width.

    Raises:
        ConfigError: if the shape is not three positive whole numbers, or too small.

    Example:
        >>> check_image((1, 28, 28), network="lenet", smallest=12)
    """
    if len(image) != 3:
        raise ConfigError(f"image={image!r} is not an image shape. Give (channels, height, width).")
    channels, height, width = image
    check_at_least(1, channels=channels, height=height, width=width)
    if min(height, width) < smallest:
        raise ConfigError(
            f"image={image!r} is too small for {network!r}, whose layers shrink it on and on. "
            f"Give at least {smallest} x {smallest} pixels."
        )

"""Checks of the sizes that a reference network is asked for."""

from __future__ import annotations

from fdfa.errors import ConfigError

__all__ = ["check_at_least", "check_image"]


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


def check_image(image: tuple[int, int, int], *, network: str, smallest: int) -> None:
    """Refuses an image shape that is malformed, or too small for the network's pooling.

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
            f"image={image!r} is too small for {network!r}: after its convolutions and pooling "
            f"nothing would be left. Give at least {smallest} x {smallest} pixels."
        )

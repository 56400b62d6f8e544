"""Whole numbers of a configuration, and how far they may go."""

from __future__ import annotations

from fdfa.errors import ConfigError

__all__ = ["MOST_SEED", "check_whole"]

MOST_SEED = 2**62  # what is derived from it still fits into 64 bits


def check_whole(
    name: str, value: object, *, least: int, most: int | None = None, optional: bool = False
) -> None:
    """Refuse what is no whole number, too small or too large.

    Args:
        name: of the value, as the user knows it.
        value: what was given.
        least: the smallest that is allowed.
        most: the largest; None for no limit.
        optional: whether None will do.

    Raises:
        ConfigError: naming it.
    """
    if value is None and optional:
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (isinstance(value, int) and whole and least <= value <= (most or value)):
        # A panel would break so long a number at its commas.
        shown = f"2**{most.bit_length() - 1}" if most == MOST_SEED else f"{most:,}" if most else ""
        limit = f" to {shown}" if shown else ""
        raise ConfigError(
            f"{name}={value!r} is not possible. Give a whole number from {least}{limit}."
        )

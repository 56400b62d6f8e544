"""Tables that fit into 80 columns, and how numbers are written in them."""

from __future__ import annotations

from rich import box
from rich.table import Table

__all__ = ["duration", "plain_table", "plural_s", "size", "yes"]


def plain_table(*columns: str, left: int = 1) -> Table:
    """A plain table whose first columns are texts and the others numbers.

    Args:
        *columns: their heads.
        left: how many are texts.

    Returns:
        A table without rows.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=True)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    return table


def yes(value: bool) -> str:
    """``yes`` or ``no``."""
    return "yes" if value else "no"


def size(count: float) -> str:
    """A number of bytes in the unit that reads best.

    Args:
        count: of bytes.

    Returns:
        Number and unit.

    Example:
        >>> size(1536)
        '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def duration(seconds: float) -> str:
    """A time in milliseconds, or in seconds if it is long.

    Args:
        seconds: of it.

    Returns:
        Number and unit.

    Example:
        >>> duration(0.0035)
        '3.50 ms'
    """
    return f"{1e3 * seconds:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def plural_s(count: int) -> str:
    """What a regular noun ends in for this count."""
    return "" if count == 1 else "s"

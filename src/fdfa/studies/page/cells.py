"""Tables of the page as values, and their entries as texts with what they are sorted by."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from fdfa.studies.results import Spread

__all__ = ["Cell", "Table", "missing", "number_cell", "spread_cell"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One entry.

    Attributes:
        text: what is read.
        value: by which a column is sorted, unrounded; None to sort by the text.
        missing: whether there is nothing: it is sorted last.
    """

    text: str
    value: float | None = None
    missing: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under heads; the first entry of a row names it.

    Attributes:
        key: a short word, for links.
        caption: what it shows.
        heads: of the columns.
        rows: each as long as the heads.
    """

    key: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def spread_cell(values: Sequence[float | None], digits: int, *, scale: float = 1.0) -> Cell:
    """A mean with its spread, if there is one.

    Args:
        values: one a run; None of those that have none.
        digits: behind the point.
        scale: of the unit.

    Returns:
        The cell; sorted by the mean.

    Example:
        >>> spread_cell([0.5, 0.7], 1, scale=100).text, spread_cell([0.5], 1).text
        ('60.0 ± 14.1', '0.5')
    """
    known = [value for value in values if value is not None]
    if not known:
        return missing()
    if not all(map(math.isfinite, known)):
        return Cell("not a number", missing=True)
    spread = Spread.of([scale * value for value in known])
    text = f"{spread.mean:.{digits}f}"
    if spread.deviation is not None:
        text += f" ± {spread.deviation:.{digits}f}"
    return Cell(text, spread.mean)


def number_cell(value: float | None, digits: int, *, scale: float = 1.0) -> Cell:
    """A number that one run has or has not.

    Args:
        value: the number.
        digits: behind the point.
        scale: of the unit.

    Returns:
        The cell.
    """
    if value is None:
        return missing()
    if not math.isfinite(value):
        return Cell("not a number", missing=True)
    return Cell(f"{scale * value:.{digits}f}", scale * value)


def missing() -> Cell:
    """Where there is nothing.

    Returns:
        The cell.
    """
    return Cell("-", missing=True)

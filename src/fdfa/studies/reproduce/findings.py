"""What a reproduction measured, beside what was expected of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fdfa.studies.json_values import plain
from fdfa.studies.run_folder import RunFolder

__all__ = ["Expectation", "Findings", "Grid", "Units", "number"]


@dataclasses.dataclass(frozen=True)
class Expectation:
    """A number, and where it should lie.

    Attributes:
        what: it is.
        least: that it may be.
        most: that it may be.
        found: it.
        judged: whether the settings are those that the limits hold for.
        why: the limits are these.
    """

    what: str
    least: float
    most: float
    found: float
    judged: bool
    why: str

    @property
    def met(self) -> bool | None:
        """Whether it lies there; None if that is not judged.

        Example:
            >>> Expectation("pi", 3.0, 3.2, 3.14, judged=True, why="known").met
            True
        """
        if not self.judged:
            return None
        return math.isfinite(self.found) and self.least <= self.found <= self.most

    @property
    def limits(self) -> str:
        """Where it should lie, for the reader.

        Example:
            >>> Expectation("pi", 3.0, math.inf, 3.14, judged=True, why="known").limits
            '3 or more'
        """
        if math.isnan(self.most):
            return "-"
        if math.isinf(self.most):
            return f"{number(self.least)} or more"
        if math.isinf(self.least):
            return f"{number(self.most)} or less"
        return f"{number(self.least)} to {number(self.most)}"

    @property
    def verdict(self) -> str:
        """Whether it lies there, for the reader."""
        return {True: "pass", False: "FAIL", None: "-"}[self.met]


def number(value: float) -> str:
    """A number for the reader.

    Args:
        value: of any size.

    Returns:
        Four digits of it.

    Example:
        >>> number(3.14159)
        '3.142'
    """
    return f"{value:.4g}"


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table of measured numbers.

    Attributes:
        title: above it.
        heads: of its columns; the first is of the rows' names.
        rows: name and numbers of each.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Findings:
    """What came of a reproduction.

    Attributes:
        name: of the reproduction.
        settings: with which it was made.
        expectations: each with what was found.
        units: everything that was measured, by name.
        grids: the same in short, to be read.
        caption: how it came to be: command, versions, date.
        differences: from the published set-up.
        files: that were written.
        notes: what a reader should know besides.
    """

    name: str
    settings: Any
    expectations: tuple[Expectation, ...]
    units: Mapping[str, Any]
    grids: tuple[Grid, ...]
    caption: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Expectations that are not met."""
        return sum(expectation.met is False for expectation in self.expectations)

    @property
    def failed_runs(self) -> int:
        """Trainings of a table that did not go to their end."""
        return sum(
            isinstance(u, dict) and u.get("failure") is not None for u in self.units.values()
        )

    def report(self) -> dict[str, Any]:
        """The content of ``results.json``.

        Returns:
            Plain values that JSON can hold.
        """
        content: dict[str, Any] = plain(
            {
                "name": self.name,
                "settings": self.settings,
                "caption": self.caption,
                "expectations": [
                    {**dataclasses.asdict(expectation), "met": expectation.met}
                    for expectation in self.expectations
                ],
                "units": self.units,
            }
        )
        return content


class Units:
    """The parts of a reproduction; one that was measured before is not measured again.

    Args:
        folder: keeps them in ``units.json``; None keeps nothing.
        told: is called with a line about each.
    """

    def __init__(self, folder: RunFolder | None, told: Callable[[str], None]) -> None:
        self.folder = folder
        self.told = told
        self.found: dict[str, Any] = {}
        if folder is not None:
            self.found |= folder.read_json("units.json") or {}

    def get(self, name: str, measure: Callable[[], Any], words: Callable[[Any], str]) -> Any:
        """What was measured of a part, now or before.

        Args:
            name: of the part.
            measure: makes the measurement, as plain values that JSON can hold.
            words: for what was measured.

        Returns:
            The measurement.

        Example:
            >>> units = Units(None, print)
            >>> units.get("a part", lambda: 3, str)
            a part: 3
            3
        """
        if name not in self.found:
            self.found[name] = measure()
            if self.folder is not None:
                self.folder.write_json("units.json", self.found)
        self.told(f"{name}: {words(self.found[name])}")
        return self.found[name]

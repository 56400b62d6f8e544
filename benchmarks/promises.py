"""One figure that the project promises, with its bound."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Promise:
    """A measured value between two bounds.

    Attributes:
        what: the figure.
        value: as measured.
        least: lower bound, None for none.
        most: upper bound, None for none.
        aim: what we would like, beyond the bound.
    """

    what: str
    value: float
    least: float | None = None
    most: float | None = None
    aim: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the value lies within the bounds."""
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    def line(self) -> str:
        """One line of a report."""
        bounds = [f">= {self.least:g}"] if self.least is not None else []
        bounds += [f"<= {self.most:g}"] if self.most is not None else []
        aim = f" (aim {self.aim:g})" if self.aim is not None else ""
        verdict = ("ok" if self.kept else "MISSED") if bounds else ""
        return f"  {self.what:58s} {self.value:8.3f}  {' and '.join(bounds)}{aim}  {verdict}"

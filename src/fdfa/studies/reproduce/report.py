"""What the command line shows of reproductions."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.text import Text

from fdfa.studies.reproduce import Reproduction
from fdfa.studies.reproduce.findings import Findings, number
from fdfa.studies.tables import plain_table

__all__ = ["findings_report", "reproductions_report"]


def findings_report(found: Findings) -> RenderableType:
    """Each number beside what was expected of it.

    Args:
        found: by a reproduction.

    Returns:
        For a rich console.
    """
    table = plain_table("number", "expected", "found", "verdict")
    for expectation in found.expectations:
        table.add_row(
            expectation.what,
            expectation.limits,
            number(expectation.found),
            expectation.verdict,
        )
    reasons = dict.fromkeys(expectation.why for expectation in found.expectations)
    legend = f"Where the limits come from: {'; '.join(reasons)}."
    if any(expectation.met is None for expectation in found.expectations):
        legend += " -: not judged, since the settings are not those that the limits hold for."
    judged = [expectation for expectation in found.expectations if expectation.met is not None]
    met = len(judged) - found.failed
    parts: list[RenderableType] = []
    for grid in found.grids:
        numbers = plain_table(*grid.heads)
        for row in grid.rows:
            numbers.add_row(*row)
        parts += [Text(grid.title, style="bold"), numbers]
    if found.expectations:
        parts += [
            table,
            Text(legend, style="dim"),
            Text(f"{found.name}: {met} of {len(judged)} expectations met.", style="bold"),
        ]
    return Group(*parts, *(Text(note) for note in found.notes))


def reproductions_report(known: Iterable[Reproduction]) -> RenderableType:
    """Which reproductions there are.

    Args:
        known: all of them.

    Returns:
        For a rich console.
    """
    table = plain_table("reproduction", "what is made again", "source", left=3)
    for reproduction in known:
        table.add_row(reproduction.name, reproduction.summary, reproduction.source)
    return table

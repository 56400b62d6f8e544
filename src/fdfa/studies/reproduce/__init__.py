"""Published results, made again: one module each, one line here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fdfa.errors import ConfigError, unknown_name
from fdfa.studies.environment import surroundings
from fdfa.studies.json_values import plain
from fdfa.studies.reproduce import (
    low_dimensional_feedback,
    multi_tangent,
    multi_tangent_findings,
    variance,
)
from fdfa.studies.reproduce.findings import Expectation, Findings, Grid, Units
from fdfa.studies.reproduce.pictures import Panel, write_panels
from fdfa.studies.reproduce.variance.settings import VarianceSettings
from fdfa.studies.run_folder import RunFolder

__all__ = ["Reproduction", "reproduce", "reproductions"]


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """What there is to know of a reproduction before it is made.

    Attributes:
        name: for :func:`reproduce` and the command line.
        summary: one line.
        source: the paper.
        settings: the class of its settings; its defaults are those of the paper.
        measure: makes all measurements.
        expectations: compares them with what was expected.
        grids: puts them into tables.
        panels: shows them.
    """

    name: str
    summary: str
    source: str
    settings: type
    measure: Callable[[Any, Units], None]
    expectations: Callable[[Any, Mapping[str, Any]], Sequence[Expectation]]
    grids: Callable[[Any, Mapping[str, Any]], Sequence[Grid]]
    panels: Callable[[Any, Mapping[str, Any]], Sequence[Panel]]


_REGISTRY = (
    Reproduction(
        "multi-tangent",
        "forward gradients along several tangents, on test functions and digits",
        "Fluegel et al. 2025, arXiv:2410.17764",
        multi_tangent.MultiTangentSettings,
        multi_tangent.measure,
        multi_tangent_findings.expectations,
        multi_tangent_findings.grids,
        multi_tangent_findings.panels,
    ),
    Reproduction(
        "low-dimensional-feedback",
        "how few dimensions the error needs on its way back",
        "Hanut & Kadmon 2025, arXiv:2502.20580",
        low_dimensional_feedback.LowDimensionalFeedbackSettings,
        low_dimensional_feedback.measure,
        low_dimensional_feedback.expectations,
        low_dimensional_feedback.grids,
        low_dimensional_feedback.panels,
    ),
    Reproduction(
        "variance",
        "the variance of gradient estimates by width and depth, beside exact theory",
        "Bacho & Chu 2024, arXiv:2212.07282",
        VarianceSettings,
        variance.measure,
        variance.expectations,
        variance.grids,
        variance.panels,
    ),
)


def reproductions() -> dict[str, Reproduction]:
    """Every reproduction by name.

    Returns:
        Name to description.

    Example:
        >>> reproductions()["multi-tangent"].source
        'Fluegel et al. 2025, arXiv:2410.17764'
    """
    return {reproduction.name: reproduction for reproduction in _REGISTRY}


def reproduce(
    name: str,
    settings: Any = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    told: Callable[[str], None] | None = None,
) -> Findings:
    """Make a published result again, and compare it with what was expected.

    With a folder, each part that is measured is kept at once: the same call goes on where an
    earlier one was interrupted.

    Args:
        name: of the reproduction.
        settings: of the class that it names; None for those of the paper.
        out: folder for ``config.json``, ``units.json``, ``results.json`` and a picture.
        overwrite: whether the files of a run with other settings in it may be replaced.
        told: is called with a line about each part.

    Returns:
        What was found.

    Raises:
        ConfigError: if there is no such reproduction, the settings are of another, or ``out`` holds
            something else.

    Example:
        >>> from fdfa.studies.reproduce.multi_tangent import MultiTangentSettings
        >>> quick = MultiTangentSettings(parts=("sphere",), steps=5, seeds=1)
        >>> reproduce("multi-tangent", quick).failed
        0
    """
    known = reproductions()
    if name not in known:
        raise ConfigError(unknown_name("reproduction", name, list(known)))
    chosen = known[name]
    settings = chosen.settings() if settings is None else settings
    if not isinstance(settings, chosen.settings):
        raise ConfigError(
            f"settings is of type {type(settings).__name__}, and those of {name!r} are "
            f"{chosen.settings.__name__}. Pass those, or none at all."
        )
    told = told or (lambda line: None)
    if out is None:
        return _made(chosen, settings, None, told)
    content = {"name": name, "settings": settings}
    folder = RunFolder(out)
    if folder.study() == "reproduce" and folder.read_json("config.json")["reproduce"] == plain(
        content
    ):
        with folder.held():
            return _made(chosen, settings, folder, told)
    with RunFolder.fresh(out, overwrite=overwrite) as folder:
        folder.write_json("config.json", {"reproduce": content, "environment": surroundings()})
        return _made(chosen, settings, folder, told)


def _made(
    chosen: Reproduction, settings: Any, folder: RunFolder | None, told: Callable[[str], None]
) -> Findings:
    units = Units(folder, told)
    chosen.measure(settings, units)
    found = Findings(
        name=chosen.name,
        settings=settings,
        expectations=tuple(chosen.expectations(settings, units.found)),
        units=units.found,
        grids=tuple(chosen.grids(settings, units.found)),
    )
    if folder is None:
        return found
    notes = write_panels(
        chosen.panels(settings, units.found), folder, title=f"{chosen.name}: {chosen.source}"
    )
    folder.write_json("results.json", found.report())
    folder.note("config.json", "units.json")
    return dataclasses.replace(found, notes=notes, files=tuple(folder.files))

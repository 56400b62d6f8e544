"""Published results, made again: each study is one file in ``declared``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fdfa.errors import ConfigError, unknown_name
from fdfa.studies.reproduce.declaration import Measurement, TrainingTable, read_declaration
from fdfa.studies.reproduce.findings import Findings
from fdfa.studies.reproduce.markdown import command_for
from fdfa.studies.reproduce.measuring import measured, settings_kind, within_budget
from fdfa.studies.reproduce.planned_runs import TableSettings
from fdfa.studies.reproduce.table import table_made
from fdfa.studies.run_folder import RunFolder

__all__ = ["Reproduction", "declared_in", "reproduce", "reproductions"]

_DECLARED = Path(__file__).with_name("declared")


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """What there is to know of a reproduction before it is made.

    Attributes:
        name: for :func:`reproduce` and the command line.
        declaration: what its file says.
    """

    name: str
    declaration: TrainingTable | Measurement

    @property
    def summary(self) -> str:
        """One line."""
        return self.declaration.summary

    @property
    def source(self) -> str:
        """The paper."""
        return self.declaration.source

    @property
    def settings(self) -> type[Any]:
        """The class of its settings; its defaults are those of the paper."""
        if isinstance(self.declaration, TrainingTable):
            return TableSettings
        return settings_kind(self.declaration)


def declared_in(path: str | Path) -> Reproduction:
    """The study that a file of one's own declares.

    Args:
        path: of the TOML file; its name without the ending is that of the study.

    Returns:
        The study, for :func:`reproduce`.

    Raises:
        ConfigError: if something in the file cannot be; naming file and place.
    """
    path = Path(path)
    return Reproduction(path.stem, read_declaration(path))


@functools.cache
def _registry() -> tuple[Reproduction, ...]:
    return tuple(declared_in(path) for path in sorted(_DECLARED.glob("*.toml")))


def reproductions() -> dict[str, Reproduction]:
    """Every reproduction by name.

    Returns:
        Name to description.

    Example:
        >>> reproductions()["multi-tangent"].source
        'Fluegel et al. 2025, arXiv:2410.17764'
    """
    return {reproduction.name: reproduction for reproduction in _registry()}


def reproduce(
    study: str | Reproduction,
    settings: Any = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    minutes: float | None = None,
    told: Callable[[str], None] | None = None,
) -> Findings:
    """Make a published result again, and compare it with what was expected.

    With a folder, each part that is measured is kept at once: the same call goes on where an
    earlier one was interrupted, and a run that is finished is not repeated.

    Args:
        study: name of the reproduction; or what :func:`declared_in` found in a file.
        settings: of the class that it names; None for those of the paper.
        out: folder for ``config.json``, what was measured, ``results.json``, ``report.md`` and a
            picture.
        overwrite: whether the files of a run with other settings in it may be replaced.
        minutes: budget, to which the study is scaled down if it would take longer.
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
    if isinstance(study, str):
        known = reproductions()
        if study not in known:
            raise ConfigError(unknown_name("reproduction", study, list(known)))
        study = known[study]
    kind, declaration = study.settings, study.declaration
    settings = kind() if settings is None else settings
    if not isinstance(settings, kind):
        raise ConfigError(
            f"settings is of type {type(settings).__name__}, and those of {study.name!r} are "
            f"{kind.__name__}. Pass those, or none at all."
        )
    if minutes is not None and not minutes > 0:
        raise ConfigError(f"minutes={minutes!r} is no budget. Give a positive number.")
    told = told or (lambda line: None)
    folder = None if out is None else RunFolder(out)
    file = "" if study is reproductions().get(study.name) else "study "
    name = f"{file}{study.name}{'.toml' if file else ''}"
    if isinstance(declaration, Measurement):
        asked = settings
        if minutes is not None:
            settings = within_budget(declaration, settings, minutes)
        return measured(
            study.name,
            declaration,
            settings,
            command=command_for(name, settings),
            words="" if settings == asked else f"scaled to {minutes:g} minutes",
            out=folder,
            overwrite=overwrite,
            told=told,
        )
    return table_made(
        study.name,
        declaration,
        settings,
        command=command_for(name, settings, minutes=minutes),
        out=folder,
        overwrite=overwrite,
        minutes=minutes,
        told=told,
    )

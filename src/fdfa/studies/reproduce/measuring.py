"""A measurement, made by the module that its file names."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import typing
from collections.abc import Callable
from typing import Any

from fdfa.errors import ConfigError, briefly
from fdfa.studies.environment import surroundings
from fdfa.studies.json_values import plain
from fdfa.studies.records import from_json
from fdfa.studies.reproduce.declaration import Measurement
from fdfa.studies.reproduce.findings import Findings, Units
from fdfa.studies.reproduce.markdown import caption, write_report
from fdfa.studies.reproduce.pictures import write_panels
from fdfa.studies.run_folder import RunFolder

__all__ = ["measured", "settings_kind", "within_budget"]


def settings_kind(measurement: Measurement) -> type:
    """The class of a measurement's settings.

    Args:
        measurement: names its module.

    Returns:
        The class; its defaults are those of the paper.

    Raises:
        ConfigError: if there is no such module, or it measures nothing.
    """
    try:
        module = importlib.import_module(measurement.measured_by)
        kind: type = typing.get_type_hints(module.measure)["settings"]
    except (ImportError, AttributeError, KeyError) as error:
        raise ConfigError(
            f"measured_by={measurement.measured_by!r} cannot be used ({briefly(error)}). Name a "
            "module that can be imported and has measure(settings, units)."
        ) from error
    return kind


def within_budget(measurement: Measurement, settings: Any, minutes: float) -> Any:
    """Settings with which a measurement takes no longer.

    Args:
        measurement: knows how long some settings took.
        settings: what was asked for; only what stands at its default is changed.
        minutes: to be kept to.

    Returns:
        The longest settings that fit, or the shortest there are; as they were, if none are known.
    """
    known = sorted(measurement.budget, key=lambda step: step.minutes)
    if not known:
        return settings
    fitting = [step for step in known if step.minutes <= minutes] or known[:1]
    kind = type(settings)
    smaller, usual = from_json(kind, dict(fitting[-1].settings), where="budget"), kind()
    changes = {
        name: getattr(smaller, name)
        for name in fitting[-1].settings
        if getattr(settings, name) == getattr(usual, name)
    }
    return dataclasses.replace(settings, **changes)


def measured(
    name: str,
    measurement: Measurement,
    settings: Any,
    *,
    command: str,
    words: str = "",
    out: RunFolder | None,
    overwrite: bool,
    told: Callable[[str], None],
) -> Findings:
    """Make the measurement, or go on with it.

    Args:
        name: of the study.
        measurement: what its file says.
        settings: of the class that the module names.
        command: that makes it.
        words: how the settings came to be, for the caption.
        out: keeps what is measured; None keeps nothing.
        overwrite: whether the files of a run with other settings may be replaced.
        told: is called with a line about each part.

    Returns:
        What was found.
    """
    if out is None:
        return _made(name, measurement, settings, (command, words), None, told)
    content = {"name": name, "settings": settings}
    if out.study() == "reproduce" and out.read_json("config.json")["reproduce"] == plain(content):
        with out.held():
            return _made(name, measurement, settings, (command, words), out, told)
    with RunFolder.fresh(out.path, overwrite=overwrite) as folder:
        folder.write_json("config.json", {"reproduce": content, "environment": surroundings()})
        return _made(name, measurement, settings, (command, words), folder, told)


def _made(
    name: str,
    measurement: Measurement,
    settings: Any,
    said: tuple[str, str],
    folder: RunFolder | None,
    told: Callable[[str], None],
) -> Findings:
    module = importlib.import_module(measurement.measured_by)
    units = Units(folder, told)
    module.measure(settings, units)
    found = Findings(
        name=name,
        settings=settings,
        expectations=tuple(module.expectations(settings, units.found)),
        units=units.found,
        grids=tuple(module.grids(settings, units.found)),
        caption=caption(said[0], [surroundings()], datetime.date.today(), said[1]),
        differences=measurement.differences,
    )
    if folder is None:
        return found
    panels = module.panels(settings, units.found)
    notes = write_panels(panels, folder, title=f"{name}: {measurement.source}")
    found = dataclasses.replace(found, notes=notes, files=tuple(folder.files))
    write_report(found, measurement, folder)
    folder.write_json("results.json", found.report())
    folder.note("config.json", "units.json")
    return dataclasses.replace(found, files=tuple(folder.files))

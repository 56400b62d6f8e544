"""A reproduction as a page of Markdown, with all that is needed to make it again."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fdfa.studies.reproduce.declaration import Measurement, TrainingTable
from fdfa.studies.reproduce.findings import Findings, number
from fdfa.studies.run_folder import RunFolder

__all__ = ["caption", "command_for", "write_report"]

# What changes nothing but when and where a study is made.
_ELSEWHERE = ("workers", "data_dir", "device", "retry_failed", "note")


def command_for(name: str, settings: Any, *, minutes: float | None = None) -> str:
    """The command that makes a reproduction.

    Args:
        name: of it.
        settings: what is not at its default is written out.
        minutes: budget; None for none.

    Returns:
        What to type.

    Example:
        >>> from fdfa.studies.reproduce.planned_runs import TableSettings
        >>> command_for("fdfa-fc", TableSettings(tasks=("mnist",), seeds=3, workers=2))
        'fdfa reproduce fdfa-fc --tasks mnist --seeds 3'
    """
    words = ["fdfa", "reproduce", *name.split()]
    usual = type(settings)()
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value == getattr(usual, field.name) or field.name in _ELSEWHERE:
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if value is not True:
            words += map(str, value) if isinstance(value, (tuple, list)) else [str(value)]
    if minutes is not None:
        words += ["--budget", f"minutes={minutes:g}"]
    return shlex.join(words)


def caption(
    command: str, environments: Iterable[Mapping[str, Any]], day: datetime.date, *more: str
) -> tuple[str, ...]:
    """How numbers came to be.

    Args:
        command: that made them.
        environments: in which it did, as ``config.json`` holds them.
        day: on which the last of them came.
        *more: to be said.

    Returns:
        The command, then sentences.
    """
    machines = dict.fromkeys(
        f"fdfa {found['fdfa']}, torch {found['torch']}, Python {found['python']}, "
        f"{found['system']}, {found['device']}"
        for found in environments
    )
    return (command, f"{'; '.join(machines)}; {day.isoformat()}", *(text for text in more if text))


def write_report(
    found: Findings, declaration: TrainingTable | Measurement, folder: RunFolder
) -> None:
    """Write ``report.md``: the text of a page in ``docs/results``, beside a picture of its name.

    Args:
        found: by the reproduction.
        declaration: what its file says.
        folder: takes the file.
    """
    with folder.replacing("report.md") as path:
        text = "\n".join(_lines(found, declaration)).rstrip()
        path.write_text(f"{text}\n", encoding="utf-8")


def _lines(found: Findings, declaration: TrainingTable | Measurement) -> Iterator[str]:
    summary = f"{declaration.summary[0].upper()}{declaration.summary[1:]}"
    command, *sentences = found.caption
    yield from (f"# {found.name}", "", f"{summary}. {declaration.source}.", "")
    yield from ("```sh", command, "```", "")
    yield from (" ".join(map(_sentence, sentences)), "")
    if any(path.name == "reproduction.svg" for path in found.files):
        yield from (f"![{found.name}]({found.name}.svg)", "")
    for grid in found.grids:
        yield from (f"## {grid.title}", "", *_table(grid.heads, grid.rows), "")
    if found.expectations:
        yield from ("## Beside what was expected", "")
        yield from _table(
            ("number", "expected", "found", "verdict", "where the limits come from"),
            [(e.what, e.limits, number(e.found), e.verdict, e.why) for e in found.expectations],
        )
        yield ""
    for title, entries in (
        ("Differences from the published set-up", found.differences),
        ("Notes", found.notes),
    ):
        if entries:
            yield from (f"## {title}", "", *(f"- {entry}" for entry in entries), "")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(str(entry).replace('|', chr(92) + '|') for entry in row)} |"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."

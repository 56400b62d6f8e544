"""What the commands have in common: how they answer, and where they keep what they find."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.text import Text

from fdfa.studies.json_values import plain
from fdfa.studies.report import failures_panel, files_line
from fdfa.studies.runs import Run

__all__ = ["Kept", "Shown", "first_line", "print_files", "print_json", "speaks_not", "status"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """How a command answers.

    Attributes:
        json: print the answer as JSON.
        debug: show the traceback of an error.
    """

    json: bool = False
    debug: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept(Shown):
    """Where a command keeps what it finds.

    Attributes:
        config: read the settings from this config.json (or the folder of a run); what is given
            beside it counts more.
        out: a new folder for configuration, metrics, checkpoints, results and learning curves.
        overwrite: replace the files of an earlier run in that folder; others are left alone.
        dry_run: find whatever would stop it at its start, say what it would do, and do nothing.
        quiet: show no progress.
    """

    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    overwrite: bool = False
    dry_run: bool = False
    quiet: bool = False


def first_line(kind: type) -> str:
    """What a command does, in a line.

    Args:
        kind: of the command.

    Returns:
        The first line of its documentation.
    """
    return str(kind.__doc__ or "").partition("\n")[0]


def speaks_not() -> bool:
    """Whether this is one of several processes of torchrun, and not the first."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and os.environ.get("RANK", "0") != "0"


def status(err: Console, runs: Sequence[Run]) -> int:
    """Shows what failed.

    Args:
        err: where to.
        runs: finished or failed.

    Returns:
        The exit status that says so.
    """
    if (panel := failures_panel(runs)) is not None:
        err.print(panel)
    return 0 if panel is None else 1


def print_files(out: Console, files: Sequence[Path]) -> None:
    """Names the files that were written.

    Args:
        out: where to.
        files: may be none.
    """
    if files:
        out.print(Text(files_line(files)), soft_wrap=True)  # a path must stay in one piece


def print_json(content: Any) -> None:
    """Prints JSON and nothing else.

    Args:
        content: anything that :func:`~fdfa.studies.json_values.plain` understands.
    """
    print(json.dumps(plain(content), indent=2, allow_nan=False))

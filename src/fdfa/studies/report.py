"""What the command line shows of results: tables that fit into 80 columns, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fdfa.studies.evaluate import Evaluation
from fdfa.studies.rehearsal import Rehearsal
from fdfa.studies.runs import Run
from fdfa.studies.tables import plural_s
from fdfa.studies.train import TrainReport

__all__ = [
    "error_panel",
    "evaluation_report",
    "failures_panel",
    "files_line",
    "left_out_text",
    "rehearsal_report",
    "training_report",
]


def training_report(report: TrainReport) -> RenderableType:
    """The end of a training, in two lines.

    Args:
        report: of a run that did not fail.

    Returns:
        For a rich console.
    """
    score = report.run.test
    if score is None:
        return Text(f"{report.run.method}: failed")
    text = (
        f"{report.run.method}: test accuracy {100 * score.accuracy:.2f} %, test loss "
        f"{score.loss:.4f}; cosine with the true gradient {_cosine(report.run.cosine)} "
        "(mean over the weight matrices)"
    )
    return Group(Text(text), *(Text(note) for note in report.notes))


def evaluation_report(found: Evaluation) -> RenderableType:
    """How well the network of a run does, in a line.

    Args:
        found: by ``evaluate_run``.

    Returns:
        For a rich console.
    """
    return Text(
        f"{found.data}, {found.examples:,} {found.part} examples: accuracy "
        f"{100 * found.score.accuracy:.2f} %, loss {found.score.loss:.4f} "
        f"(weights of {found.weights})"
    )


def rehearsal_report(found: Rehearsal) -> RenderableType:
    """What a study would do.

    Args:
        found: by ``rehearse_study``.

    Returns:
        For a rich console.
    """
    options = ", ".join(f"{name}={value}" for name, value in found.model_options.items())
    train, validation, test = found.examples
    rows = {
        "data": f"{found.data}: {train:,} training, {validation:,} validation, {test:,} test "
        "examples",
        "model": f"{found.model}{f' ({options})' if options else ''}, {found.parameters:,} "
        "parameters",
        "methods": ", ".join(found.methods),
        "runs": f"{found.runs} of at most {found.steps:,} steps",
        "machine": f"{found.device}, {found.threads} thread{plural_s(found.threads)}",
        "writes": "nothing (no --out)" if found.out is None else found.out,
    }
    if found.diagnose is not None:
        every, count = found.diagnose.every, found.steps // found.diagnose.every
        rows["diagnoses"] = (
            f"every {every:,} step{plural_s(every)}, at most {count:,} in a run, each on "
            f"{found.diagnose.examples:,} examples"
        )
    table = Table.grid(padding=(0, 2))
    for name, text in rows.items():
        table.add_row(name, Text(text))
    if found.left_out:
        table.add_row("left out", left_out_text(found.left_out))
    told = "Dry run: each method has made a step on a copy; nothing was trained or written."
    return Group(table, Text(told, style="dim"))


def left_out_text(left_out: Mapping[str, str]) -> Text:
    """Which methods are not defined for a network, and why.

    Args:
        left_out: reasons by method.

    Returns:
        A line for each.

    Example:
        >>> left_out_text({"dfa": "no tap."}).plain
        'dfa: no tap.'
    """
    return Text("\n".join(f"{method}: {reason}" for method, reason in left_out.items()))


def error_panel(text: str, *, title: str = "error") -> Panel:
    """One complaint in a frame.

    Args:
        text: shown as it is.
        title: of the frame.

    Returns:
        For a rich console.
    """
    return Panel(Text(text), title=title, title_align="left", border_style="red")


def failures_panel(runs: Sequence[Run]) -> Panel | None:
    """Says which runs failed, and why.

    Args:
        runs: any.

    Returns:
        For a rich console; None if none failed.
    """
    failed = [run for run in runs if run.failure is not None]
    text = "\n".join(f"{run.method}, seed {run.seed}: {run.failure}" for run in failed)
    return error_panel(text, title="failed") if failed else None


def files_line(files: Sequence[Path]) -> str:
    """Says what was written where.

    Args:
        files: of one folder.

    Returns:
        One line, or nothing to say.

    Example:
        >>> files_line([Path("runs/a/config.json"), Path("runs/a/results.json")])
        'Written to runs/a: config.json, results.json'
    """
    if not files:
        return ""
    return f"Written to {files[0].parent}: {', '.join(file.name for file in files)}"


def _cosine(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"

"""From the folders of runs to the page."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fdfa.errors import ConfigError
from fdfa.studies.json_values import plain
from fdfa.studies.page import contents, figures, markup
from fdfa.studies.page.contestants import Contestant, contestants, data_names
from fdfa.studies.page.curves import Chart, charts
from fdfa.studies.page.found_runs import found_runs
from fdfa.studies.page.verdicts import Verdict, verdicts
from fdfa.studies.plots import COLOURS
from fdfa.studies.tables import plural_s
from fdfa.training.atomic import write_file

__all__ = ["PageReport", "write_page"]

# On a dark ground black turns white; the others stand out from both.
_DARK = tuple("#FFFFFF" if colour == "#000000" else colour for colour in COLOURS)
_MOST_BANDS = 8  # more of them at once are one grey
_HEAD = 4096  # bytes of a page, within which it says whose it is


@dataclasses.dataclass(frozen=True)
class PageReport:
    """What a page shows.

    Attributes:
        page: the file.
        size: of it, in bytes.
        runs: how many were found.
        scores: the first table, row by row: texts by the heads of the columns.
        figures: their keys.
        notes: what the page says before its numbers.
    """

    page: Path
    size: int
    runs: int
    scores: tuple[dict[str, str], ...]
    figures: tuple[str, ...]
    notes: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        """For ``--json``.

        Returns:
            Plain values.
        """
        content: dict[str, Any] = plain(self)
        return content


def write_page(
    folders: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    against: str | None = None,
    overwrite: bool = False,
) -> PageReport:
    """Write one page that puts runs side by side; whole, or not at all.

    Runs that differ in their seed alone are one contestant. Runs that are unfinished or failed are
    shown as far as they went. The same runs give the same bytes.

    Args:
        folders: of single runs, comparisons or reproductions.
        out: the file.
        against: method with which the others are compared, pair by pair of equal seeds; default:
            backpropagation if it took part, else the first.
        overwrite: whether an earlier page may be replaced.

    Returns:
        What the page shows.

    Raises:
        ConfigError: if a folder holds no run, there is no such method, or ``out`` is in the way.
        OSError: if the page cannot be written.

    Example:
        >>> import tempfile
        >>> from fdfa.studies.setup import TrainConfig
        >>> from fdfa.studies.train import train
        >>> from fdfa.training import TrainingSettings
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     quick = TrainConfig(method="dfa", training=TrainingSettings(epochs=1))
        ...     _ = train(quick, out=f"{folder}/run")
        ...     write_page([f"{folder}/run"], out=f"{folder}/page.html").scores[0]["finished"]
        '1 of 1'
    """
    figures.check_plotly()
    path = Path(out)
    _check(path, overwrite=overwrite)
    if not folders:
        raise ConfigError("runs: there is nothing to show. Name the folder of at least one run.")
    runs, passed_over = found_runs(folders)
    entries, left_out = contestants(runs)
    judged = verdicts(entries, against=against)
    drawn = charts(entries)
    notes = (*_different_data(entries), *passed_over, *left_out, *_of_runs(entries))
    names = [entry.name for entry in entries]
    text = markup.document(
        _title(entries),
        _body(entries, judged, drawn, notes),
        {
            "colours": {"light": COLOURS, "dark": _DARK},
            "most_bands": _MOST_BANDS,
            "figures": {chart.key: figures.figure_of(chart, names) for chart in drawn},
        },
        figures.plotly_source(),
    )
    content = text.encode()
    _replace(path, content)
    table = contents.scores_table(entries, judged)
    return PageReport(
        page=path,
        size=len(content),
        runs=len(runs),
        scores=tuple(
            {head: cell.text for head, cell in zip(table.heads, row, strict=True)}
            for row in table.rows
        ),
        figures=tuple(chart.key for chart in drawn),
        notes=notes,
    )


def _check(path: Path, *, overwrite: bool) -> None:
    """Refuse what is in the way, before anything is read."""
    if path.is_dir():
        raise ConfigError(f"out: '{path}' is a folder. Name a file, as in {path / 'page.html'}.")
    if not path.parent.is_dir():
        raise ConfigError(f"out: there is no folder '{path.parent}'. Make it, or choose another.")
    if not path.exists():
        return
    if not overwrite:
        raise ConfigError(
            f"out: '{path}' is there already. Choose another file, or pass --overwrite "
            "(overwrite=True)."
        )
    with path.open("rb") as file:
        ours = markup.GENERATOR.encode() in file.read(_HEAD)
    if not ours:
        raise ConfigError(
            f"out: '{path}' was not written by fdfa. Choose another file, or move it away."
        )


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_file(beside, [content])
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _title(entries: Sequence[Contestant]) -> str:
    data = ", ".join(dict.fromkeys(entry.data.name for entry in entries))
    models = ", ".join(dict.fromkeys(str(entry.settings.get("task.model")) for entry in entries))
    return f"Runs on {data}: {models}"


def _different_data(entries: Sequence[Contestant]) -> Iterator[str]:
    data = data_names(entry.data for entry in entries)
    if len(data) > 1:
        yield (
            f"The runs are on different data ({', '.join(data.values())}): their numbers cannot be "
            "held against each other. Differences and tests are taken among runs on the same data."
        )


def _of_runs(entries: Sequence[Contestant]) -> Iterator[str]:
    """What a mean is not of, and what could not be read."""
    for entry in entries:
        for run in entry.runs:
            yield from run.notes
            if not run.finished:
                status = run.status.rstrip(".")  # an error's text ends a sentence of its own
                yield f"{run.name}: {status}. The results are of the other runs, if any."


def _body(
    entries: Sequence[Contestant],
    judged: Sequence[Verdict],
    drawn: Sequence[Chart],
    notes: Sequence[str],
) -> list[str]:
    runs = sum(len(entry.runs) for entry in entries)
    differ, some, common = contents.settings_tables(entries)
    names = [entry.name for entry in entries]
    title = markup.escaped(_title(entries))
    said = f"{runs} run{plural_s(runs)} of {len(entries)} contestant{plural_s(len(entries))}"
    plots = [
        markup.figure(chart, contents.chart_table(chart, entries), _gaps(chart, names))
        for chart in drawn
    ]
    return [
        f"<header><h1>{title}</h1>\n<p>{said}. A contestant is a method with its settings; its "
        "runs differ in their seed.</p></header>",
        markup.contents_links(),
        "<main>",
        markup.notes_list(notes),
        '<h2 id="results">Results on the test examples</h2>',
        markup.table(contents.scores_table(entries, judged)),
        f'<p class="legend">{markup.escaped(_how_to_read(entries, judged))}</p>',
        '<h2 id="cost">Time and memory</h2>',
        markup.table(contents.costs_table(entries)),
        f'<p class="legend">{markup.escaped(_COSTS)}</p>',
        '<h2 id="curves">Curves</h2>',
        markup.switches(names),
        f'<p class="legend">{markup.escaped(_CURVES)}</p>',
        '<div id="figures-of-runs">',
        *plots,
        "</div>",
        '<h2 id="settings">What differs in the configurations</h2>',
        markup.table(differ) if differ.rows else "<p>Nothing.</p>",
        *(markup.folded(each) for each in (some, common) if each.rows),
        '<h2 id="single">Single runs</h2>',
        markup.table(contents.runs_table(entries)),
        "</main>",
    ]


_COSTS = (
    "Training time is of finished runs, without validation. Step time and step memory are those "
    "that a comparison measures before its first run, relative to backpropagation; a single run "
    "has none. Peak memory: what the figure shows, at its end."
)
_CURVES = (
    "A line is the mean over the seeds, the band reaches from the lowest to the highest run; a "
    f"single run has no band, and while more than {_MOST_BANDS} contestants are shown, none has. "
    "Where a run ended early, the mean goes on with the others: n, in the numbers of each figure, "
    "says how many."
)


def _how_to_read(entries: Sequence[Contestant], judged: Sequence[Verdict]) -> str:
    parts = []
    if any(len(entry.finished) > 1 for entry in entries):
        parts.append("±: sample standard deviation over the seeds.")
    if any(len(entry.finished) == 1 for entry in entries):
        parts.append("A single finished run has no spread, and no test.")
    pairs = [verdict.paired for verdict in judged if verdict.paired is not None]
    bases = dict.fromkeys(each.baseline for each in judged if each.paired is not None)
    if pairs:
        parts.append(
            f"Difference: accuracy minus that of {', '.join(bases)}, in percentage points, mean "
            "over pairs of runs with the same seed, which began with the same weights if the "
            "network is the same."
        )
    tested = [pair for pair in pairs if pair.p is not None]
    if tested:
        fewest = min(len(pair.seeds) for pair in tested)
        smallest = max(pair.smallest_p or 0.0 for pair in tested)
        parts.append(
            "p: two-sided exact sign-flip test on these pairs, which assumes no distribution; "
            f"{fewest} pairs cannot bring it below {smallest:.3g}, however large the difference. "
            f"Holm: corrected for {len(tested)} comparison{plural_s(len(tested))}."
        )
    parts.append("Cosine: with the exact gradient after the training, mean over weight matrices.")
    return " ".join(parts)


def _gaps(chart: Chart, names: Sequence[str]) -> Iterator[str]:
    for curve in chart.curves:
        unknown = [point.x for point in curve.points if not point.known]
        if unknown:
            shown = ", ".join(str(x) for x in unknown[:5]) + (", ..." if unknown[5:] else "")
            yield (
                f"{names[curve.contestant]}: not a number at {chart.x} {shown}. The curve has a "
                "gap there."
            )

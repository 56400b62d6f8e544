"""What stands in the tables of the page, before it is HTML."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from fdfa.studies.page.cells import Cell, Table, missing, number_cell, spread_cell
from fdfa.studies.page.contestants import Contestant, data_names
from fdfa.studies.page.curves import Chart
from fdfa.studies.page.flat import absent_somewhere, differing, in_words
from fdfa.studies.page.found_runs import FoundRun
from fdfa.studies.page.verdicts import Verdict
from fdfa.studies.tables import size

__all__ = [
    "chart_table",
    "costs_table",
    "runs_table",
    "scores_table",
    "settings_tables",
]


def scores_table(entries: Sequence[Contestant], verdicts: Sequence[Verdict]) -> Table:
    """What was reached on the test examples.

    Args:
        entries: the contestants.
        verdicts: one for each.

    Returns:
        A row for each.
    """
    data = data_names(entry.data for entry in entries)
    heads = [
        "method",
        *(["data"] if len(data) > 1 else []),
        "test accuracy (%)",
        "test loss (nats)",
        "cosine",
        "finished",
        "seeds",
        "difference (points)",
        "pairs",
        "p",
        "p (Holm)",
    ]
    rows = []
    for entry, verdict in zip(entries, verdicts, strict=True):
        tested = entry.finished
        rows.append(
            (
                Cell(entry.name),
                *([Cell(data[entry.data])] if len(data) > 1 else []),
                spread_cell([run.accuracy for run in tested], 2, scale=100),
                spread_cell([run.loss for run in tested], 4),
                spread_cell([run.cosine for run in tested], 3),
                _finished_cell(entry.runs),
                Cell(seeds_in_words([run.seed for run in entry.runs])),
                *_verdict_cells(verdict),
            )
        )
    return Table("scores", "Results on the test examples", tuple(heads), tuple(rows))


def _verdict_cells(verdict: Verdict) -> list[Cell]:
    found = verdict.paired
    if verdict.is_baseline:
        return [Cell("baseline", 0.0), *[missing()] * 3]
    if found is None:
        return [missing()] * 4
    text = f"{100 * found.difference:+.2f}"
    if found.deviation is not None:
        text += f" ± {100 * found.deviation:.2f}"
    return [
        Cell(text, 100 * found.difference),
        Cell(str(len(found.seeds)), len(found.seeds)),
        missing() if found.p is None else Cell(_p(found.p), found.p),
        missing() if verdict.adjusted is None else Cell(_p(verdict.adjusted), verdict.adjusted),
    ]


def costs_table(entries: Sequence[Contestant]) -> Table:
    """Time and memory.

    Args:
        entries: the contestants.

    Returns:
        A row for each.
    """
    heads = (
        "method",
        "training time (s)",
        "time of an epoch (s)",
        "step time (relative)",
        "step memory (relative)",
        "step memory",
        "peak memory (MiB)",
    )
    rows = []
    for entry in entries:
        costs = next(
            (run.costs for run in entry.runs if run.costs and entry.method in run.costs.times), None
        )
        time = costs.times[entry.method] if costs else None
        memory = costs.memory.get(entry.method) if costs else None
        seconds = [[epoch.seconds for epoch in run.epochs] for run in entry.runs]
        timed = [each for each in seconds if each and all(map(math.isfinite, each))]
        whole = [sum(epoch.seconds for epoch in run.epochs) for run in entry.runs if run.finished]
        peaks = [max(run.peak_memory.values()) / 2**20 for run in entry.runs if run.peak_memory]
        rows.append(
            (
                Cell(entry.name),
                spread_cell([each for each in whole if math.isfinite(each)], 2),
                spread_cell([statistics.fmean(each) for each in timed], 3),
                Cell(f"{time.ratio:.2f}", time.ratio) if time else missing(),
                Cell(f"{memory.ratio:.2f}", memory.ratio) if memory else missing(),
                Cell(size(memory.peak), memory.peak) if memory else missing(),
                spread_cell(peaks, 1),
            )
        )
    return Table("costs", "Time and memory", heads, tuple(rows))


def settings_tables(entries: Sequence[Contestant]) -> tuple[Table, Table, Table]:
    """Settings and surroundings of all contestants, each in the one table where it belongs.

    Args:
        entries: the contestants.

    Returns:
        What differs; what only some have, of one value where it is, such as options of one method;
        what all have in common.
    """
    each = [_all_settings(entry) for entry in entries]
    differ = differing(each)
    some = [name for name in absent_somewhere(each) if name not in differ]
    common = [name for name in each[0] if name not in differ and name not in some]

    def table(key: str, caption: str, names: Sequence[str]) -> Table:
        rows = [
            (Cell(name), *(Cell(words[name]) if name in words else missing() for words in each))
            for name in names
        ]
        return Table(key, caption, ("setting", *(entry.name for entry in entries)), tuple(rows))

    return (
        table("differences", "What differs in the configurations", differ),
        table("only-some", "What only some have", some),
        Table(
            "common",
            "What all have in common",
            ("setting", "value"),
            tuple((Cell(name), Cell(each[0][name])) for name in common),
        ),
    )


def _all_settings(entry: Contestant) -> dict[str, str]:
    """In words; a value for each seed where they differ."""
    runs = [{"method": run.method, **run.settings, **run.surroundings} for run in entry.runs]
    names = dict.fromkeys(name for run in runs for name in run)
    settings = {
        name: "; ".join(dict.fromkeys(in_words(run[name]) for run in runs if name in run))
        for name in names
    }
    return dict(sorted(settings.items(), key=lambda item: item[0].startswith("options.")))


def runs_table(entries: Sequence[Contestant]) -> Table:
    """Every single run.

    Args:
        entries: the contestants.

    Returns:
        A row a run.
    """
    heads = ("folder", "method", "seed", "status", "epochs", "test accuracy (%)", "test loss")
    rows = [
        (
            Cell(run.name),
            Cell(entry.name),
            Cell(str(run.seed), run.seed),
            Cell(run.status),
            Cell(str(len(run.epochs)), len(run.epochs)),
            number_cell(run.accuracy, 2, scale=100),
            number_cell(run.loss, 4),
        )
        for entry in entries
        for run in entry.runs
    ]
    return Table("runs", "Single runs", heads, tuple(rows))


def chart_table(chart: Chart, entries: Sequence[Contestant]) -> Table:
    """The numbers behind a figure.

    Args:
        chart: of the figure.
        entries: the contestants.

    Returns:
        A row a point.
    """
    heads = ("method", chart.x, chart.y, "standard deviation", "lowest", "highest", "n")
    rows = []
    for curve in chart.curves:
        for point in curve.points:
            x = (
                Cell(point.x)
                if isinstance(point.x, str)
                else Cell(
                    f"{point.x:g}" if float(point.x).is_integer() else f"{point.x:.3f}", point.x
                )
            )
            numbers = [point.mean, point.deviation, point.lowest, point.highest]
            rows.append(
                (
                    Cell(entries[curve.contestant].name),
                    x,
                    *(number_cell(number, chart.digits) for number in numbers),
                    Cell(str(len(point.values)), len(point.values)),
                )
            )
    return Table(f"{chart.key}-data", f"Data of “{chart.title}”", heads, tuple(rows))


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Seeds, neighbours as a range.

    Args:
        seeds: any.

    Returns:
        A short text.

    Example:
        >>> seeds_in_words([0, 1, 2, 3, 7, 9, 10])
        '0 to 3, 7, 9, 10'
    """
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(
        f"{part[0]} to {part[-1]}" if len(part) > 2 else ", ".join(map(str, part)) for part in parts
    )


def _finished_cell(runs: Sequence[FoundRun]) -> Cell:
    finished = sum(run.finished for run in runs)
    return Cell(f"{finished} of {len(runs)}", finished)


def _p(value: float) -> str:
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1e}"

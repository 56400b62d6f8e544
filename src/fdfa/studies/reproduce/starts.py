"""Data and networks of planned runs, for what is done before the first of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from fdfa.studies.network import build_network
from fdfa.studies.preparation import Prepared, prepared
from fdfa.studies.reproduce.planned_runs import PlannedRun

__all__ = ["starts_by_column"]


def starts_by_column(
    runs: Sequence[PlannedRun],
) -> Iterator[list[tuple[PlannedRun, Prepared]]]:
    """Each run with its data and network; the data of a column are read once.

    While a column is at hand, torch has the number of threads that its runs will have.

    Args:
        runs: of any columns.

    Yields:
        The runs of one column.
    """
    for column in dict.fromkeys(run.column.name for run in runs):
        mine = [run for run in runs if run.column.name == column]
        first = mine[0].config
        with prepared(first.task, seed=first.seed, machine=first.machine) as start:
            networks = [
                build_network(run.config.task, start.data, seed=run.config.seed) for run in mine
            ]
            yield [
                (run, dataclasses.replace(start, network=network.to(start.device)))
                for run, network in zip(mine, networks, strict=True)
            ]

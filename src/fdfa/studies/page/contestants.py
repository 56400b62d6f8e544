"""Runs that differ in their seed alone, as one contestant of the comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fdfa.studies.page.flat import absent_somewhere, differing, in_words
from fdfa.studies.page.found_runs import DataSet, FoundRun

__all__ = ["Contestant", "contestants", "data_names", "known_matrices"]

# Where the files of the data lie does not change what is learned.
_NOT_LEARNED_FROM = ("task.data_dir",)
_LONGEST_NAME = 48


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A method with its settings on its data: one line of each table, one curve of each figure.

    Attributes:
        name: the method's; with the settings that tell it from others of the same method.
        method: its name alone.
        data: what was learned.
        settings: those of all its runs, by dotted name.
        runs: one a seed.
        matrices: names of the network's weight matrices, in order; none if nobody knows.
    """

    name: str
    method: str
    data: DataSet
    settings: Mapping[str, Any]
    runs: tuple[FoundRun, ...]
    matrices: tuple[str, ...]

    @property
    def finished(self) -> tuple[FoundRun, ...]:
        """The runs that went to their end."""
        return tuple(run for run in self.runs if run.finished)

    @property
    def accuracies(self) -> dict[int, float]:
        """Test accuracy by seed, of the finished runs."""
        return {run.seed: run.accuracy for run in self.runs if run.accuracy is not None}


def contestants(runs: Sequence[FoundRun]) -> tuple[tuple[Contestant, ...], tuple[str, ...]]:
    """Put together what differs in its seed alone.

    Args:
        runs: in the order in which they are to be shown.

    Returns:
        The contestants in that order; and notes on runs that are left out.
    """
    groups: dict[Any, dict[int, FoundRun]] = {}
    notes = []
    for run in runs:
        group = groups.setdefault(_key(run), {})
        if run.seed in group:
            notes.append(
                f"'{run.name}' and '{group[run.seed].name}' are one run made twice (same method, "
                "settings, data and seed); the latter is counted."
            )
        else:
            group[run.seed] = run
    members = [tuple(group.values()) for group in groups.values()]
    matrices = known_matrices(runs)
    names = _names([group[0] for group in members], data_names(run.data for run in runs))
    return (
        tuple(
            Contestant(
                name=name,
                method=group[0].method,
                data=group[0].data,
                settings=_learned_from(group[0]),
                runs=group,
                matrices=matrices.get(_network(group[0]), ()),
            )
            for name, group in zip(names, members, strict=True)
        ),
        tuple(notes),
    )


def data_names(data: Iterable[DataSet]) -> dict[DataSet, str]:
    """A name for each data set; the beginning of its checksum where the name says too little.

    Args:
        data: may come more than once.

    Returns:
        Data set to name.

    Example:
        >>> data_names([DataSet("digits", "0123456789"), DataSet("digits", "abcdef0123")]).values()
        dict_values(['digits 01234567', 'digits abcdef01'])
    """
    found = list(dict.fromkeys(data))
    names = [each.name for each in found]
    return {
        each: each.name if names.count(each.name) == 1 else f"{each.name} {_short(each.checksum)}"
        for each in found
    }


def known_matrices(runs: Iterable[FoundRun]) -> dict[Any, tuple[str, ...]]:
    """The weight matrices of each network that some run has left behind.

    Args:
        runs: any.

    Returns:
        By network: their names, in the order of the network.
    """
    known = {}
    for run in runs:
        if run.result is not None and run.matrices:
            known[_network(run)] = tuple(n for n in run.result.alignment if n in run.matrices)
    return known


def _network(run: FoundRun) -> tuple[str, ...]:
    settings = {n: v for n, v in run.settings.items() if n.startswith("task.model")}
    return tuple(f"{name}={in_words(value)}" for name, value in sorted(settings.items()))


def _short(checksum: str | None) -> str:
    return checksum[:8] if checksum else "(no checksum)"


def _learned_from(run: FoundRun) -> dict[str, Any]:
    return {n: value for n, value in run.settings.items() if n not in _NOT_LEARNED_FROM}


def _key(run: FoundRun) -> tuple[Any, ...]:
    settings = sorted((name, in_words(value)) for name, value in _learned_from(run).items())
    return run.method, run.data, tuple(settings)


def _names(runs: Sequence[FoundRun], data: Mapping[DataSet, str]) -> list[str]:
    """The method's name and, where several share it, what tells them apart."""
    names = []
    for run in runs:
        alike = [each for each in runs if each.method == run.method]
        words = []
        if len({each.data for each in alike}) > 1:
            words.append(data[run.data])
        settings = [_learned_from(each) for each in alike]
        apart = (*differing(settings), *absent_somewhere(settings))
        words += [
            f"{name.rpartition('.')[2]}={in_words(run.settings[name])}"
            for name in dict.fromkeys(apart)
            if name in run.settings and not name.startswith("task.data")
        ]
        told = f"{run.method} ({', '.join(words)})" if words else run.method
        if len(told) > _LONGEST_NAME:
            told = f"{run.method} #{alike.index(run) + 1}"
        names.append(told)
    # Should two still be called the same, a number parts them.
    return [
        name if names.count(name) == 1 else f"{name} #{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    ]

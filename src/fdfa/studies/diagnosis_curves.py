"""What the diagnoses of runs hold, as curves over the training with a band over the seeds."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fdfa.studies.diagnosis_log import DIAGNOSIS
from fdfa.studies.run_folder import RunFolder
from fdfa.training import read_lines

__all__ = ["Band", "Diagnoses", "band_of", "read_diagnoses"]


@dataclasses.dataclass(frozen=True)
class Diagnoses:
    """The lines of one run's ``diagnosis.jsonl``.

    Attributes:
        lines: that can be read, by step.
        damaged: how many lines cannot be read.
    """

    lines: Mapping[int, Mapping[str, Any]]
    damaged: int = 0

    def names(self, part: str) -> tuple[str, ...]:
        """What was measured.

        Args:
            part: ``"parameters"`` or ``"taps"``.

        Returns:
            Names, in the order of the lines.
        """
        return tuple(dict.fromkeys(name for line in self.lines.values() for name in line[part]))

    def curve(
        self, part: str, name: str, value: Callable[[Mapping[str, float]], float]
    ) -> dict[int, float]:
        """One number over the training.

        Args:
            part: ``"parameters"`` or ``"taps"``.
            name: of the parameter or tap.
            value: the number, from what the line holds of it.

        Returns:
            Step to number; NaN where it was none.

        Example:
            >>> lines = {10: {"parameters": {"weight": {"angle": 40.0}}, "taps": {}}}
            >>> Diagnoses(lines).curve("parameters", "weight", lambda of: of["angle"])
            {10: 40.0}
        """
        return {
            step: value(line[part][name]) for step, line in self.lines.items() if name in line[part]
        }


@dataclasses.dataclass(frozen=True)
class Band:
    """A curve of several seeds.

    Attributes:
        steps: at which any seed has a point.
        mean: over the seeds whose number is one there; NaN where there is none.
        low: smallest of these numbers.
        high: largest of these numbers.
        seeds: how many curves it is made of; one has no spread.
        gaps: points that were no numbers.
    """

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int
    gaps: int

    @property
    def drawable(self) -> bool:
        """Whether there is anything to draw."""
        return any(math.isfinite(value) for value in self.mean)


def band_of(curves: Sequence[Mapping[int, float]]) -> Band:
    """Several curves as one.

    Args:
        curves: step to number, one a seed.

    Returns:
        Their mean and spread.

    Example:
        >>> band_of([{10: 1.0, 20: math.nan}, {10: 3.0, 20: 5.0}])
        Band(steps=(10, 20), mean=(2.0, 5.0), low=(1.0, 5.0), high=(3.0, 5.0), seeds=2, gaps=1)
    """
    curves = [curve for curve in curves if curve]
    steps = sorted({step for curve in curves for step in curve})
    at_steps = [[curve[step] for curve in curves if step in curve] for step in steps]
    finite = [[value for value in values if math.isfinite(value)] for values in at_steps]
    return Band(
        steps=tuple(steps),
        mean=tuple(statistics.fmean(values) if values else math.nan for values in finite),
        low=tuple(min(values, default=math.nan) for values in finite),
        high=tuple(max(values, default=math.nan) for values in finite),
        seeds=len(curves),
        gaps=sum(map(len, at_steps)) - sum(map(len, finite)),
    )


def read_diagnoses(folder: RunFolder) -> Diagnoses | None:
    """The diagnoses of a run, as far as they can be read.

    Args:
        folder: of the run.

    Returns:
        Them; None if the run was never diagnosed while it trained.
    """
    path = folder.path / DIAGNOSIS
    if not path.exists():
        return None
    found, damaged = read_lines(path)
    lines = {}
    for line in found:
        try:
            lines[_step(line["step"])] = {
                part: {name: _numbers(values) for name, values in line.get(part, {}).items()}
                for part in ("parameters", "taps")
            }
        except (AttributeError, KeyError, TypeError, ValueError):  # JSON, but not such a line
            damaged += 1
    return Diagnoses(dict(sorted(lines.items())), damaged)


def _step(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError
    return value


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What is null in JSON is no number."""
    return {name: math.nan if value is None else float(value) for name, value in values.items()}

"""What a diagnosis of runs found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fdfa.diagnostics import CreditError, Diagnosis
from fdfa.studies.json_values import plain

__all__ = ["Diagnosed", "DiagnosedRun", "Likeness", "Looked"]


@dataclasses.dataclass(frozen=True)
class Likeness:
    """Linear CKA of two rules' representations, over the seeds that both have.

    Attributes:
        mean: over these seeds.
        low: smallest.
        high: largest.
        seeds: how many.
    """

    mean: float
    low: float
    high: float
    seeds: int

    def words(self) -> str:
        """In a title."""
        spread = f" ({self.low:.2f} to {self.high:.2f})" if self.seeds > 1 else ""
        return f"{self.mean:.2f}{spread}"


@dataclasses.dataclass(frozen=True)
class DiagnosedRun:
    """What one run's learner is worth at its last checkpoint.

    Attributes:
        run: its folder.
        rule: the name under which it is shown; runs of other seeds have the same.
        method: that was trained.
        seed: of the run.
        step: of the checkpoint.
        layers: weight matrices, from the input on.
        gradients: bias, variance and angle of the rule's gradients.
        credits: what the error of each tap's credit is made of; nothing where there is no map.
        without_credits: why there is none; None if there are.
    """

    run: str
    rule: str
    method: str
    seed: int
    step: int
    layers: tuple[str, ...]
    gradients: Diagnosis
    credits: Mapping[str, CreditError]
    without_credits: str | None


@dataclasses.dataclass(frozen=True)
class Looked:
    """What the network of a run looks like inside.

    Attributes:
        kernels: of its first layer; None if these are no pictures.
        activations: (N, units) by tap.
    """

    kernels: Tensor | None
    activations: Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Diagnosed:
    """What was found of some runs.

    Attributes:
        subject: data set and network, in words.
        examples: on which the rules were measured.
        runs: rule by rule, seed by seed.
        likeness: of each rule's representations to the first rule's, by rule and tap.
        files: that were written.
        notes: what a reader should know besides.
    """

    subject: str
    examples: int
    runs: tuple[DiagnosedRun, ...]
    likeness: Mapping[str, Mapping[str, Likeness]]
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def report(self) -> dict[str, Any]:
        """The content of ``diagnosis.json``.

        Returns:
            Plain values that JSON can hold.
        """
        content: dict[str, Any] = plain(self)
        del content["files"]
        return {"diagnosis": content}

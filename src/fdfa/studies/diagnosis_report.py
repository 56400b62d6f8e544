"""What the command line shows of a diagnosis: tables that fit into 80 columns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fdfa.diagnostics import CreditError
from fdfa.studies.diagnosed import Diagnosed, DiagnosedRun
from fdfa.studies.tables import plain_table

__all__ = ["diagnosis_report"]

_PARTS: tuple[Callable[[CreditError], float], ...] = (
    lambda error: error.noise,
    lambda error: error.lag,
    lambda error: error.spread,
    lambda error: error.projection + error.coupling + error.interaction,
)


def diagnosis_report(found: Diagnosed) -> RenderableType:
    """Gradients by layer, credits by tap, and how alike the networks are.

    Args:
        found: by ``diagnose_runs``.

    Returns:
        For a rich console.
    """
    rules: dict[str, list[DiagnosedRun]] = {}
    for run in found.runs:
        rules.setdefault(run.rule, []).append(run)
    most = max(len(runs) for runs in rules.values())
    seeds = f"mean of {most} seeds, " if most > 1 else ""
    head = f"{found.subject}: {seeds}{found.examples:,} examples, at the last checkpoint"
    parts: list[RenderableType] = [Text(head), _gradients(rules)]
    if any(run.credits for run in found.runs):
        parts.append(_credits(rules))
    for rule, runs in rules.items():
        if runs[0].without_credits is not None and not runs[0].credits:
            parts.append(Text(f"{rule}: no feedback maps to measure.", style="dim"))
    if found.likeness:
        parts.append(_likeness(found, next(iter(rules))))
    ends = ", from the smallest to the largest of the seeds" if most > 1 else ""
    legend = (
        f"Angle: between the rule's gradient of a layer and the exact one{ends}. Ratio: of "
        "their lengths. SNR: squared mean over variance of the rule's own noise. Error of a "
        "credit: its squared distance from the true one, in squared lengths of that; noise, lag "
        "and spread are its parts, the rest is coupling between samples and cross terms. Map: "
        "|B - J| / |J|. CKA: 1 for the same representation up to rotation, about 0 for unrelated "
        "ones."
    )
    return Group(*parts, *(Text(note) for note in found.notes), Text(legend, style="dim"))


def _gradients(rules: dict[str, list[DiagnosedRun]]) -> RenderableType:
    several = any(len(runs) > 1 for runs in rules.values())
    seeds = ("from", "to") if several else ()
    table = _table("rule", "layer", "angle (°)", *seeds, "ratio", "SNR")
    for rule, runs in rules.items():
        for number, layer in enumerate(runs[0].layers):
            every = [run.gradients.parameters for run in runs]
            of = [parameters[layer] for parameters in every if layer in parameters]
            angles = [quality.angle.value for quality in of]
            ends = [_mean([end(angles)], ".1f") for end in (min, max)] if len(of) > 1 else ["-"] * 2
            table.add_row(
                rule if number == 0 else "",
                layer,
                _mean(angles, ".1f"),
                *(ends if several else ()),
                _mean([quality.norm_ratio.value for quality in of], ".2f"),
                _mean([quality.signal_to_noise.value for quality in of], ".3g"),
            )
    return table


def _credits(rules: dict[str, list[DiagnosedRun]]) -> RenderableType:
    table = _table("rule", "tap", "map", "error", "noise", "lag", "spread", "rest")
    for rule, runs in rules.items():
        for number, tap in enumerate(runs[0].credits):
            of = [run.credits[tap] for run in runs if tap in run.credits]
            table.add_row(
                rule if number == 0 else "",
                tap,
                _mean([error.feedback.relative for error in of], ".2f"),
                _mean([error.total for error in of], ".2f"),
                *(
                    _mean([part(error) / error.total for error in of if error.total], ".0%")
                    for part in _PARTS
                ),
            )
    return table


def _likeness(found: Diagnosed, first: str) -> RenderableType:
    table = _table("rule", "tap", f"linear CKA with {first}")
    for rule, by_tap in found.likeness.items():
        for number, (tap, likeness) in enumerate(by_tap.items()):
            table.add_row(rule if number == 0 else "", tap, likeness.words())
    return table


def _table(*columns: str) -> Table:
    table = plain_table(*columns, left=2)
    for column in table.columns[:2]:
        column.overflow = "ellipsis"
        column.no_wrap = True
    return table


def _mean(values: Sequence[float], form: str) -> str:
    """Their mean, without those that are no numbers."""
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return "-"
    mean = format(statistics.fmean(numbers), form)
    return mean.removeprefix("-") if not mean.strip("-0.%") else mean  # no minus zero

"""The one table of a comparison, from results made up by hand."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
from collections.abc import Mapping

import pytest
from rich.console import Console

from fdfa.studies.comparison_report import ComparisonReport
from fdfa.studies.costs import Costs
from fdfa.studies.memory import StepMemory
from fdfa.studies.rehearsal import Rehearsal
from fdfa.studies.report import rehearsal_report
from fdfa.studies.results import Comparison, summarize
from fdfa.studies.runs import Run
from fdfa.studies.setup import CompareConfig
from fdfa.studies.speed import StepTime
from fdfa.training import Score

CONFIG = CompareConfig(methods=("backpropagation", "fdfa"), seeds=2, rate_shares={"fdfa": 0.1})
COSTS = Costs(
    {"backpropagation": StepTime(0.002, 1.0, 77), "fdfa": StepTime(0.0025, 1.25, 77)},
    {"backpropagation": StepMemory(1024, 1024, 1.0), "fdfa": StepMemory(1536, 1024, 1.25)},
    {},
)
COSINES = {"first.weight": -0.125, "first.bias": 0.75, "last.weight": 1.0}


def run(method: str, seed: int, accuracy: float, cosines: Mapping[str, float] = COSINES) -> Run:
    return Run(method, seed, (), Score(accuracy, 0.25), cosines, 0.5)


def failed(method: str, seed: int) -> Run:
    return Run(method, seed, (), None, {}, math.nan, "the loss is nan")


RUNS = (
    run("backpropagation", 0, 0.9),
    run("backpropagation", 1, 0.9),
    run("fdfa", 0, 0.875),
    failed("fdfa", 1),
)


def comparison(
    runs: tuple[Run, ...] = RUNS,
    *,
    layers: tuple[str, ...] = ("first.weight", "last.weight"),
    left_out: Mapping[str, str] | None = None,
    costs: Costs = COSTS,
) -> Comparison:
    summaries = summarize(CONFIG, runs, costs)
    return Comparison(12345, layers, True, summaries, left_out or {}, runs, notes=("A note.",))


def shown(found: Comparison, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(ComparisonReport(CONFIG, found))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert all(len(line) <= width for line in lines)
    return lines


def rows(lines: list[str]) -> list[str]:
    """The lines of the table below its head."""
    return [" ".join(r.split()) for r in lines if r.startswith((" backpropagation", " fdfa"))]


@pytest.mark.parametrize(("width", "loss"), [(80, ""), (120, "0.2500 ")])
def test_one_line_a_method(width: int, loss: str) -> None:
    lines = shown(comparison(), width)
    assert lines[0].startswith("digits, fully-connected, 12,345 parameters: 20 epochs, 2 seeds")
    assert rows(lines) == [
        f"backpropagation 90.00 ± 0.00 % 1.00 x 1.00 x {loss}-0.12 1.00",
        f"fdfa 87.50 % 1.25 x 1.25 x {loss}-0.12 1.00",
    ]
    text = " ".join(lines)
    assert "(2.00 ms; median of 77 interleaved rounds)" in text
    assert "(2.0 KiB)" in text
    assert "of the weights of 1 first, 2 last." in text
    assert "Learning rate: 0.001; fdfa 0.0001." in text
    assert "1 of 2 runs of fdfa failed: its numbers are of the others." in text
    assert "A note." in lines


def test_a_method_whose_runs_all_failed_has_costs_and_no_scores() -> None:
    lines = shown(comparison((RUNS[0], failed("fdfa", 0))), 80)
    assert rows(lines)[1] == "fdfa failed 1.25 x 1.25 x - -"


def test_a_layer_without_a_gradient_has_no_cosine() -> None:
    lines = shown(comparison((run("fdfa", 0, 0.5, {**COSINES, "first.weight": math.nan}),)), 80)
    assert rows(lines)[1].endswith(" - 1.00")


def test_a_device_that_counts_no_memory() -> None:
    costs = dataclasses.replace(COSTS, memory=dict.fromkeys(COSTS.memory))
    lines = shown(comparison(costs=costs), 80)
    assert rows(lines)[1] == "fdfa 87.50 % 1.25 x - -0.12 1.00"
    assert "Peak memory" not in " ".join(lines)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("depth", [1, 5, 20, 55])
def test_more_layers_than_columns_are_taken_together(depth: int, width: int) -> None:
    """Neighbours in groups, none lost, none counted twice, the mean in each column."""
    names = tuple(f"layer{number}.weight" for number in range(1, depth + 1))
    cosines = {name: number / 100 for number, name in enumerate(names, 1)}
    lines = shown(comparison((run("fdfa", 0, 0.5, cosines),), layers=names), width)
    (head,) = [line.split() for line in lines if line.startswith(" method")]
    groups = [[int(n) for n in word.split("-")] for word in head if word[0].isdigit()]
    assert (groups[0][0], groups[-1][-1]) == (1, depth)
    for before, after in itertools.pairwise(groups):
        assert after[0] == before[-1] + 1
    sizes = [group[-1] - group[0] + 1 for group in groups]
    assert max(sizes) - min(sizes) <= 1
    if depth <= 5:
        assert len(groups) == depth
    means = [(group[0] + group[-1]) / 200 for group in groups]
    assert [float(word) for word in rows(lines)[1].split()[-len(groups) :]] == pytest.approx(
        means, abs=0.0051
    )


def test_a_dry_run_names_what_would_be_left_out() -> None:
    found = Rehearsal(
        data="digits",
        model="fully-connected",
        model_options={},
        parameters=650,
        methods=("backpropagation",),
        left_out={"dfa": "there is no tap.", "fdfa": "there is none."},
        runs=1,
        examples=(3, 2, 1),
        steps=1,
        device="cpu",
        threads=1,
        diagnose=None,
        out=None,
    )
    out = io.StringIO()
    Console(file=out, width=80, highlight=False).print(rehearsal_report(found))
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["left", "out", "dfa:", "there", "is", "no", "tap."] in lines
    assert ["fdfa:", "there", "is", "none."] in lines


def test_what_is_left_out_is_named_with_its_reason() -> None:
    lines = shown(comparison(left_out={"dfa": "the network has no tap."}), 80)
    (title,) = [line for line in lines if "not defined for this network" in line]
    assert any("dfa: the network has no tap." in line for line in lines[lines.index(title) :])

"""A comparison of every method there is: what serves the network runs, what does not is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import fdfa
from fdfa.errors import ConfigError, UnsupportedModelError
from fdfa.studies.compare import CompareConfig, StudyInterrupted, compare
from fdfa.studies.rehearsal import rehearse_study
from fdfa.studies.results import Comparison
from fdfa.studies.resume import read_config, resume
from fdfa.studies.runs import StudyObserver
from fdfa.studies.task import Task
from fdfa.training import TrainingSettings

pytestmark = pytest.mark.usefixtures("few_rounds")

# One step of a network without hidden layers, where nothing can be tapped.
SHALLOW = CompareConfig(
    methods=("all",),
    seeds=1,
    timing_rounds=10,
    task=Task(model_options={"depth": 0}),
    training=TrainingSettings(epochs=1, batch_size=2000),
)


@pytest.fixture(scope="module")
def shallow(
    few_rounds: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, Path, list[int]]:
    class Planned(StudyObserver):
        def runs_planned(self, count: int) -> None:
            planned.append(count)

    planned: list[int] = []
    out = tmp_path_factory.mktemp("all") / "run"
    return compare(SHALLOW, out=out, observer=Planned()), out, planned


def test_every_method_takes_part_or_is_left_out(
    shallow: tuple[Comparison, Path, list[int]],
) -> None:
    comparison, out, planned = shallow
    taking_part = [summary.method for summary in comparison.summaries]
    assert sorted([*taking_part, *comparison.left_out]) == sorted(fdfa.methods())
    assert {"backpropagation", "fa", "fg-w", "spsa"} <= set(taking_part)
    assert {"dfa", "fdfa", "fg-a"} <= set(comparison.left_out)
    assert all(summary.finished == 1 for summary in comparison.summaries)
    assert planned == [len(taking_part)]
    results = json.loads((out / "results.json").read_text())
    assert results["left_out"] == comparison.left_out


def test_the_reason_is_what_the_method_itself_says(
    shallow: tuple[Comparison, Path, list[int]],
) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        compare(dataclasses.replace(SHALLOW, methods=("dfa",)))
    assert shallow[0].left_out["dfa"] == str(caught.value)


def test_the_configuration_names_those_that_took_part(
    shallow: tuple[Comparison, Path, list[int]],
) -> None:
    """A later version with more methods makes the same comparison of it."""
    config, _ = read_config(shallow[1])
    assert isinstance(config, CompareConfig)
    names = tuple(summary.method for summary in shallow[0].summaries)
    assert config.methods == tuple(config.options) == tuple(config.rate_shares) == names


@pytest.mark.slow
def test_what_was_left_out_is_still_known_after_an_interruption(
    shallow: tuple[Comparison, Path, list[int]], tmp_path: Path
) -> None:
    class Impatient(StudyObserver):
        def run_started(self, method: str, seed: int) -> None:
            if method == "fg-w":
                raise KeyboardInterrupt

    with pytest.raises(StudyInterrupted):
        compare(SHALLOW, out=tmp_path / "run", observer=Impatient())
    comparison = resume(tmp_path / "run")
    assert isinstance(comparison, Comparison)
    assert comparison.left_out == shallow[0].left_out
    assert [run.test for run in comparison.runs] == [run.test for run in shallow[0].runs]


def test_a_dry_run_tries_every_method(shallow: tuple[Comparison, Path, list[int]]) -> None:
    found = rehearse_study(SHALLOW)
    assert found.methods == tuple(summary.method for summary in shallow[0].summaries)
    assert found.left_out == shallow[0].left_out
    assert found.runs == len(found.methods)


def test_what_stops_backpropagation_stops_the_comparison() -> None:
    task = Task(model="tests.errors.networks:Counting")
    with pytest.raises(ConfigError, match="cannot make a step of method 'backpropagation'"):
        compare(dataclasses.replace(SHALLOW, task=task))


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory."), KeyError("lost"), ValueError("no such thing")]
)
def test_a_method_that_breaks_in_the_middle_takes_no_other_along(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it breaks with: what it had reached is told, and the next one runs."""
    forward = fdfa.DFA.learning_forward

    def breaking(self: fdfa.DFA, *given: Any) -> Any:
        if breaks and self.steps == 3:  # in the second epoch
            raise error
        return forward(self, *given)

    class Breaks(StudyObserver):
        def run_started(self, method: str, seed: int) -> None:
            breaks.append(True)

    breaks: list[bool] = []
    monkeypatch.setattr(fdfa.DFA, "learning_forward", breaking)
    config = dataclasses.replace(
        SHALLOW,
        methods=("dfa", "backpropagation"),
        task=Task(model_options={"width": 8, "depth": 1}),
        training=TrainingSettings(epochs=3, batch_size=700),
    )
    comparison = compare(config, out=tmp_path / "run", observer=Breaks())
    broken, other = comparison.runs
    assert broken.failure is not None
    assert str(error.args[0]).rstrip(".") in broken.failure
    assert (len(broken.epochs), broken.test) == (1, None)
    assert other.failure is None
    assert comparison.complete
    assert resume(tmp_path / "run").report() == comparison.report()


def test_shares_of_the_learning_rate() -> None:
    config = dataclasses.replace(
        SHALLOW, methods=("fa", "fg-w"), rate_shares={"fg-w": 0.25}, task=Task()
    )
    rates = [config.run_of(name, 0).training.learning_rate for name in config.methods]
    assert rates == [1e-3, 0.25e-3]
    doubled = dataclasses.replace(config, training=TrainingSettings(learning_rate=2e-3))
    assert doubled.run_of("fg-w", 0).training.learning_rate == 0.5e-3
    assert doubled.run_of("fg-w", 0).training.epochs == doubled.training.epochs

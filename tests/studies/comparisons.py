"""A small comparison, and what an observer heard of it."""

from __future__ import annotations

from fdfa.studies.compare import CompareConfig
from fdfa.studies.runs import Run, StudyObserver
from fdfa.studies.task import Task
from fdfa.training import TrainingSettings

__all__ = ["SMALL", "Diary"]

SMALL = CompareConfig(
    methods=("fdfa", "backpropagation"),
    options={"fdfa": {"probe_every": 2}},
    seeds=2,
    first_seed=5,
    timing_rounds=10,
    task=Task(model_options={"width": 12, "depth": 1}),
    training=TrainingSettings(epochs=2, batch_size=256, decay=0.5),
)


class Diary(StudyObserver):
    def __init__(self) -> None:
        self.entries: list[object] = []

    def measuring_costs(self) -> None:
        self.entries.append("costs")

    def run_started(self, method: str, seed: int) -> None:
        self.entries.append((method, seed))

    def run_finished(self, run: Run) -> None:
        self.entries.append(run)

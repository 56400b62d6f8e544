"""What it costs a run on MNIST to be diagnosed while it trains: ``--diagnose every=100``.

Steps and diagnoses are timed in one and the same training, in turn, and their medians compared: so
other work on the machine slows both. To have more of them the run is diagnosed more often than it
would be; the step after a diagnosis counts with it, since it finds the caches cold.
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from promises import Promise

import fdfa
import fdfa.data
import fdfa.models
from fdfa.studies.diagnosis_log import DiagnosisLog, watch_over
from fdfa.studies.setup import Diagnose, TrainConfig
from fdfa.training import Callback, Trainer, TrainingInterrupted, TrainingSettings

PROMISED = 100  # steps from one diagnosis to the next
EVERY, STEPS = 10, 1000
SETTINGS = TrainingSettings(epochs=100, batch_size=64, learning_rate=1e-4)


class Clock(Callback):
    """Times of the steps, of the diagnoses with and without taps, and of the step after one."""

    def __init__(self, log: DiagnosisLog) -> None:
        self.log = log
        self.steps: list[float] = []
        self.diagnoses: dict[bool, list[float]] = {True: [], False: []}
        self.ended = time.perf_counter()

    def step_finished(self, trainer: Trainer, result: Any) -> None:
        began = time.perf_counter()
        step = began - self.ended
        number, over = divmod(result.step - 1, EVERY)
        if over or not number:
            self.steps.append(step)
        else:  # it follows a diagnosis
            self.diagnoses[(number - 1) % self.log.watch.taps_every == 0][-1] += step
        self.log.step_finished(trainer, result)
        self.ended = time.perf_counter()
        if result.step % EVERY == 0:
            with_taps = (result.step // EVERY - 1) % self.log.watch.taps_every == 0
            self.diagnoses[with_taps].append(self.ended - began)
        trainer.stop_requested = result.step == STEPS + 1

    def share(self) -> float:
        """Of the time of so many steps, what their one diagnosis takes, in the mean over kinds."""
        step = statistics.median(self.steps)
        times = {taps: statistics.median(found) - step for taps, found in self.diagnoses.items()}
        rare = 1 / self.log.watch.taps_every
        return (rare * times[True] + (1 - rare) * times[False]) / (PROMISED * step)


def measure() -> Sequence[Promise]:
    """A diagnosed run against one that is not.

    Returns:
        One promise a method.
    """
    data = fdfa.data.load("mnist")
    torch.manual_seed(0)
    model = fdfa.models.build("fully-connected", image=(1, 28, 28), classes=10)
    return [
        Promise(
            f"diagnosed run / plain run, {method}, every={PROMISED}",
            1 + _share(method, model, data),
            most=most,
        )
        # Of DFA the steps are the shortest, and a diagnosis is no shorter.
        for method, most in (("fdfa", 1.03), ("backpropagation", 1.03), ("dfa", None))
    ]


def _share(method: str, model: torch.nn.Module, data: fdfa.data.Dataset) -> float:
    config = TrainConfig(method=method, training=SETTINGS)
    learner = fdfa.wrap(method, copy.deepcopy(model), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        watch = watch_over(config, learner, data, Diagnose(every=EVERY))
        clock = Clock(DiagnosisLog(folder, watch))
        with contextlib.suppress(TrainingInterrupted):
            Trainer(learner, SETTINGS, callbacks=[clock]).fit(data.train)
    return clock.share()

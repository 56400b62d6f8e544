"""Diagnoses while a run trains: the fixed batch, and the lines that are kept of each."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from fdfa.data.dataset import Dataset
from fdfa.diagnostics import Watch
from fdfa.engine.estimator import Estimator
from fdfa.studies.json_values import plain
from fdfa.studies.setup import Diagnose, TrainConfig
from fdfa.training import LineFiles, Sink, StepResult, Trainer

__all__ = ["DIAGNOSIS", "DiagnosisLog", "fixed_batch", "watch_over"]

DIAGNOSIS = "diagnosis.jsonl"


class DiagnosisLog(LineFiles):
    """Writes a line of ``diagnosis.jsonl`` whenever a watch has something to say.

    Like the metrics, the lines come again bit for bit when the training is repeated or resumed.
    Every process of a group makes the diagnosis, so that none waits for another and layers that
    communicate find all of them there; the first one writes.

    Args:
        folder: where the file lies; it must be there.
        watch: over the learner that is trained.
        sinks: also take the numbers; opened and closed by others.
    """

    def __init__(
        self, folder: str | os.PathLike[str], watch: Watch, *, sinks: Sequence[Sink] = ()
    ) -> None:
        super().__init__(folder, (DIAGNOSIS,))
        self.watch = watch
        self.sinks = tuple(sinks)

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        """Diagnose if it is due.

        Args:
            trainer: what trains.
            result: what the step brought.
        """
        seen = self.watch.step(result.step)
        if seen is None or not trainer.processes.first:
            return
        line = {
            "step": seen.step,
            "epoch": result.epoch,
            "parameters": seen.parameter_values(),
            "taps": seen.tap_values(),
        }
        self.append(trainer, DIAGNOSIS, plain(line))  # JSON has no word for what is no number
        for sink in self.sinks:
            sink.log(seen.numbers(), step=seen.step)


def watch_over(config: TrainConfig, learner: Estimator, data: Dataset, diagnose: Diagnose) -> Watch:
    """The watch over a run.

    Args:
        config: of the run.
        learner: that is trained.
        data: what it learns.
        diagnose: how often, and on how much.

    Returns:
        The watch; it keeps nothing that a checkpoint would have to know.
    """
    inputs, labels = fixed_batch(learner, data, diagnose.examples, seed=config.seed)
    return Watch(
        learner,
        config.training.loss_function,
        inputs,
        labels,
        every=diagnose.every,
        taps_every=diagnose.taps_every,
        probe_batch=config.training.batch_size // config.training.accumulate,
    )


def fixed_batch(
    learner: Estimator, data: Dataset, count: int, *, seed: int
) -> tuple[Tensor, Tensor]:
    """Validation examples to look at again and again; training examples where there are none.

    Args:
        learner: whose device they go to.
        data: has them; training pictures come as they are, without augmentation.
        count: how many; all where there are not so many.
        seed: says which, for they may lie in the order of their classes.

    Returns:
        Inputs and labels.
    """
    source = data.validation if len(data.validation) else data.train
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    inputs, labels = next(iter(source.augmented(None).batches([order[:count]])))
    device = next(learner.parameters()).device
    return inputs.to(device), labels.to(device)

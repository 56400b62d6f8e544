"""One run: one method, one seed, one network trained from its first to its last epoch."""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from fdfa.data.dataset import Dataset
from fdfa.diagnostics import alignment
from fdfa.engine.estimator import Estimator
from fdfa.errors import FDFAError
from fdfa.studies.json_values import plain
from fdfa.studies.run_folder import RunFolder
from fdfa.training import (
    EpochResult,
    Examples,
    Observer,
    Score,
    Trainer,
    TrainingSettings,
    evaluate,
    start_training,
)

__all__ = ["Run", "StudyObserver", "perform", "rehearse"]

# Enough for a steady cosine, few enough to cost nothing beside an epoch.
_ALIGNMENT_EXAMPLES = 256


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of one run.

    Attributes:
        method: its name.
        seed: of the weights, the order of the examples and the method's own random numbers.
        epochs: the results of the epochs that were finished.
        test: on the test examples, which are looked at once, after the last epoch; None if failed.
        alignment: cosine of each parameter's gradient with the exact one after the training, on a
            fixed batch of validation examples (``fdfa.diagnostics.alignment``).
        cosine: mean of these over the weight matrices.
        failure: why the run stopped early; None if it did not.
    """

    method: str
    seed: int
    epochs: tuple[EpochResult, ...]
    test: Score | None
    alignment: Mapping[str, float]
    cosine: float
    failure: str | None = None


class StudyObserver(Observer):
    """Is told how a study goes. Every method does nothing until a subclass overrides it."""

    def measuring_speed(self) -> None:
        """When the time of a step is measured."""

    def run_started(self, method: str, seed: int) -> None:
        """Before the first epoch of a run.

        Args:
            method: its name.
            seed: its seed.
        """

    def run_finished(self, run: Run) -> None:
        """After a run.

        Args:
            run: what came of it.
        """


def perform(
    learner: Estimator,
    data: Dataset,
    settings: TrainingSettings,
    *,
    seed: int,
    observer: StudyObserver,
    folder: RunFolder | None,
) -> Run:
    """Train a learner, then look at the test examples once.

    What goes wrong (a loss that is not finite) ends the run, not the study: see ``Run.failure``.

    Args:
        learner: freshly wrapped.
        data: what is learned.
        settings: how.
        seed: of the order of the examples.
        observer: is told of the progress.
        folder: takes a line of ``metrics.jsonl`` an epoch.

    Returns:
        The run.
    """
    validation = Examples(data.validation_inputs, data.validation_labels)
    epochs: list[EpochResult] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # dropout draws the same masks whatever the method
        trainer = Trainer(learner, settings, seed=seed, observers=[observer])
        train = Examples(data.train_inputs, data.train_labels)
        try:
            for result in trainer.epochs(train, validation):
                epochs.append(result)
                if folder is not None:
                    line = {"method": learner.method, "seed": seed, **plain(result)}
                    folder.append_line("metrics.jsonl", line)
        except FDFAError as error:
            return Run(learner.method, seed, tuple(epochs), None, {}, math.nan, str(error))
        batch = Examples(*(part[:_ALIGNMENT_EXAMPLES] for part in validation))
        cosines = alignment(learner, F.cross_entropy, *batch)
    return Run(
        method=learner.method,
        seed=seed,
        epochs=tuple(epochs),
        test=evaluate(learner, Examples(data.test_inputs, data.test_labels)),
        alignment=cosines,
        cosine=_mean_over_matrices(cosines, learner.model),
    )


def rehearse(learner: Estimator, data: Dataset) -> None:
    """One forward and backward pass of a copy: what cannot be trained as asked fails here.

    Args:
        learner: stays as it is.
        data: what is to be learned.

    Raises:
        FDFAError: whatever stands in the way.
    """
    with torch.random.fork_rng(devices=[]):
        twin = copy.deepcopy(learner)
        start_training(twin)
        loss = F.cross_entropy(twin(data.train_inputs[:2]), data.train_labels[:2])
        loss.backward()  # type: ignore[no-untyped-call]


def _mean_over_matrices(cosines: Mapping[str, float], model: nn.Module) -> float:
    """Without vectors: a bias before batch norm has no gradient but rounding noise."""
    matrices = [
        cosines[name]
        for name, parameter in model.named_parameters()
        if name in cosines and parameter.dim() > 1
    ]
    return statistics.fmean(matrices) if matrices else math.nan

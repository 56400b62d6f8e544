"""Error feedback of few dimensions: with learned factors, as many as classes are enough.

Hanut & Kadmon 2025, arXiv:2502.20580. The paper prints no learning rates: those here are ours.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import fdfa.data
from fdfa.errors import ConfigError
from fdfa.studies.costs import fresh_learner
from fdfa.studies.network import build_network
from fdfa.studies.preparation import Prepared, prepared
from fdfa.studies.reproduce.findings import Expectation, Grid, Units
from fdfa.studies.reproduce.pictures import Panel
from fdfa.studies.runs import StudyObserver, perform, weight_matrices
from fdfa.studies.setup import Machine, Setup, TrainConfig
from fdfa.studies.task import Task, resolved
from fdfa.studies.train import spelled_out
from fdfa.studies.whole_numbers import check_whole
from fdfa.training import EpochResult, Trainer, TrainingSettings

__all__ = ["LowDimensionalFeedbackSettings", "expectations", "grids", "measure", "panels"]

_DATA, _WIDTH, _DEPTH, _RATE = "cifar10", 512, 4, 0.02
_MOMENTUM, _WEIGHT_DECAY = 0.9, 1e-3
# Which factors learn.
_RULES: Mapping[str, Mapping[str, bool]] = {
    "Q and P fixed": {"learn_q": False, "learn_p": False},
    "Q learned": {"learn_q": True, "learn_p": False},
    "Q and P learned": {"learn_q": True, "learn_p": True},
}
_FIXED, _, _BOTH = _RULES
_ENOUGH_EPOCHS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowDimensionalFeedbackSettings:
    """What is trained, and with how narrow a feedback.

    Attributes:
        data: name of a data set.
        data_dir: folder with its files; default: $FDFA_DATA, then the cache, then a download.
        ranks: dimensions of the feedback.
        epochs: of each training.
        seeds: trainings of each kind.
        learning_rate: of SGD with momentum 0.9 and weight decay 0.001.
        width: units of each of the four hidden layers.
        device: cpu, cuda, cuda:1, mps, or auto for the best that is there.

    Raises:
        ConfigError: if a number is out of range, or no rank is given.

    Example:
        >>> LowDimensionalFeedbackSettings(epochs=3).ranks
        (2, 5, 9, 10, 64)
    """

    data: str = _DATA
    data_dir: str | None = None
    ranks: tuple[int, ...] = (2, 5, 9, 10, 64)
    epochs: int = 30
    seeds: int = 3
    learning_rate: float = _RATE
    width: int = _WIDTH
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check every value; data and device are looked for when they are needed."""
        if not self.ranks:
            raise ConfigError("ranks: there is no rank to train with. Name at least one.")
        for rank in self.ranks:
            check_whole("ranks", rank, least=1)
        for name in ("epochs", "seeds", "width"):
            check_whole(name, getattr(self, name), least=1)


def measure(settings: LowDimensionalFeedbackSettings, units: Units) -> None:
    """Every training: backpropagation, and each rank with fixed and with learned factors.

    Args:
        settings: of the reproduction.
        units: keeps what is measured; a training that was interrupted goes on at its checkpoint.
    """
    setup = Setup(
        task=resolved(
            Task(
                data=settings.data,
                data_dir=settings.data_dir,
                model="fully-connected",
                model_options={"width": settings.width, "depth": _DEPTH, "batch_norm": False},
            )
        ),
        training=TrainingSettings(
            epochs=settings.epochs,
            optimizer="sgd",
            learning_rate=settings.learning_rate,
            momentum=_MOMENTUM,
            weight_decay=_WEIGHT_DECAY,
        ),
        machine=Machine(device=settings.device),
    )
    with prepared(setup.task, seed=0, machine=setup.machine) as start:
        for name, method, options, seed in _trainings(settings):
            config = TrainConfig(
                method=method,
                options=options,
                seed=seed,
                **vars(setup) | {"machine": start.machine},
            )
            units.get(
                name,
                functools.partial(_trained, name, spelled_out(config), start, units),
                lambda found: f"test accuracy {100 * found['accuracy']:.2f} %",
            )


def _trainings(
    settings: LowDimensionalFeedbackSettings,
) -> Iterator[tuple[str, str, Mapping[str, Any], int]]:
    """Name, method, its options and seed of every training."""
    # As much of Q - W^T P^T is forgotten in a step as of W: the rate that SGD with momentum has.
    decay = settings.learning_rate * _WEIGHT_DECAY / (1 - _MOMENTUM)
    for seed in range(settings.seeds):
        yield _name("backpropagation", None, seed), "backpropagation", {}, seed
        for rank in settings.ranks:
            for rule, learned in _RULES.items():
                options = {"rank": rank, "decay": decay, **learned}
                yield _name(rule, rank, seed), "ldfa", options, seed


def _name(rule: str, rank: int | None, seed: int) -> str:
    return f"{rule}{'' if rank is None else f', rank {rank}'}, seed {seed}"


class _Epochs(StudyObserver):
    """A line about an epoch, now and then."""

    SILENCE = 10.0  # seconds after which an epoch is worth a line

    def __init__(self, name: str, epochs: int, told: Callable[[str], None]) -> None:
        self.name, self.epochs, self.told = name, epochs, told
        self.spoken = time.perf_counter()

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        if time.perf_counter() - self.spoken >= self.SILENCE:
            self.told(f"{self.name}: epoch {result.epoch}/{self.epochs}")
            self.spoken = time.perf_counter()


def _trained(name: str, config: TrainConfig, start: Prepared, units: Units) -> dict[str, Any]:
    """Accuracy on the test examples, and each layer's cosine with the true gradient."""
    network = build_network(config.task, start.data, seed=config.seed).to(start.device)
    own = None
    if units.folder is not None:
        own = units.folder.run(name.replace(", ", "-").replace(" ", "-").lower())
        own.write_json("config.json", {"train": config, "environment": start.environment})
    learner = fresh_learner(config, network, start.data)
    observer = _Epochs(name, config.training.epochs, units.told)
    run = perform(config, learner, start.data, observer=observer, folder=own)
    if run.test is None:
        return {"accuracy": 0.0, "cosines": {}, "failure": run.failure}
    cosines = {layer: run.alignment[layer] for layer in weight_matrices(learner.model)}
    return {"accuracy": run.test.accuracy, "cosines": cosines, "failure": None}


def expectations(
    settings: LowDimensionalFeedbackSettings, units: Mapping[str, Any]
) -> list[Expectation]:
    """What the paper says, as numbers, beside what was found.

    Args:
        settings: of the reproduction.
        units: what was measured.

    Returns:
        Those of the ranks that were trained.
    """
    accuracy = functools.partial(_accuracy, settings, units)
    same = (settings.data, settings.width, settings.learning_rate) == (_DATA, _WIDTH, _RATE)
    judged = same and settings.epochs >= _ENOUGH_EPOCHS
    found: list[Expectation] = []
    classes, knee = _classes(settings), _classes(settings) - 1
    if classes in settings.ranks:
        learned, fixed = accuracy(_BOTH, classes), accuracy(_FIXED, classes)
        why = "as many dimensions as classes match backpropagation"
        gap = learned - accuracy("backpropagation", None)
        what = f"rank {classes}, {_BOTH}: accuracy less backpropagation's"
        found.append(Expectation(what, -0.01, math.inf, gap, judged, why))
        what = f"rank {classes}, {_BOTH}: accuracy less that with {_FIXED}"
        why = "fixed feedback of few dimensions misassigns credit"
        found.append(Expectation(what, 0.01, math.inf, learned - fixed, judged, why))
        for rule, least, most in ((_BOTH, 0.6, 1.0), (_FIXED, -1.0, 0.35)):
            cosine = _early_cosine(settings, units, rule, classes)
            what = f"rank {classes}, {rule}: cosine with the true gradient, layers 1 and 2"
            found.append(Expectation(what, least, most, cosine, judged, why))
    if 5 < knee < 64 and {5, knee, 64} <= set(settings.ranks):
        few, enough, many = (accuracy(_BOTH, rank) for rank in (5, knee, 64))
        why = "the error of a softmax has one dimension less than classes"
        what = f"{_BOTH}: accuracy at rank 64 less that at rank {knee}"
        found.append(Expectation(what, -math.inf, 0.01, many - enough, judged, why))
        what = f"{_BOTH}: accuracy won from rank 5 to {knee}, less that from {knee} to 64"
        won = enough - few - (many - enough)
        found.append(Expectation(what, 0.0, math.inf, won, judged, why))
    return found


def _classes(settings: LowDimensionalFeedbackSettings) -> int:
    """Of the data set; 0 where its files decide, and no rank is that of the classes."""
    return fdfa.data.describe(settings.data).classes or 0


def grids(settings: LowDimensionalFeedbackSettings, units: Mapping[str, Any]) -> list[Grid]:
    """All accuracies, and all cosines of the first two layers.

    Args:
        settings: of the reproduction.
        units: what was measured.

    Returns:
        Two tables: a row a rule, a column a rank.
    """
    heads = ("", *(f"rank {rank}" for rank in settings.ranks))
    accuracy = functools.partial(_accuracy, settings, units)
    full = 100 * accuracy("backpropagation", None)
    accuracies = [
        (rule, *(f"{100 * accuracy(rule, rank):.2f}" for rank in settings.ranks)) for rule in _RULES
    ]
    cosines = [
        (rule, *(f"{_early_cosine(settings, units, rule, r):.2f}" for r in settings.ranks))
        for rule in _RULES
    ]
    return [
        Grid(f"Test accuracy, %; backpropagation {full:.2f}", heads, accuracies),
        Grid("Cosine with the true gradient, mean of layers 1 and 2", heads, cosines),
    ]


def panels(settings: LowDimensionalFeedbackSettings, units: Mapping[str, Any]) -> list[Panel]:
    """What a picture shows: accuracy and cosine by rank.

    Args:
        settings: of the reproduction.
        units: what was measured.

    Returns:
        Two panels, with a mark at one dimension less than classes, where these are known.
    """
    accuracy = functools.partial(_accuracy, settings, units)
    ranks = sorted(settings.ranks)
    full = 100 * accuracy("backpropagation", None)
    accuracies: dict[str, list[tuple[float, float]]] = {
        "backpropagation": [(rank, full) for rank in ranks],
        **{rule: [(rank, 100 * accuracy(rule, rank)) for rank in ranks] for rule in _RULES},
    }
    cosines: dict[str, list[tuple[float, float]]] = {
        "backpropagation": [(rank, 1.0) for rank in ranks],
        **{
            rule: [(rank, _early_cosine(settings, units, rule, rank)) for rank in ranks]
            for rule in _RULES
        },
    }
    knee = _classes(settings) - 1.0  # a line in its place; a number would touch the next one
    ticks = tuple(float(rank) for rank in ranks if rank != knee)
    panel = functools.partial(Panel, x="rank", log_x=True, marks=(knee,) * (knee > 0), ticks=ticks)
    return [
        panel(title=settings.data, y="test accuracy (%)", lines=accuracies),
        panel(
            title=f"{settings.data}, layers 1 and 2",
            y="cosine with the true gradient",
            lines=cosines,
        ),
    ]


def _accuracy(
    settings: LowDimensionalFeedbackSettings,
    units: Mapping[str, Any],
    rule: str,
    rank: int | None,
) -> float:
    """Mean over the seeds."""
    return statistics.fmean(unit["accuracy"] for unit in _units(settings, units, rule, rank))


def _early_cosine(
    settings: LowDimensionalFeedbackSettings, units: Mapping[str, Any], rule: str, rank: int
) -> float:
    """Mean over the seeds and the first two layers, which the error reaches last."""
    values = [list(u["cosines"].values())[:2] for u in _units(settings, units, rule, rank)]
    known = [value for pair in values for value in pair if value is not None]
    return statistics.fmean(known) if known else math.nan


def _units(
    settings: LowDimensionalFeedbackSettings,
    units: Mapping[str, Any],
    rule: str,
    rank: int | None,
) -> list[Mapping[str, Any]]:
    return [units[_name(rule, rank, seed)] for seed in range(settings.seeds)]

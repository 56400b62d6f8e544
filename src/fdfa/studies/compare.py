"""Several methods on the same task, from the same weights, in the same order of examples."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fdfa.data.dataset import Dataset
from fdfa.engine.estimator import Estimator
from fdfa.errors import ConfigError
from fdfa.methods import wrap
from fdfa.studies.options import resolved_options, seeded
from fdfa.studies.plots import write_learning_curves
from fdfa.studies.preparation import prepare
from fdfa.studies.results import Comparison, summarize
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import Run, StudyObserver, perform
from fdfa.studies.speed import StepTime, step_times
from fdfa.studies.task import Task, build_network, resolved
from fdfa.studies.threads import using_threads
from fdfa.training import Examples, TrainingSettings

__all__ = ["CompareConfig", "StudyInterrupted", "compare"]

_REFERENCE = "backpropagation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Which methods are compared, and on what.

    Attributes:
        methods: names of the methods, as `fdfa methods` lists them.
        options: of the methods, as in fdfa.feedback_rate=0.05 fdfa.probe_every=4.
        seeds: runs of each method; run s starts every method from the same weights.
        first_seed: seed of the first run.
        timing_rounds: rounds, at least, in which the time of a step is measured; 10 or more.
        threads: CPU threads; default: 1 for a network of under a million parameters, where more
            would only wait for each other, else torch's own choice.
        task: what is learned, and by which network.
        training: how it is trained.

    Raises:
        ConfigError: if a value is out of range or a method is named twice.

    Example:
        >>> CompareConfig(methods=("backpropagation", "fdfa"), seeds=1).task.data
        'digits'
    """

    methods: tuple[str, ...] = ("backpropagation", "dfa", "fdfa")
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    seeds: int = 3
    first_seed: int = 0
    timing_rounds: int = 20
    threads: int | None = None
    task: Task = dataclasses.field(default_factory=Task)
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        """Check every value."""
        if not self.methods:
            raise ConfigError("methods: there is nothing to compare. Name at least one method.")
        for name in self.methods:
            if self.methods.count(name) > 1:
                raise ConfigError(f"methods: {name!r} is named twice. Name each method once.")
        for name, lowest in (("seeds", 1), ("first_seed", 0), ("timing_rounds", 10)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
                raise ConfigError(
                    f"{name}={value!r} is not possible. Give a whole number from {lowest}."
                )


class StudyInterrupted(KeyboardInterrupt):
    """Ctrl-C during a study; what was finished before is kept.

    Args:
        comparison: of the runs that were finished.

    Attributes:
        comparison: the same.
    """

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self.comparison = comparison


def compare(
    config: CompareConfig,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    observer: StudyObserver | None = None,
) -> Comparison:
    """Train every method from every seed and put the results side by side.

    Runs of one seed share the initial weights and the order of the examples. The test examples are
    looked at once a run, after its last epoch. The time of a step is measured apart from the runs,
    turn by turn, before the first of them.

    Args:
        config: what to compare.
        out: folder for ``config.json``, ``metrics.jsonl``, ``results.json`` and learning curves.
        overwrite: whether the files of an earlier run in it may be replaced.
        observer: is told of the progress.

    Returns:
        The comparison.

    Raises:
        ConfigError: if a name or a value in the configuration is wrong, or ``out`` is not empty.
        StudyInterrupted: after Ctrl-C, with what was finished.

    Example:
        >>> quick = CompareConfig(methods=("fdfa",), seeds=1, training=TrainingSettings(epochs=3))
        >>> compare(quick).summaries[0].test_accuracy.mean > 0.8
        True
    """
    observer = observer or StudyObserver()
    config = _spelled_out(config)
    start = prepare(
        config.task, seed=config.first_seed, threads=config.threads, out=out, overwrite=overwrite
    )
    data, network = start.data, start.network
    config = dataclasses.replace(config, threads=start.threads)
    with using_threads(start.threads):
        # Whatever cannot be trained as asked fails here, before an earlier run's file is replaced.
        observer.measuring_speed()
        times = _measure_speed(config, network, data)
        folder = start.open_folder(compare=config)
        runs: list[Run] = []
        complete = False
        try:
            for seed in range(config.first_seed, config.first_seed + config.seeds):
                network = build_network(config.task, data, seed=seed)
                for method, learner in _learners(config, network, seed=seed).items():
                    observer.run_started(method, seed)
                    run = perform(
                        learner, data, config.training, seed=seed, observer=observer, folder=folder
                    )
                    runs.append(run)
                    observer.run_finished(run)
            complete = True
        except KeyboardInterrupt:
            pass  # what is finished is worth keeping
    comparison = Comparison(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        complete=complete,
        summaries=summarize(config.methods, runs, times),
        runs=tuple(runs),
    )
    if folder is not None:
        comparison = _written(comparison, folder, f"{config.task.data}, {config.task.model}")
    if not complete:
        raise StudyInterrupted(comparison)
    return comparison


def _spelled_out(config: CompareConfig) -> CompareConfig:
    """With every default of the methods and the network in place."""
    for name in config.options:
        if name not in config.methods:
            raise ConfigError(
                f"options: {name!r} takes no part in the comparison. Add it to the methods, or "
                "leave its options out."
            )
    return dataclasses.replace(
        config,
        task=resolved(config.task),
        options={
            name: resolved_options(name, config.options.get(name, {})) for name in config.methods
        },
    )


def _learners(config: CompareConfig, network: nn.Module, *, seed: int) -> dict[str, Estimator]:
    """Every method around a copy of the same network."""
    return {
        name: wrap(name, copy.deepcopy(network), **seeded(config.options[name], seed))
        for name in config.methods
    }


def _measure_speed(config: CompareConfig, network: nn.Module, data: Dataset) -> dict[str, StepTime]:
    size = config.training.batch_size
    batch = Examples(data.train_inputs[:size], data.train_labels[:size])
    contestants = {
        _REFERENCE: wrap(_REFERENCE, copy.deepcopy(network)),
        **_learners(config, network, seed=config.first_seed),
    }
    return step_times(contestants, batch, reference=_REFERENCE, rounds=config.timing_rounds)


def _written(comparison: Comparison, folder: RunFolder, subject: str) -> Comparison:
    """Write results and pictures; the comparison knows the files afterwards."""
    folder.write_json("results.json", comparison.report())
    notes = write_learning_curves(comparison.runs, folder, subject=subject)
    return dataclasses.replace(comparison, notes=notes, files=tuple(folder.files))

"""Several methods on the same task, from the same weights, in the same order of examples."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from fdfa.errors import ConfigError
from fdfa.methods import methods
from fdfa.studies.costs import Costs, fresh_learner, measured_costs, serving
from fdfa.studies.network import build_network
from fdfa.studies.options import resolved_options
from fdfa.studies.plots import write_learning_curves
from fdfa.studies.preparation import Prepared, prepared
from fdfa.studies.records import from_json
from fdfa.studies.results import Comparison, summarize
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import Run, StudyObserver, perform, recall, weight_matrices
from fdfa.studies.same_run import check_same_run
from fdfa.studies.setup import CompareConfig, TrainConfig
from fdfa.studies.sinks import check_records
from fdfa.studies.task import resolved
from fdfa.studies.train import TrainReport

__all__ = [
    "CompareConfig",
    "StudyInterrupted",
    "compare",
    "comparison_spelled_out",
    "continue_comparison",
]


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
    looked at once a run, after its last epoch. Time and memory of a step are measured apart from
    the runs, before the first of them, the time turn by turn.

    Args:
        config: what to compare.
        out: folder for ``config.json``, ``results.json``, learning curves, and in ``runs`` a
            folder for each run, as ``train`` writes it.
        overwrite: whether the files of an earlier run in it may be replaced.
        observer: is told of the progress.

    Returns:
        The comparison.

    Raises:
        ConfigError: if a name or a value in the configuration is wrong, or ``out`` is not empty.
        StudyInterrupted: after Ctrl-C, with what was finished.

    Example:
        >>> from fdfa.training import TrainingSettings
        >>> quick = CompareConfig(methods=("fdfa",), seeds=1, training=TrainingSettings(epochs=3))
        >>> compare(quick).summaries[0].test_accuracy.mean > 0.8
        True
    """
    config = comparison_spelled_out(config)
    check_records(config.records, out)
    if out is not None:
        RunFolder.check(out, overwrite=overwrite)
    observer = observer or StudyObserver()
    with _prepared(config, observer) as start:
        # Whatever cannot be trained as asked fails here, before an earlier run's file is replaced.
        config, left_out = serving(config, start.network, start.data)
        config = dataclasses.replace(config, machine=start.machine)
        if out is None:
            return _compared(config, start, left_out, None, observer)
        with RunFolder.fresh(out, overwrite=overwrite) as folder:
            folder.write_json("config.json", {"compare": config, "environment": start.environment})
            return _compared(config, start, left_out, folder, observer)


def continue_comparison(
    folder: RunFolder,
    config: CompareConfig,
    *,
    data_sha256: str | None,
    observer: StudyObserver | None = None,
) -> Comparison:
    """Go on with a comparison: finished runs are read, the others made or gone on with.

    Args:
        folder: of the comparison.
        config: that stands in it.
        data_sha256: checksum of its data.
        observer: is told of the progress.

    Returns:
        The comparison.

    Raises:
        ConfigError: if the data are not those of the comparison.
        CheckpointError: if a checkpoint is damaged or lacks something.
        StudyInterrupted: after Ctrl-C, with what was finished.
    """
    observer = observer or StudyObserver()
    with _prepared(config, observer, data_sha256=data_sha256) as start, folder.held():
        return _compared(config, start, {}, folder, observer)


def _prepared(
    config: CompareConfig, observer: StudyObserver, *, data_sha256: str | None = None
) -> contextlib.AbstractContextManager[Prepared]:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "a comparison runs in one process. Train each method with "
            "`torchrun ... -m fdfa train` instead."
        )
    return prepared(
        config.task,
        seed=config.first_seed,
        machine=config.machine,
        data_sha256=data_sha256,
        downloading=observer.downloading,
    )


def _compared(
    config: CompareConfig,
    start: Prepared,
    left_out: Mapping[str, str],
    folder: RunFolder | None,
    observer: StudyObserver,
) -> Comparison:
    observer.runs_planned(len(config.methods) * config.seeds)
    costs = _costs(config, start, left_out, folder, observer)
    runs: list[Run] = []
    complete = False
    try:
        for seed in range(config.first_seed, config.first_seed + config.seeds):
            network = build_network(config.task, start.data, seed=seed).to(start.device)
            for method in config.methods:
                run = _run(config.run_of(method, seed), start, network, folder, observer)
                runs.append(run)  # at once: an interruption loses nothing
        complete = True
    except KeyboardInterrupt:
        pass  # what is finished is worth keeping
    comparison = Comparison(
        parameters=sum(parameter.numel() for parameter in start.network.parameters()),
        layers=weight_matrices(start.network),
        complete=complete,
        summaries=summarize(config, runs, costs),
        left_out=costs.left_out,
        runs=tuple(runs),
    )
    if folder is not None and complete:
        folder.note("config.json", "costs.json")
        comparison = _written(comparison, folder, f"{config.task.data}, {config.task.model}")
    if not complete:
        raise StudyInterrupted(comparison)
    return comparison


def _run(
    config: TrainConfig,
    start: Prepared,
    network: nn.Module,
    folder: RunFolder | None,
    observer: StudyObserver,
) -> Run:
    """A run in a folder of its own; from its record, if it was finished before."""
    own = None if folder is None else folder.run(f"{config.method}-seed-{config.seed}")
    if own is not None:
        check_same_run(own, config)
        if (before := recall(own)) is not None:
            observer.run_started(config.method, config.seed)
            observer.run_finished(before)
            return before
        own.write_json("config.json", {"train": config, "environment": start.environment})
    learner = fresh_learner(config, network, start.data)
    # However a method fails, the others go on.
    run = perform(config, learner, start.data, observer=observer, folder=own, failures=Exception)
    if own is not None:
        parameters = sum(parameter.numel() for parameter in network.parameters())
        own.write_json("results.json", TrainReport(run, parameters).report())
    observer.run_finished(run)
    return run


def comparison_spelled_out(config: CompareConfig) -> CompareConfig:
    """With every default of the methods and the network in place.

    Args:
        config: as the user gave it.

    Returns:
        What belongs into ``config.json``.

    Raises:
        ConfigError: if a name in it is unknown.
    """
    for what, names in (("options", config.options), ("rate_shares", config.rate_shares)):
        for name in names:
            if name not in config.candidates:
                raise ConfigError(
                    f"{what}: {name!r} takes no part in the comparison. Add it to the methods, or "
                    f"leave its {what} out."
                )
    for name, share in config.rate_shares.items():
        if not 0 < share < math.inf:
            raise ConfigError(
                f"rate_shares: {name}={share!r} is not possible. Give a positive number."
            )
    return dataclasses.replace(
        config,
        task=resolved(config.task),
        options={
            name: resolved_options(name, config.options.get(name, {})) for name in config.candidates
        },
        rate_shares={
            name: config.rate_shares.get(name, methods()[name].rate_share)
            for name in config.candidates
        },
    )


def _costs(
    config: CompareConfig,
    start: Prepared,
    left_out: Mapping[str, str],
    folder: RunFolder | None,
    observer: StudyObserver,
) -> Costs:
    """Measured once: a comparison that goes on reads what it measured before."""
    if folder is not None and (saved := folder.read_json("costs.json")) is not None:
        return from_json(Costs, saved, where=str(folder.path / "costs.json"))
    observer.measuring_costs()
    costs = measured_costs(config, start, left_out)
    if folder is not None:
        folder.write_json("costs.json", costs)
    return costs


def _written(comparison: Comparison, folder: RunFolder, subject: str) -> Comparison:
    """Write results and pictures; the comparison knows the files afterwards."""
    notes = write_learning_curves(comparison.runs, folder, subject=subject)
    folder.write_json("results.json", comparison.report())
    return dataclasses.replace(comparison, notes=notes, files=tuple(folder.files))

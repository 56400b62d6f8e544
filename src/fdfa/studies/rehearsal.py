"""A study up to the point where it would start: nothing is trained, nothing is written."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from fdfa.studies.compare import comparison_spelled_out
from fdfa.studies.costs import fresh_learner, serving
from fdfa.studies.preparation import Prepared, prepared
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.setup import CompareConfig, Diagnose, TrainConfig
from fdfa.studies.sinks import check_records
from fdfa.studies.train import spelled_out
from fdfa.studies.trial_step import rehearse

__all__ = ["Rehearsal", "rehearse_study"]


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What a study would do.

    Attributes:
        data: name of the data set.
        model: name of the network.
        model_options: of the network, every default in place.
        parameters: of the network.
        methods: that would be trained; each has made a step on a copy.
        left_out: methods that are not defined for the network, and why, if all were asked for.
        runs: number of trainings.
        examples: training, validation and test examples.
        steps: optimiser steps of a run, at most.
        device: where.
        threads: CPU threads.
        out: folder that would be written; None for none.
        diagnose: how often each would be diagnosed, and on how much; None for never.
    """

    data: str
    model: str
    model_options: dict[str, object]
    parameters: int
    methods: tuple[str, ...]
    left_out: dict[str, str]
    runs: int
    examples: tuple[int, int, int]
    steps: int
    device: str
    threads: int
    out: str | None
    diagnose: Diagnose | None


def rehearse_study(
    config: TrainConfig | CompareConfig,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Rehearsal:
    """Find whatever would stop a study at its start.

    Args:
        config: of the study.
        out: its folder.
        overwrite: whether the files of an earlier run in it may be replaced.

    Returns:
        What the study would do.

    Raises:
        FDFAError: whatever stands in the way.

    Example:
        >>> rehearse_study(TrainConfig()).examples
        (1297, 200, 300)
    """
    check_records(config.records, out)
    if out is not None:
        RunFolder.check(out, overwrite=overwrite)
    if isinstance(config, CompareConfig):
        config = comparison_spelled_out(config)
        seed, runs = config.first_seed, config.seeds
    else:
        config = spelled_out(config)
        seed, runs = config.seed, 1
    task, training = config.task, config.training
    with prepared(task, seed=seed, machine=config.machine) as start:
        methods, left_out = _rehearsed(config, start)
        data = start.data
        return Rehearsal(
            data=task.data,
            model=task.model,
            model_options=dict(task.model_options),
            parameters=sum(parameter.numel() for parameter in start.network.parameters()),
            methods=methods,
            left_out=left_out,
            runs=len(methods) * runs,
            examples=(len(data.train), len(data.validation), len(data.test)),
            steps=training.epochs * math.ceil(len(data.train) / training.batch_size),
            device=start.machine.device,
            threads=start.machine.threads or 1,
            out=None if out is None else str(out),
            diagnose=config.records.diagnose,
        )


def _rehearsed(
    config: TrainConfig | CompareConfig, start: Prepared
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The methods that would be trained, and those that cannot be."""
    if isinstance(config, CompareConfig):
        config, left_out = serving(config, start.network, start.data)
        return config.methods, left_out
    rehearse(config, fresh_learner(config, start.network, start.data), start.data)
    return (config.method,), {}

"""A study up to the point where it would start: nothing is trained, nothing is written."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from fdfa.methods import wrap
from fdfa.studies.options import resolved_options, seeded
from fdfa.studies.preparation import prepared
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.setup import CompareConfig, TrainConfig
from fdfa.studies.sinks import check_sinks
from fdfa.studies.task import resolved
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
        runs: number of trainings.
        examples: training, validation and test examples.
        steps: optimiser steps of a run, at most.
        device: where.
        threads: CPU threads.
        out: folder that would be written; None for none.
    """

    data: str
    model: str
    model_options: dict[str, object]
    parameters: int
    methods: tuple[str, ...]
    runs: int
    examples: tuple[int, int, int]
    steps: int
    device: str
    threads: int
    out: str | None


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
    check_sinks(config.records, out)
    if out is not None:
        RunFolder.check(out, overwrite=overwrite)
    if isinstance(config, CompareConfig):
        methods, seed, runs = config.methods, config.first_seed, config.seeds
        configs = [config.run_of(method, seed) for method in methods]
    else:
        methods, seed, runs, configs = (config.method,), config.seed, 1, [config]
    task, training = resolved(config.task), config.training
    with prepared(task, seed=seed, machine=config.machine) as start:
        for single in configs:
            options = seeded(resolved_options(single.method, single.options), seed)
            rehearse(single, wrap(single.method, start.network, **options), start.data)
        data = start.data
        return Rehearsal(
            data=task.data,
            model=task.model,
            model_options=dict(task.model_options),
            parameters=sum(parameter.numel() for parameter in start.network.parameters()),
            methods=methods,
            runs=len(methods) * runs,
            examples=(len(data.train), len(data.validation), len(data.test)),
            steps=training.epochs * math.ceil(len(data.train) / training.batch_size),
            device=start.machine.device,
            threads=start.machine.threads or 1,
            out=None if out is None else str(out),
        )

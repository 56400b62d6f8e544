"""Why a trained rule learned: its runs diagnosed after the fact, with pictures side by side."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fdfa.data.dataset import Dataset
from fdfa.diagnostics import (
    CreditError,
    credit_errors,
    diagnose,
    linear_cka,
    tapped_activations,
)
from fdfa.engine.estimator import Estimator
from fdfa.engine.random_state import random_state_of
from fdfa.errors import CheckpointError, ConfigError, UnsupportedModelError
from fdfa.studies.diagnosed import Diagnosed, DiagnosedRun, Likeness, Looked
from fdfa.studies.diagnosis_files import diagnosis_folder, write_diagnosis
from fdfa.studies.diagnosis_log import fixed_batch
from fdfa.studies.learners import make_learner
from fdfa.studies.network import build_network
from fdfa.studies.network_pictures import first_kernels
from fdfa.studies.options import seeded
from fdfa.studies.preparation import Prepared, prepared
from fdfa.studies.run_groups import StoredRun, rules_of, stored_runs
from fdfa.studies.runs import weight_matrices
from fdfa.studies.whole_numbers import check_whole
from fdfa.training import eval_mode, read_checkpoint, restore_learner

__all__ = ["DiagnoseConfig", "diagnose_runs"]

_LOOKED_AT = 1000  # examples whose representations are compared


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagnoseConfig:
    """How runs are diagnosed after the fact.

    Attributes:
        examples: validation examples on which the rules are measured; the same for all runs.
        draws: of a rule's own noise.
        data_dir: folder with the data set's files, if it is not where it was.
        device: cpu, cuda, cuda:1, mps, or auto for the best that is there.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> DiagnoseConfig(draws=100).examples
        256
    """

    examples: int = 256
    draws: int = 32
    data_dir: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check both numbers; batch norm refuses a batch of one."""
        check_whole("examples", self.examples, least=2)
        check_whole("draws", self.draws, least=1)


def diagnose_runs(
    paths: Sequence[str | Path],
    config: DiagnoseConfig | None = None,
    *,
    out: str | Path | None = None,
) -> Diagnosed:
    """Diagnose runs at their last checkpoints, and draw how they got there.

    Args:
        paths: folders of runs or comparisons, on the same data.
        config: on how much.
        out: folder for ``diagnosis.json`` and the pictures; default: the one that was named, if
            it is one.

    Returns:
        What was found.

    Raises:
        ConfigError: if a folder holds no run, the runs are of different data, or ``out`` is missing
            or not empty.
        CheckpointError: if a run has no checkpoint, or a damaged one.

    Example:
        >>> import tempfile
        >>> from fdfa.studies.train import TrainConfig, train
        >>> from fdfa.training import TrainingSettings
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = train(TrainConfig(training=TrainingSettings(epochs=1)), out=folder)
        ...     found = diagnose_runs([folder])
        >>> found.runs[0].gradients.parameters["output.weight"].angle.value < 1
        True
    """
    config = config or DiagnoseConfig()
    folder = diagnosis_folder(paths, out)
    rules = rules_of(stored_runs(paths))
    notes: list[str] = []
    diagnosed: list[DiagnosedRun] = []
    looked: dict[str, dict[int, Looked]] = {}
    first = next(iter(rules.values()))[0]
    task = first.config.task
    if config.data_dir is not None:
        task = dataclasses.replace(task, data_dir=config.data_dir)
    with prepared(
        task,
        seed=first.config.seed,
        machine=dataclasses.replace(first.config.machine, device=config.device),
        data_sha256=first.data_sha256,
    ) as start:
        batch: tuple[Tensor, Tensor] | None = None
        for rule, runs in rules.items():
            for run in runs:
                try:
                    learner, step = _learner(run, start)
                except CheckpointError as error:
                    if run.named:
                        raise
                    notes.append(f"{run.folder.path} is left out: {error}")
                    continue
                batch = batch or fixed_batch(learner, start.data, config.examples, seed=0)
                diagnosed.append(_diagnosed(rule, run, learner, step, batch, config.draws))
                looked.setdefault(rule, {})[run.config.seed] = _looked(learner, start.data, notes)
        labels = _shown_examples(start.data)[1]
    if not diagnosed or batch is None:
        raise CheckpointError(
            f"none of the runs has a checkpoint to be diagnosed: {' '.join(notes)}"
        )
    found = Diagnosed(
        subject=f"{task.data}, {task.model}",
        examples=len(batch[1]),
        runs=tuple(diagnosed),
        likeness=_likeness(looked),
        notes=tuple(dict.fromkeys(notes)),
    )
    return write_diagnosis(found, rules, looked, labels, folder)


def _learner(run: StoredRun, start: Prepared) -> tuple[Estimator, int]:
    """A run's learner as its last checkpoint has it, and the step of that."""
    checkpoint = read_checkpoint(run.folder.checkpoints)
    network = build_network(run.config.task, start.data, seed=run.config.seed).to(start.device)
    options = seeded(run.config.options, run.config.seed)
    learner = make_learner(run.config.method, network, start.data, options)
    try:
        restore_learner(learner, checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"'{run.folder.path}': {error}") from error
    return learner, checkpoint.step


def _diagnosed(
    rule: str,
    run: StoredRun,
    learner: Estimator,
    step: int,
    batch: tuple[Tensor, Tensor],
    draws: int,
) -> DiagnosedRun:
    credits: Mapping[str, CreditError] = {}
    why, settings = None, run.config.training
    with random_state_of(0):  # the same dropout masks for all
        gradients = diagnose(learner, settings.loss_function, [batch], draws=draws)
        try:
            credits = credit_errors(
                learner, settings.loss_function, *batch, probe_batch=settings.batch_size
            )
        except ConfigError as error:
            why = str(error)
    return DiagnosedRun(
        run=str(run.folder.path),
        rule=rule,
        method=run.config.method,
        seed=run.config.seed,
        step=step,
        layers=weight_matrices(learner.model),
        gradients=gradients,
        credits=credits,
        without_credits=why,
    )


def _looked(learner: Estimator, data: Dataset, notes: list[str]) -> Looked:
    """Kernels, and representations in eval mode."""
    model = learner.model
    inputs, _ = _shown_examples(data)
    inputs = inputs.to(next(model.parameters()).device)
    activations: Mapping[str, Tensor] = {}
    try:
        with eval_mode(model):
            activations = tapped_activations(model, inputs)
    except UnsupportedModelError as error:
        notes.append(f"No picture of the hidden representations: {error}")
    kernels = first_kernels(model, data.shape)
    if kernels is None:
        notes.append("No picture of the kernels: the first weight reads no pictures (C, H, W).")
    return Looked(kernels, activations)


def _shown_examples(data: Dataset) -> tuple[Tensor, Tensor]:
    source = data.validation if len(data.validation) else data.train
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    return next(iter(source.augmented(None).batches([order[:_LOOKED_AT]])))


def _likeness(looked: Mapping[str, Mapping[int, Looked]]) -> dict[str, dict[str, Likeness]]:
    """Of every rule but the first to the first, at the taps that both have."""
    (_, reference), *others = looked.items()
    found: dict[str, dict[str, Likeness]] = {}
    for rule, by_seed in others:
        seeds = sorted(by_seed.keys() & reference.keys())
        pairs = [(reference[seed].activations, by_seed[seed].activations) for seed in seeds]
        # Of no common seed: the first of each. Their weights began elsewhere, but so it is.
        if not pairs:
            firsts = [runs[min(runs)].activations for runs in (reference, by_seed)]
            pairs = [(firsts[0], firsts[1])]
        taps = [tap for tap in pairs[0][0] if all(tap in a and tap in b for a, b in pairs)]
        for tap in taps:
            values = [linear_cka(a[tap], b[tap]) for a, b in pairs]
            found.setdefault(rule, {})[tap] = Likeness(
                statistics.fmean(values), min(values), max(values), len(values)
            )
    return found

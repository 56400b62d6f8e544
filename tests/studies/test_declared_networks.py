"""The networks and rules of the declared tables, on noise in the place of the data."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import fdfa.data
from fdfa.data import Normalization
from fdfa.data.dataset import Dataset, assemble
from fdfa.engine.tapped import TappedEstimator
from fdfa.studies.learners import make_learner
from fdfa.studies.network import build_network
from fdfa.studies.reproduce import reproductions
from fdfa.studies.reproduce.declaration import TrainingTable
from fdfa.studies.reproduce.planned_runs import PlannedRun, TableSettings, planned_runs
from fdfa.studies.trial_step import gradient_step

TABLES = [name for name, r in reproductions().items() if isinstance(r.declaration, TrainingTable)]


def _runs(study: str) -> dict[str, PlannedRun]:
    table = reproductions()[study].declaration
    assert isinstance(table, TrainingTable)
    runs = planned_runs(table, TableSettings(device="cpu"), seeds=1)
    return {run.name.removesuffix("-seed-0"): run for run in runs}


def _noise(name: str, examples: int = 4) -> Dataset:
    """Pictures of a data set's shape that show nothing."""
    source = fdfa.data.describe(name)
    assert source.shape is not None
    assert source.classes is not None
    inputs = torch.randint(0, 256, (examples, *source.shape), dtype=torch.uint8)
    part = (inputs, torch.arange(examples))
    return assemble(
        name,
        train=part,
        test=part,
        classes=source.classes,
        validation=0,
        normalization=Normalization(),
    )


def _network(run: PlannedRun) -> tuple[nn.Module, Dataset]:
    data = _noise(run.config.task.data)
    return build_network(run.config.task, data, seed=0), data


@pytest.mark.parametrize(("task", "units"), [("mnist", 24_768), ("cifar10", 34_928)])
@pytest.mark.parametrize("rule", ["fg-a", "dfa", "dkp", "fdfa"])
def test_the_convolutional_network_is_tapped_where_the_authors_tap_it(
    rule: str, task: str, units: int
) -> None:
    run = _runs("fdfa-cnn")[f"{task}-{rule}"]
    network, data = _network(run)
    learner = make_learner(run.config.method, network, data, run.config.options)
    assert isinstance(learner, TappedEstimator)
    plan = learner.plan(data.train.first(2)[0])
    assert sum(math.prod(tap.shape[1:]) for tap in plan.taps) == units


def test_random_feedback_starts_from_nothing_but_where_units_rectify() -> None:
    for name, run in _runs("nokland-dfa").items():
        network, _ = _network(run)
        starts_at_zero = not any(parameter.any() for parameter in network.parameters())
        rectifies = any(isinstance(layer, nn.ReLU) for layer in network.modules())
        backpropagation = run.config.method == "backpropagation"
        assert starts_at_zero == (not backpropagation and not rectifies), name


@pytest.mark.slow
@pytest.mark.parametrize("study", TABLES)
def test_every_rule_can_take_two_steps_in_every_network(study: str) -> None:
    for name, run in _runs(study).items():
        network, data = _network(run)
        learner = make_learner(run.config.method, network, data, run.config.options)
        settings = run.config.training
        optimizer = settings.make_optimizer(learner.parameters())
        inputs, labels = data.train.first(4)
        before = [parameter.detach().clone() for parameter in learner.model.parameters()]
        for _ in range(2):  # where feedback starts at zero, the first gives hidden layers nothing
            gradient_step(learner, inputs, labels, settings.loss_function)
            optimizer.step()
        for parameter, old in zip(learner.model.parameters(), before, strict=True):
            assert parameter.isfinite().all(), name
            assert parameter.dim() == 1 or not torch.equal(parameter, old), name

"""Errors of rules that perturb activations or weights, and of what they make of the answers."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

import fdfa
from fdfa.errors import CheckpointError, ConfigError, FDFAError, ProbeError
from tests.engine.refused_models import mlp
from tests.engine.tap_case import noise
from tests.errors.provoke import Case, Here
from tests.errors.refused_option import refused_option

__all__ = ["PERTURBATION_CASES"]


def _narrow(here: Here) -> None:
    fdfa.FDFA(mlp().half(), probe="finite-difference")(torch.ones(6, 4, dtype=torch.float16))


class _Detached(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


def _lstm(here: Here) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.LSTM(5, 2))
    fdfa.ForwardGradient(model, output=0)(torch.ones(6, 4))


def _dependent(here: Here) -> None:
    learner = fdfa.MultiTangent(mlp(), count=6, tangents="angle", angle=1e-5, seed=1)
    learner(noise(6, 4))


def _freed_perturbations(here: Here) -> None:
    y = fdfa.wrap("fg-a", mlp())(noise(6, 4))
    y.sum().backward()
    y.sum().backward()


def _running(state_of: bool, here: Here) -> None:
    """A state with a running coefficient, or a learner with one: not both."""
    learners = [fdfa.FDFA(mlp()), fdfa.wrap("fdfa-cv", mlp())]
    learners[1 - state_of].load_state_dict(learners[state_of].state_dict())


def _counted(state_of: bool, here: Here) -> None:
    """A state whose maps count their lessons, or a learner that asks for it: not both."""
    learners = [fdfa.FDFA(mlp(), bias_correction=counts) for counts in (False, True)]
    learners[state_of](noise(6, 4)).sum().backward()
    learners[1 - state_of].load_state_dict(learners[state_of].state_dict())


def _coefficient_of_another_shape(here: Here) -> None:
    learner = fdfa.wrap("fdfa-cv", mlp())
    learner.load_state_dict({**learner.state_dict(), "coefficient.moments": torch.zeros(3)})


def _growing_decay(here: Here) -> None:
    learner = fdfa.wrap("pseudo-zeroth-order", mlp(), decay=lambda step: 1.0 + step)
    for _ in range(2):
        learner(noise(6, 4))


def _another_window(here: Here) -> None:
    state = fdfa.wrap("pseudo-zeroth-order", mlp(), window=3).state_dict()
    fdfa.wrap("pseudo-zeroth-order", mlp(), window=2).load_state_dict(state)


def _answers_cut_short(here: Here) -> None:
    learner = fdfa.wrap("pseudo-zeroth-order", mlp(), window=2)
    learner(noise(6, 4)).sum().backward()
    state = learner.state_dict()
    learner.load_state_dict({**state, "answers.values": state["answers.values"][:, 1:]})


def _answers_of_unknown_origin(here: Here) -> None:
    """As fdfa wrote it before answers knew what was perturbed."""
    learner = fdfa.wrap("pseudo-zeroth-order", mlp(), window=2)
    state = learner.state_dict()
    del state["answers.origins"]
    learner.load_state_dict(state)


def _dependent_at_a_sample(here: Here) -> None:
    learner = fdfa.wrap("multi-tangent-a", mlp(), count=6, tangents="angle", angle=1e-5, seed=1)
    learner(noise(6, 4))


def _two_factors(here: Here) -> None:
    fdfa.wrap("multi-tangent-a", mlp(), unbiased=True, length_correction=True)


PERTURBATION_CASES = [
    Case("dependent tangents of a sample", ProbeError, _dependent_at_a_sample),
    Case("two factors on a projection", ConfigError, _two_factors),
    Case("perturbations that a backward pass freed", FDFAError, _freed_perturbations),
    Case("a coefficient too much", CheckpointError, functools.partial(_running, True)),
    Case("a coefficient too little", CheckpointError, functools.partial(_running, False)),
    Case("a coefficient of another shape", CheckpointError, _coefficient_of_another_shape),
    refused_option("fdfa", credit="unbiassed"),
    refused_option("fdfa", probe_first=-1),
    refused_option("fdfa", coefficient=2.0),
    refused_option("fdfa", average_over="actives"),
    Case(
        "an adaptive rate of an optimiser",
        ConfigError,
        lambda here: fdfa.FDFA(mlp(), feedback_rate="adaptive", feedback_update="adam"),
    ),
    Case(
        "a bias correction of an optimiser",
        ConfigError,
        lambda here: fdfa.FDFA(mlp(), bias_correction=True, feedback_update="adam"),
    ),
    Case(
        "a bias correction of unbiased credits",
        ConfigError,
        lambda here: fdfa.FDFA(mlp(), bias_correction=True, credit="unbiased"),
    ),
    Case("lessons counted in vain", CheckpointError, functools.partial(_counted, True)),
    Case("lessons not counted", CheckpointError, functools.partial(_counted, False)),
    refused_option("pseudo-zeroth-order", window=0),
    refused_option("pseudo-zeroth-order", decay=1.5),
    refused_option("pseudo-zeroth-order", noise="sphere"),
    Case("a decay that grows with the steps", ConfigError, _growing_decay),
    Case("a state with another window", CheckpointError, _another_window),
    Case("a state with answers cut short", CheckpointError, _answers_cut_short),
    Case("a state with answers of unknown origin", CheckpointError, _answers_of_unknown_origin),
    refused_option("opzo", form="centered"),
    refused_option("opzo", feedback_rate=0.0),
    refused_option("opzo", noise="gauss"),
    refused_option("opzo", noise_scale=0.0),
    Case("a finite difference in half precision", ProbeError, _narrow),
    Case(
        "a weight probe's kind of noise",
        ConfigError,
        lambda here: fdfa.ForwardGradient(mlp(), noise="gauss"),
    ),
    Case(
        "a guess that is none", ConfigError, lambda here: fdfa.ForwardGradient(mlp(), direction=3)
    ),
    Case(
        "a guess for no parameter",
        ConfigError,
        lambda here: fdfa.ForwardGradient(mlp(), direction={"0.wieght": torch.ones(1)}),
    ),
    Case(
        "a guess of another shape",
        ConfigError,
        lambda here: fdfa.ForwardGradient(mlp(), direction={"0.bias": torch.ones(1)}),
    ),
    Case(
        "a guess of zeros",
        ConfigError,
        lambda here: fdfa.ForwardGradient(mlp(), direction={})(noise(6, 4)),
    ),
    Case("a forward derivative that is missing", ProbeError, _lstm),
    Case(
        "a tangent that is lost in weight space",
        ProbeError,
        lambda here: fdfa.ForwardGradient(_Detached(4, 2))(torch.ones(6, 4)),
    ),
    Case(
        "moved weights in half precision",
        ProbeError,
        lambda here: fdfa.SPSA(mlp().half())(torch.ones(6, 4, dtype=torch.float16)),
    ),
    Case("no tangents", ConfigError, lambda here: fdfa.MultiTangent(mlp(), count=0)),
    Case(
        "an unknown combination", ConfigError, lambda here: fdfa.MultiTangent(mlp(), combine="men")
    ),
    Case(
        "an unknown kind of tangents",
        ConfigError,
        lambda here: fdfa.MultiTangent(mlp(), tangents="gauss"),
    ),
    Case(
        "an unbiased sum",
        ConfigError,
        lambda here: fdfa.MultiTangent(mlp(), unbiased=True, combine="sum"),
    ),
    Case("no angle", ConfigError, lambda here: fdfa.MultiTangent(mlp(), angle=0.0)),
    Case("dependent tangents", ProbeError, _dependent),
    Case("a perturbation of unknown noise", ConfigError, lambda here: fdfa.SPSA(mlp(), noise="x")),
]

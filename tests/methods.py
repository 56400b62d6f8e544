"""One record a method: the single place where a new method joins the whole contract suite."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import nn

import fdfa
from fdfa.engine.estimator import Estimator
from fdfa.engine.heads import LinearHead
from tests.records import backward, direct, forward
from tests.records.info import ErrorInput, MethodInfo

__all__ = [
    "CASES",
    "FAST_CASES",
    "METHODS",
    "NAMES",
    "PARAMETERS",
    "Case",
    "ErrorInput",
    "MethodInfo",
    "marked",
    "wrap_by_name",
]


@dataclasses.dataclass(frozen=True, repr=False)
class Case:
    """One way to construct one method."""

    info: MethodInfo
    id: str
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        """Short, so that a failure's report stays readable."""
        return f"{self.info.name}-{self.id}"

    @property
    def varying(self) -> bool:
        """Whether two passes over one batch give different gradients, its own state held still."""
        return self.id in self.info.varying

    @property
    def error_teaches(self) -> bool:
        """Whether the output error changes its own state."""
        return self.id in self.info.error_teaches

    @property
    def batch_teaches(self) -> bool:
        """Whether its own state learns from the batch alone, without noise."""
        return self.error_teaches and not self.info.probes

    @property
    def stochastic(self) -> bool:
        """Whether its own seed matters."""
        return self.info.stochastic and self.id not in self.info.seedless

    def wrap(self, model: nn.Module, **more: Any) -> Estimator:
        """The estimator; it has seed 7 unless ``more`` says otherwise."""
        model, more = self.prepared(model, **more)
        return fdfa.wrap(self.info.name, model, **{"seed": 7, **self.options, **more})

    def prepared(self, model: nn.Module, **more: Any) -> tuple[nn.Module, dict[str, Any]]:
        """The model as the method takes it, and the options that are left for the method."""
        if self.info.heads:
            more = dict(more)
            model = with_heads(model, output=more.pop("output", None))
        return model, more

    def wrap_taught_once(self, model: nn.Module) -> Estimator:
        """The estimator with its own state, and what it draws, held still after the first step."""
        learner = self.wrap(model, **self.info.taught_once)
        if self.info.redrawn:
            learner.take_step = lambda: learner.steps  # type: ignore[method-assign]
        return learner

    @property
    def by_difference(self) -> bool:
        """Whether its probes are differences of outputs."""
        by_option = {"finite-difference", "two-point", "antithetic"}
        chosen = {self.options.get("probe"), self.options.get("form")}
        return self.info.by_difference or bool(by_option & chosen)

    @property
    def noisy(self) -> bool:
        """Whether the output of a step is itself perturbed."""
        return self.id in self.info.noisy

    def excuse(self, test: str) -> str | None:
        """Why this clause cannot hold, None where it must."""
        for name, cases, reason in self.info.excused:
            if name == test and (not cases or self.id in cases):
                return reason
        return None


def wrap_by_name(name: str, model: nn.Module, **options: Any) -> Estimator:
    """``fdfa.wrap``, with local heads for a method that needs them."""
    info = next(info for info in METHODS if info.name == name)
    return fdfa.wrap(name, with_heads(model) if info.heads else model, **options)


def with_heads(model: nn.Module, **options: Any) -> nn.Module:
    """A model with local heads that draw nothing; as it is where it cannot have any."""
    if not isinstance(model, nn.Module) or not any(True for _ in model.parameters()):
        return model
    layer = next(m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    shape = (6, layer.in_features) if isinstance(layer, nn.Linear) else (6, layer.in_channels, 4, 4)
    shape = getattr(model, "input_shape", shape)
    example = torch.ones(shape, dtype=layer.weight.dtype)
    return fdfa.LocalHeads(model, example, head=_head, **options)


def _head(shape: tuple[int, ...], outputs: tuple[int, ...]) -> nn.Module:
    head = LinearHead(shape, outputs)
    weight = head.linear.weight
    weight.data = torch.cos(torch.arange(weight.numel())).view_as(weight) / len(weight[0]) ** 0.5
    return head


_RECORDS = {info.name: info for info in (*direct.RECORDS, *forward.RECORDS, *backward.RECORDS)}
# In the order of the registry; a record that this one does not know comes last.
METHODS = tuple(
    _RECORDS[name] for name in dict.fromkeys((*fdfa.methods(), *_RECORDS)) if name in _RECORDS
)

CASES = tuple(Case(info, id, options) for info in METHODS for id, options in info.cases)

# In the fast suite: the first case of one method for each part of the engine, and those of fdfa
# that take another way through it. All the others are marked slow.
_ONE_A_PART = ("backpropagation", "dfa", "fdfa", "fg-a", "fa", "fg-w")
_WAYS = ("fdfa-unbiased", "fdfa-finite-difference")
FAST_CASES = tuple(
    case
    for case in CASES
    if str(case) in _WAYS or (case.info.name in _ONE_A_PART and case.id == case.info.cases[0][0])
)


def marked(case: Case, *marks: pytest.MarkDecorator) -> ParameterSet:
    """A case as a parameter of a test: slow unless it belongs to the fast suite."""
    slow = () if case in FAST_CASES else (pytest.mark.slow,)
    return pytest.param(case, marks=(*marks, *slow))


# For tests that take long: the first case of a method of the fast suite.
PARAMETERS = tuple(
    marked(case) if case.id == case.info.cases[0][0] else pytest.param(case, marks=pytest.mark.slow)
    for case in CASES
)

# As many of the names, for what does not depend on a method's options.
NAMES = tuple(
    pytest.param(info.name, marks=() if info.name in _ONE_A_PART else pytest.mark.slow)
    for info in METHODS
)

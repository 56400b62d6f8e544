"""Errors of the measures of a rule's gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import fdfa
from fdfa.diagnostics import GradientMoments, diagnose
from tests.engine.refused_models import mlp
from tests.engine.tap_case import noise
from tests.errors.provoke import Case, Here

__all__ = ["DIAGNOSTICS_CASES"]


def _refused(batches: Any, *, training: bool = True, **options: Any) -> None:
    learner = fdfa.DFA(mlp()).train(training)
    diagnose(learner, nn.functional.cross_entropy, batches, **options)


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    return noise(6, 4), torch.zeros(6, dtype=torch.int64)


def _components_that_were_not_kept(here: Here) -> None:
    GradientMoments({"weight": torch.ones(3)}).component_moments("weight")


DIAGNOSTICS_CASES = [
    Case("a diagnosis in eval mode", ValueError, lambda here: _refused([_batch()], training=False)),
    Case("no draw", ValueError, lambda here: _refused([_batch()], draws=0)),
    Case("certain intervals", ValueError, lambda here: _refused([_batch()], confidence=1.0)),
    Case("no batch to diagnose", ValueError, lambda here: _refused(iter([]))),
    Case("one batch for many", TypeError, lambda here: _refused(_batch())),
    Case("a batch of three", TypeError, lambda here: _refused([(*_batch(), None)])),
    Case("components not kept", ValueError, _components_that_were_not_kept),
]

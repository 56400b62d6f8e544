"""Errors of the measures of a rule's gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import fdfa
from fdfa.diagnostics import (
    GradientMoments,
    credit_errors,
    diagnose,
    feedback_errors,
    jacobians,
    linear_cka,
)
from fdfa.errors import ConfigError
from tests.engine.refused_models import mlp
from tests.engine.tap_case import noise
from tests.errors.provoke import Case, Here

__all__ = ["DIAGNOSTICS_CASES"]


def _refused(batches: Any, *, training: bool = True, **options: Any) -> None:
    learner = fdfa.DFA(mlp()).train(training)
    diagnose(learner, nn.functional.cross_entropy, batches, **options)


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    return noise(6, 4), torch.zeros(6, dtype=torch.int64)


def _wrapped(here: Here) -> None:
    learner = nn.DataParallel(fdfa.DFA(mlp()))  # another wrapper than DDP, but without processes
    diagnose(learner, nn.functional.cross_entropy, [_batch()])


def _components_that_were_not_kept(here: Here) -> None:
    GradientMoments({"weight": torch.ones(3)}).component_moments("weight")


def _undivided(method: str, rows: int = 6, **options: Any) -> None:
    learner, (x, targets) = fdfa.wrap(method, mlp()), _batch()
    credit_errors(learner, nn.functional.cross_entropy, x[:rows], targets[:rows], **options)


def _too_large(here: Here) -> None:
    wide = nn.Sequential(nn.Linear(1, 2**13), nn.ReLU(), nn.Linear(2**13, 2**8))
    jacobians(fdfa.FDFA(wide), torch.ones(2**10, 1))


DIAGNOSTICS_CASES = [
    Case("a diagnosis in eval mode", ValueError, lambda here: _refused([_batch()], training=False)),
    Case("a diagnosis of a wrapper", TypeError, _wrapped),
    Case("no draw", ValueError, lambda here: _refused([_batch()], draws=0)),
    Case("certain intervals", ValueError, lambda here: _refused([_batch()], confidence=1.0)),
    Case("no batch to diagnose", ValueError, lambda here: _refused(iter([]))),
    Case("one batch for many", TypeError, lambda here: _refused(_batch())),
    Case("a batch of three", TypeError, lambda here: _refused([(*_batch(), None)])),
    Case("too few to compare", ValueError, lambda here: linear_cka(noise(3, 2), noise(3, 4))),
    Case("components not kept", ValueError, _components_that_were_not_kept),
    Case("parts of an unbiased credit", ConfigError, lambda here: _undivided("fdfa-cv")),
    Case("parts of a credit from targets", ConfigError, lambda here: _undivided("drtp")),
    Case("Jacobians without taps", ConfigError, lambda here: _undivided("backpropagation")),
    Case("Jacobians beyond the limit", ConfigError, _too_large),
    Case(
        "maps that carry no error",
        ConfigError,
        lambda h: feedback_errors(fdfa.wrap("fg-a", mlp()), noise(6, 4)),
    ),
    Case("one sample does not spread", ConfigError, lambda here: _undivided("dfa", samples=1)),
    Case("a batch that does not spread", ConfigError, lambda here: _undivided("dfa", rows=1)),
    Case("a probe of no sample", ConfigError, lambda here: _undivided("dfa", probe_batch=0)),
]

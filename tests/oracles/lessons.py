"""Learners that let a test see what a probe measured."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from tests.oracles.perturbed import explicit_jacobians, jacobian_products


class Observed(fdfa.FDFA):
    """FDFA that keeps d and the perturbations of its last probe."""

    d: Tensor
    p: list[Tensor]

    def teach(self, lesson: Any) -> None:
        self.d = lesson.derivative.clone()
        self.p = [
            p.view(tap.shape).clone()
            for tap, p in zip(lesson.taps, lesson.perturbations, strict=True)
        ]
        super().teach(lesson)


def classify(learner: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """One forward and backward pass under cross-entropy; returns the output."""
    y = learner(x)
    F.cross_entropy(y, target).backward()
    return y.detach()


def frozen_step(learner: nn.Module, x: Tensor) -> None:
    """Teaches the feedback without moving a weight."""
    learner(x).sum().backward()
    learner.zero_grad()


def assert_exact_probe(
    model: nn.Module,
    taps: list[str],
    x: Tensor,
    plain: nn.Module | None = None,
    **options: object,
) -> Observed:
    """The probe's derivative is the product of explicit Jacobians with its perturbations."""
    plain = copy.deepcopy(model) if plain is None else plain
    learner = Observed(model, taps=taps, **options)
    torch.default_generator.manual_seed(0)
    y = learner(x)
    y.sum().backward()
    product = jacobian_products(explicit_jacobians(plain, taps, x), learner.p)
    torch.testing.assert_close(learner.d, product, rtol=1e-10, atol=1e-12)
    torch.default_generator.manual_seed(0)
    assert torch.equal(y, plain(x))
    return learner

"""MNIST, 784-800-800-10 with batch norm, batch 64, Adam 1e-4: accuracy and gradient quality."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from promises import Promise
from torch.nn import functional as F

import fdfa
import fdfa.data
import fdfa.models
from fdfa.diagnostics import alignment
from fdfa.training import evaluate

BATCH, EPOCHS, RATE, DECAY = 64, 3, 1e-4, 0.95
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "backpropagation": ("backpropagation", {}),
    "FDFA": ("fdfa", {}),
    "FDFA, probe_every=4": ("fdfa", {"probe_every": 4}),
    "FDFA, innovation": ("fdfa", {"feedback_update": "innovation"}),
    "DFA": ("dfa", {}),
}


def measure_accuracy() -> Sequence[Promise]:
    """Test accuracy after three epochs, from the same initial weights and order of samples.

    Returns:
        One promise a case.
    """
    data, model = _mnist(), _model()
    scores = {}
    for name, (method, options) in CASES.items():
        learner = fdfa.wrap(method, copy.deepcopy(model), seed=0, **options)
        _train(learner, data, epochs=EPOCHS)
        scores[name] = _accuracy(learner, data)
        print(f"  ... {name}: {scores[name]:.2f} %", flush=True)
    exact, fdfa_score = scores["backpropagation"], scores["FDFA"]
    promises = [Promise("backpropagation, test accuracy (%)", exact, least=97.7, most=98.4)]
    promises += [
        Promise(f"{name}, test accuracy (%)", scores[name], least=exact - 0.4)
        for name in list(CASES)[1:4]
    ]
    promises.append(Promise("DFA, test accuracy (%)", scores["DFA"], least=97.0, most=fdfa_score))
    return promises


def measure_alignment() -> Sequence[Promise]:
    """Cosine with the true gradient for every weight matrix after one epoch.

    Returns:
        One promise a matrix.
    """
    data, model = _mnist(), _model()
    found = {}
    for name in ("FDFA", "DFA"):
        method, options = CASES[name]
        learner = fdfa.wrap(method, copy.deepcopy(model), seed=0, **options)
        _train(learner, data, epochs=1)
        inputs, targets = data.train.first(1024)
        cosines = alignment(learner, F.cross_entropy, inputs, targets)
        matrices = {n for n, p in learner.model.named_parameters() if p.dim() >= 2}
        found[name] = {n: c for n, c in cosines.items() if n in matrices}
    return [
        Promise(
            f"FDFA, cosine of {name} (DFA: {found['DFA'][name]:.3f})",
            cosine,
            # the last matrix sees the exact error under both rules
            least=max(0.85, min(found["DFA"][name], 1 - 1e-6)),
        )
        for name, cosine in found["FDFA"].items()
    ]


def _mnist() -> fdfa.data.Dataset:
    return fdfa.data.load("mnist", validation=0)


def _model() -> torch.nn.Module:
    torch.manual_seed(0)
    return fdfa.models.build("fully-connected", image=(1, 28, 28), classes=10, width=800, depth=2)


def _train(learner: torch.nn.Module, data: fdfa.data.Dataset, *, epochs: int) -> None:
    optimizer = torch.optim.Adam(learner.parameters(), lr=RATE)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, DECAY)
    order = torch.Generator().manual_seed(0)
    learner.train()
    inputs, labels = data.train.first(len(data.train))
    for _ in range(epochs):
        for index in torch.randperm(len(labels), generator=order).split(BATCH):
            optimizer.zero_grad()
            loss = F.cross_entropy(learner(inputs[index]), labels[index])
            loss.backward()
            optimizer.step()
        scheduler.step()


def _accuracy(learner: torch.nn.Module, data: fdfa.data.Dataset) -> float:
    return 100 * evaluate(learner, data.test).accuracy

"""Peak memory of learners whose allocations are known."""

from __future__ import annotations

import gc
import os
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.studies.memory import step_memory

MIB = 2**20
BATCH = (torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))
SMALL = 1000  # bytes that a step of the layer itself allocates, at most


class Spender(nn.Module):
    """Keeps some memory from its first step on; every so often a step takes more than others."""

    def __init__(self, *, keeps: int, takes: int, seldom: int = 0, every: int = 1) -> None:
        super().__init__()
        self.keeps, self.takes, self.seldom = keeps, takes, seldom
        self.probe = SimpleNamespace(every=every)
        self.layer = nn.Linear(2, 2)
        self.kept: Tensor | None = None
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = torch.empty(self.keeps, dtype=torch.uint8)
        for size in (self.takes // 2, self.takes, self.takes // 4):  # one after the other
            torch.empty(size, dtype=torch.uint8)
        if self.steps % self.probe.every == 0:
            torch.empty(self.seldom, dtype=torch.uint8)
        self.steps += 1
        return self.layer(x)


def test_what_stands_and_what_a_step_takes() -> None:
    learners = {
        "reference": Spender(keeps=0, takes=4 * MIB),
        "keeps": Spender(keeps=2 * MIB, takes=4 * MIB),
        "takes": Spender(keeps=0, takes=8 * MIB),
        "seldom": Spender(keeps=0, takes=MIB, seldom=16 * MIB, every=5),
    }
    found = step_memory(learners, *BATCH, reference="reference")
    weights = 6 * 4
    assert found["reference"].standing == weights
    assert found["keeps"].standing == weights + 2 * MIB
    for name, most in (("reference", 4), ("keeps", 4), ("takes", 8), ("seldom", 16)):
        assert most * MIB <= found[name].step <= most * MIB + SMALL, name
    assert found["reference"].ratio == 1
    assert found["keeps"].ratio == pytest.approx(1.5, rel=1e-3)
    assert found["seldom"].ratio == pytest.approx(4, rel=1e-3)
    assert all(learner.steps == 0 and learner.kept is None for learner in learners.values())


def test_feedback_maps_stand_beside_the_weights() -> None:
    """Two hidden layers of 8 and 6 units, 3 outputs: maps of (8 + 6) x 3 numbers of 4 bytes."""
    model = nn.Sequential(
        *(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    )
    learners = {name: fdfa.wrap(name, model) for name in ("backpropagation", "dfa")}
    found = step_memory(learners, *BATCH, reference="backpropagation")
    weights = 4 * (3 * 8 + 9 * 6 + 7 * 3)
    assert found["backpropagation"].standing == weights
    assert found["dfa"].standing == weights + 4 * 3 * (8 + 6)
    # gradients of all weights are there when the last of them is made
    assert found["backpropagation"].step >= weights
    assert model[0].weight.grad is None


def test_the_process_is_left_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    learner = {"one": Spender(keeps=0, takes=MIB)}
    for level in ("3", None):
        if level is None:
            monkeypatch.delenv("KINETO_LOG_LEVEL")
        else:
            monkeypatch.setenv("KINETO_LOG_LEVEL", level)
        step_memory(learner, *BATCH, reference="one")
        assert os.environ.get("KINETO_LOG_LEVEL") == level
    assert gc.isenabled()
    assert capfd.readouterr() == ("", ""), "the profiler speaks"


def test_a_device_that_nobody_counts_on() -> None:
    learner = {"one": Spender(keeps=0, takes=MIB)}
    inputs = BATCH[0].to("meta")
    assert step_memory(learner, inputs, BATCH[1], reference="one") == {"one": None}


@pytest.mark.gpu
def test_on_a_cuda_device() -> None:
    model = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 512)).cuda()
    learners = {name: fdfa.wrap(name, model) for name in ("backpropagation", "dfa")}
    batch = torch.zeros(64, 512).cuda(), torch.zeros(64, dtype=torch.long).cuda()
    found = step_memory(learners, *batch, reference="backpropagation")
    weights = 2 * 4 * 513 * 512
    assert weights <= found["backpropagation"].standing <= 1.1 * weights
    assert found["dfa"].standing - found["backpropagation"].standing >= 4 * 512 * 512
    assert found["backpropagation"].step >= weights

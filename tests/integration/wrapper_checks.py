"""Two processes: every switch of the wrapper, accumulation, resuming, evaluation."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fdfa
from fdfa.errors import DistributedError
from tests.contract.networks import batch, dense
from tests.contract.steps import (
    assert_close_to_rounding,
    assert_same_bits,
    backward,
    cross_entropy,
    gradients,
    snapshot,
)
from tests.integration.parts import BY_NAME, EVEN, parts, step_on
from tests.integration.ranks import check, gathered, same_on_all_ranks
from tests.methods import Case


class _Beside(nn.Module):
    """The dense network, alone or beside a layer that no forward pass uses."""

    def __init__(self, unused: nn.Module | None = None) -> None:
        super().__init__()
        self.body = dense()
        self.unused = unused

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.body(x)
        return output


def _trained(case: Case, rank: int, model: nn.Module, **options: Any) -> dict[str, Tensor]:
    """State and gradients after some steps with these options of the wrapper."""
    learner = case.wrap(model)
    wrapped = DistributedDataParallel(learner, **options)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    for step, sizes in enumerate(EVEN):
        step_on(wrapped, optimizer, parts(step, sizes)[rank])
    same_on_all_ranks(snapshot(learner))
    found = {f"gradient of {name}": value for name, value in gradients(learner).items()}
    return {**snapshot(learner), **found}


SWITCHES = {
    "find_unused_parameters": {"find_unused_parameters": True},
    "static_graph": {"static_graph": True},
    "gradient_as_bucket_view": {"gradient_as_bucket_view": True},
    "broadcast_buffers": {"broadcast_buffers": False},
    "small buckets": {"bucket_cap_mb": 1e-4},
}


@check(*SWITCHES)
def switches_change_nothing(rank: int, switch: str) -> None:
    """Every parameter is found from the output: gradients and maps are those without the switch."""
    for name in (
        "backpropagation-default",
        "dfa-uniform",
        "fdfa-momentum",
        "fdfa-innovation",
        "fdfa-relayed",
        "fg-w-normal",
        "multi-tangent-projection",
        "spsa-rademacher",
        "l-bp-default",
        "lg-fg-a-normal",
    ):
        expected = _trained(BY_NAME[name], rank, dense())
        assert_close_to_rounding(
            _trained(BY_NAME[name], rank, dense(), **SWITCHES[switch]), expected
        )


@check("find_unused_parameters", "static_graph")
def unused_layer_changes_nothing(rank: int, switch: str) -> None:
    for name in ("dfa-uniform", "fdfa-momentum"):
        expected = _trained(BY_NAME[name], rank, _Beside())
        beside = _Beside(nn.Linear(3, 3).double())
        found = _trained(BY_NAME[name], rank, beside, **{switch: True})
        for key, value in expected.items():
            if key != "_extra_state":
                assert_close_to_rounding(found[key], value)
        assert beside.unused is not None
        assert beside.unused.weight.grad is None or not beside.unused.weight.grad.any()


@check(
    "dfa-uniform",
    "drtp-uniform",
    "fdfa-momentum",
    "fdfa-innovation",
    "fdfa-every-4",
    "fg-w-normal",
    "l-bp-default",
)
def no_sync_accumulates(rank: int, name: str) -> None:
    """Gradients are exchanged once, at the last micro-batch; maps learn at each, as ever."""
    found = []
    for quiet in (True, False):
        learner = BY_NAME[name].wrap(dense())
        wrapped = DistributedDataParallel(learner)
        optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
        for step in range(3):
            optimizer.zero_grad()
            for micro in range(3):
                quietly = wrapped.no_sync() if quiet and micro < 2 else contextlib.nullcontext()
                with quietly:
                    x, target = parts(3 * step + micro, (4, 4))[rank]
                    (cross_entropy(wrapped(x), target) / 3).backward()
            optimizer.step()
            same_on_all_ranks(snapshot(learner))
        found.append(snapshot(learner))
    assert_close_to_rounding(found[0], found[1])


@check(
    "dfa-uniform",
    "fdfa-momentum",
    "fdfa-adam",
    "fg-w-rademacher",
    "pseudo-zeroth-order-rademacher",
)
def state_of_the_first_rank_resumes_on_all(rank: int, name: str) -> None:
    """As a run is saved: by rank 0 alone."""
    case = BY_NAME[name]
    learner = case.wrap(dense())
    wrapped = DistributedDataParallel(learner)
    for step in range(2):
        backward(wrapped, parts(step, (6, 6))[rank])
    state = gathered(snapshot(learner))[0]
    resumed = case.wrap(dense(), seed=99)
    resumed.load_state_dict(state)
    again = DistributedDataParallel(resumed)
    for each in (learner, resumed):
        each.zero_grad()
    for step in range(2, 7):
        backward(wrapped, parts(step, (6, 6))[rank])
        backward(again, parts(step, (6, 6))[rank])
    assert_same_bits(snapshot(resumed), snapshot(learner))
    assert_same_bits(gradients(resumed), gradients(learner))


@check("dfa-uniform", "fdfa-momentum")
def one_rank_alone_may_evaluate(rank: int, name: str) -> None:
    """Before and between steps: in eval mode nobody waits for the others."""
    learner = BY_NAME[name].wrap(dense())
    wrapped = DistributedDataParallel(learner)
    for step in range(2):
        if rank == 0:
            learner.eval()
            with torch.no_grad():
                learner(batch(9)[0])
            learner.train()
        backward(wrapped, parts(step, (6, 6))[rank])
    same_on_all_ranks(snapshot(learner))


@check()
def each_rank_draws_its_own_direction(rank: int) -> None:
    """On one and the same batch; the gradient is their mean."""
    alone, learner = (BY_NAME["fg-w-normal"].wrap(dense()) for _ in range(2))
    backward(alone, batch(0))
    ours = gathered(gradients(alone))
    assert (ours[0]["0.weight"] != ours[1]["0.weight"]).all()
    backward(DistributedDataParallel(learner), batch(0))
    mean = {name: (ours[0][name] + ours[1][name]) / 2 for name in ours[0]}
    assert_close_to_rounding(gradients(learner), mean)


@check()
def wrapped_the_wrong_way_round_is_refused(rank: int) -> None:
    for name in fdfa.methods():
        with pytest.raises(DistributedError, match=r"DistributedDataParallel\(learner\)"):
            fdfa.wrap(name, DistributedDataParallel(dense()))
        inside = nn.Sequential(dense(), DistributedDataParallel(nn.Linear(3, 3).double()))
        with pytest.raises(DistributedError, match=r"module '1' is wrapped.*\(learner\)"):
            fdfa.wrap(name, inside)

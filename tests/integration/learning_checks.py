"""Two processes: what is learned, and that it is the same on both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from fdfa.engine.estimator import Estimator
from tests.contract.networks import batch, busy, dense
from tests.contract.steps import (
    assert_close_to_rounding,
    backward,
    cross_entropy,
    gradients,
    own_state,
    snapshot,
)
from tests.integration.blockwise import feedback_after, gradients_of, network
from tests.integration.parts import BY_NAME, EVEN, FAST, SLOW, UNEVEN, parts, step_on
from tests.integration.ranks import RANKS, check, gathered, same_on_all_ranks

OTHERS = ("pseudo-zeroth-order-window-3", "lg-fg-a-normal")  # with a state of another kind
TAUGHT = {
    "fdfa-momentum": lambda B, mean: 0.7 * B + 0.3 * mean,
    "fdfa-rademacher": lambda B, mean: 0.7 * B + 0.3 * mean,
    "fdfa-innovation": lambda B, mean: B + 0.2 * mean,
}


@check(
    "backpropagation-default",
    "dfa-kaiming-uniform",
    "dfa-uniform",
    "adfa-cos",
    "ifa-kaiming-uniform",
    "drtp-uniform",
    "ldfa-q-and-p",
    "ldfa-direct-q-and-p",
    "pepita-default",
    "l-bp-default",
)
def equals_one_process_on_the_joined_batch(rank: int, name: str) -> None:
    learner, alone = BY_NAME[name].wrap(dense()), BY_NAME[name].wrap(dense())
    wrapped = DistributedDataParallel(learner)
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (learner, alone)]
    for step, sizes in enumerate(EVEN):
        step_on(wrapped, optimizers[0], parts(step, sizes)[rank])
        step_on(alone, optimizers[1], batch(step, size=sum(sizes)))
        assert_close_to_rounding(gradients(learner), gradients(alone))
    assert_close_to_rounding(learner.model.state_dict(), alone.model.state_dict())
    same_on_all_ranks(snapshot(learner))


def _spied(learner: Estimator) -> list[list[Tensor]]:
    """The perturbations of every lesson, as they are taught."""
    heard: list[list[Tensor]] = []
    teach = learner.teach

    def listening(lesson: Any) -> None:
        heard.append([p.clone() for p in lesson.perturbations])
        teach(lesson)

    learner.teach = listening  # type: ignore[method-assign]
    return heard


@check(*(f"{name}-{sizes}" for name in TAUGHT for sizes in ("even", "uneven")))
def feedback_and_gradients_are_those_of_all_samples(rank: int, setting: str) -> None:
    """Against an oracle that runs both ranks' blocks by hand.

    Maps learn from every sample alike, however uneven the batches; gradients are the wrapper's
    mean of means.
    """
    name, _, evenness = setting.rpartition("-")
    learner, oracle = BY_NAME[name].wrap(network()), network()
    heard = _spied(learner)
    wrapped = DistributedDataParallel(learner)
    maps = [torch.zeros(3, 8).double(), torch.zeros(3, 7).double()]
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    for step, sizes in enumerate(EVEN if evenness == "even" else UNEVEN):
        shares = parts(step, sizes)
        oracle.load_state_dict(learner.model.state_dict())
        by_rank = [gradients_of(oracle, maps, x, target) for x, target in shares]
        mean = {key: sum(each[key] for each in by_rank) / RANKS for key in by_rank[0]}
        step_on(wrapped, optimizer, shares[rank])
        assert_close_to_rounding(gradients(learner), mean)
        noises = gathered(heard[-1])
        assert len(heard) == step + 1
        maps = feedback_after(
            oracle,
            maps,
            [(x, p) for (x, _), p in zip(shares, noises, strict=True)],
            TAUGHT[name],
            innovation=name == "fdfa-innovation",
        )
        assert_close_to_rounding(list(own_state(learner).values()), maps)
        same_on_all_ranks(snapshot(learner))
    assert all(B.any() for B in maps)


@check("fdfa-momentum", slow=[name for name in SLOW if name.startswith("fdfa-")])
def ranks_draw_unlike_probes(rank: int, name: str) -> None:
    """Were they alike, two processes would see no more directions than one."""
    learner = BY_NAME[name].wrap(dense())
    heard = _spied(learner)
    if not BY_NAME[name].info.learns:  # nothing is taught: its credits hear of the probe
        credits = learner.credits

        def listening(e: Tensor, lesson: Any) -> Any:
            heard.append([p.clone() for p in lesson.perturbations])
            return credits(e, lesson)

        learner.credits = listening
    backward(DistributedDataParallel(learner), batch(0))
    first, second = gathered(heard[0])
    for ours, theirs in zip(first, second, strict=True):
        assert ours.shape == theirs.shape
        assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1].abs() < 0.6


@check(*FAST, *OTHERS, slow=[name for name in SLOW if name not in OTHERS])
def everything_stays_bit_equal_on_all_ranks(rank: int, name: str) -> None:
    """Weights, maps, their optimiser's state; with batch norm, dropout and uneven batches."""
    learner = BY_NAME[name].wrap(busy())
    wrapped = DistributedDataParallel(learner)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.01)
    for step, sizes in enumerate(UNEVEN):
        torch.manual_seed(10 * step + rank)  # dropout masks of each rank's own
        step_on(wrapped, optimizer, parts(step, sizes)[rank])
    state = snapshot(learner)
    # a rank's batch-norm statistics are its own until the next forward pass
    same_on_all_ranks({key: value for key, value in state.items() if "running" not in key})
    assert learner.steps == len(UNEVEN)


@check("dfa-kaiming-uniform", "dfa-uniform", "fdfa-momentum")
def ranks_seeded_unlike_agree(rank: int, name: str) -> None:
    """Each rank has its own torch seed, as loaders want it: the first one's counts."""
    model = dense()
    torch.manual_seed(50 + rank)
    learner = BY_NAME[name].wrap(model, seed=None)
    wrapped = DistributedDataParallel(learner)
    for step in range(2):
        backward(wrapped, parts(step, (6, 6))[rank])
    state = snapshot(learner)
    same_on_all_ranks(state)
    assert learner.seed == 50


@check("fdfa-momentum", "fdfa-innovation", "fdfa-adam", "pseudo-zeroth-order-window-3")
def rank_with_a_derivative_of_nan_teaches_nothing(rank: int, name: str) -> None:
    """Nor does it spoil what the other one teaches to both, and nobody waits for it."""
    found = []
    for spoilt in (True, False):
        learner = BY_NAME[name].wrap(network())
        wrapped = DistributedDataParallel(learner)
        shares = parts(0, (6, 6))
        x = shares[rank][0].clone()
        if spoilt and rank == 1:
            x[0, 0] = float("nan")
        cross_entropy(wrapped(x), shares[rank][1]).backward()
        same_on_all_ranks(own_state(learner))
        found.append(own_state(learner))
    assert all(value.isfinite().all() for value in found[0].values())
    assert any((found[0][key] != found[1][key]).any() for key in found[0])


@check("fdfa-momentum", "fdfa-innovation")
def autocast_keeps_maps_in_float32(rank: int, name: str) -> None:
    """They are summed over the ranks in it too: a sum in bfloat16 would leave numbers of 8 bits."""
    learner = BY_NAME[name].wrap(dense(torch.float32), feedback_rate=1.0)
    wide = BY_NAME[name].wrap(dense(torch.float32), feedback_rate=1.0)
    x, target = parts(0, (24, 40))[rank]  # 64 samples: to divide by them keeps the bits
    for module, narrow in (
        (DistributedDataParallel(learner), True),
        (DistributedDataParallel(wide), False),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            cross_entropy(module(x.float()), target).backward()
    same_on_all_ranks(own_state(learner))
    assert_close(own_state(learner), own_state(wide), rtol=0.05, atol=0.02)
    for value in own_state(learner).values():
        assert (value != value.bfloat16().float()).any()

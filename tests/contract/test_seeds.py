"""The method's own randomness.

The same seed gives the same run bit for bit, another seed another run.
"""

from __future__ import annotations

import torch

from tests.contract.networks import batch, busy, dense
from tests.contract.steps import assert_same_bits, fresh_gradients, own_state, snapshot, train
from tests.methods import Case


def _run(case: Case, global_seed: int = 3, **options: object) -> dict[str, torch.Tensor]:
    learner = case.wrap(busy(), **options)
    torch.default_generator.manual_seed(global_seed)
    train(learner, [batch(number) for number in range(6)])
    return snapshot(learner)


def test_same_seed_same_run(case: Case) -> None:
    assert_same_bits(_run(case, seed=5), _run(case, seed=5))


def test_own_randomness_ignores_the_global_stream(case: Case) -> None:
    """With a seed of its own and no dropout, what torch's generator does is of no account."""
    runs = []
    for global_seed in (1, 2):
        learner = case.wrap(dense(), seed=5)
        torch.default_generator.manual_seed(global_seed)
        torch.rand(global_seed)
        train(learner, [batch(number) for number in range(6)])
        runs.append(snapshot(learner))
    assert_same_bits(runs[0], runs[1])


def test_another_seed_another_run_if_stochastic(case: Case) -> None:
    """Only then: a method without randomness must not depend on its seed."""
    first, second = (_run(case, seed=seed) for seed in (5, 6))
    moved = [key for key in first if key != "_extra_state" and (first[key] != second[key]).any()]
    assert bool(moved) == case.stochastic
    if case.stochastic:
        assert "model.0.weight" in moved


def test_neighbouring_seeds_are_unrelated(case: Case) -> None:
    """What the method draws with seeds 0 and 1 has no correlation in sight (18 numbers or more)."""
    states = []
    for seed in (0, 1):
        learner = case.wrap(dense(), seed=seed)
        train(learner, [batch(0)])
        states.append(own_state(learner))
    for key, value in states[0].items():
        if value.dim() == 2 and not case.batch_teaches:
            both = torch.stack([value.flatten(), states[1][key].flatten()])
            assert torch.corrcoef(both)[0, 1].abs() < 0.75, key


def test_default_seed_is_torchs(case: Case) -> None:
    """``torch.manual_seed`` seeds a run as users expect.

    A second learner made later draws the same.
    """
    runs = []
    for global_seed in (1, 1, 2):
        model = dense()
        torch.default_generator.manual_seed(global_seed)
        torch.rand(len(runs))
        learner = case.wrap(model, seed=None)
        train(learner, [batch(number) for number in range(3)])
        runs.append(snapshot(learner))
    assert_same_bits(runs[0], runs[1])
    moved = (runs[0]["model.0.weight"] != runs[2]["model.0.weight"]).any()
    assert bool(moved) == case.stochastic


def test_every_step_draws_anew(case: Case) -> None:
    """A probe that repeated itself would teach the same lesson for ever.

    Seen where batches repeat.
    """
    learner = case.wrap(dense())
    states = []
    for _ in range(9):  # every probe_every under test divides 8
        fresh_gradients(learner, batch(0))
        states.append(own_state(learner))
    for key in states[0]:
        if states[0][key].dim() == 2:
            changed = (states[0][key] != states[-1][key]).any()
            assert bool(changed) == case.info.learns, key
            first, last = states[0][key], states[-1][key] - states[-2][key]
            if case.info.draws and not case.batch_teaches and last.any():
                both = torch.stack([first.flatten(), last.flatten()])
                assert torch.corrcoef(both)[0, 1].abs() < 0.999, key

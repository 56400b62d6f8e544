"""PseuZO: its sum by hand, one-sided differences, and forward gradients where these are exact."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fdfa
from tests.oracles.weight_space import data, directions, flat, gradient, small


def network() -> nn.Sequential:
    """Batch statistics and a mask, which both passes of a step must share."""
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 2)
    ).double()


def moved(model: nn.Module, z: Tensor, s: float, x: Tensor, seed: int) -> Tensor:
    """The output of a copy whose weights have moved by s z."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        vector = nn.utils.parameters_to_vector(model.parameters()) + s * z
        nn.utils.vector_to_parameters(vector, model.parameters())
        torch.manual_seed(seed)
        return model(x)


def by_step(step: int) -> float:
    return 1 / (1 + step)


@pytest.mark.parametrize("window", [1, 3, 20])
@pytest.mark.parametrize("decay", [0.7, by_step], ids=["constant", "by step"])
@pytest.mark.parametrize("noise", ["normal", "rademacher"])
def test_trains_as_the_sum_by_hand(window: int, decay: object, noise: str) -> None:
    """Over batches of several sizes: answers of another size rest, and count again later."""
    s = 1e-3
    model = network()
    learner = fdfa.wrap(
        "pseudo-zeroth-order",
        model,
        window=window,
        decay=decay,
        noise=noise,
        difference_step=s,
        seed=4,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    held: list[tuple[int, Tensor, Tensor]] = []
    used = []
    for step, size in enumerate([5, 5, 4, 5, 4, 5, 5]):
        x, target = torch.randn(size, 3).double(), torch.randint(2, (size,))
        (z,) = directions(learner, step)
        y = moved(model, z, 0, x, step)
        d = (moved(model, z, s, x, step) - y) / s
        y.requires_grad_()
        (e,) = torch.autograd.grad(cross_entropy(y, target), y)
        held = [*held, (step, z, d)][-window:]
        beta = decay(step) if callable(decay) else decay
        fitting = [(j, z_j, d_j) for j, z_j, d_j in held if len(d_j) == size]
        expected = sum(beta ** (step - j) * (d_j * e).sum() * z_j for j, z_j, d_j in fitting)
        used.append(len(fitting))
        torch.manual_seed(step)
        found = gradient(learner, (x, target))
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
        optimizer.step()
    if window == 3:
        assert used == [1, 2, 1, 2, 2, 2, 2]  # of 3 in the window at most


def _several(method: str, model: nn.Module, steps: int, **options: object) -> list[Tensor]:
    learner = fdfa.wrap(method, model, seed=7, **options)
    return [gradient(learner, data()) for _ in range(steps)]


@pytest.mark.parametrize("noise", ["normal", "rademacher"])
def test_forward_gradients_where_differences_are_exact(noise: str) -> None:
    """Of a model linear in its weights, however long the step: those of the last steps added up."""
    options = {"noise": noise, "difference_step": 0.5}
    linear = nn.Linear(2, 2).double()
    single = _several("fg-w", copy.deepcopy(linear), 6, noise=noise)
    found = _several("pseudo-zeroth-order", copy.deepcopy(linear), 6, window=1, **options)
    torch.testing.assert_close(found, single, rtol=1e-10, atol=1e-12)
    found = _several("pseudo-zeroth-order", linear, 6, window=4, decay=1.0, **options)
    sums = [sum(single[max(0, t - 3) : t + 1]) for t in range(6)]
    torch.testing.assert_close(found, sums, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(found[3], single[3])


def test_without_a_past_it_is_one_sided_perturbation_to_the_bit() -> None:
    """No window, and a window that forgets at once, are one rule."""
    first = _several("pseudo-zeroth-order", small(), 4, window=1)
    forgetful = _several("pseudo-zeroth-order", small(), 4, decay=0.0)
    assert torch.equal(torch.stack(first), torch.stack(forgetful))
    s, learner = 1e-5, fdfa.wrap("pseudo-zeroth-order", small(), window=1, seed=7)
    x, target = data()
    for step, found in enumerate(first):
        (z,) = directions(learner, step)
        with torch.no_grad():
            y = small()(x)
        d = (moved(small(), z, s, x, 0) - y) / s
        y.requires_grad_()
        (e,) = torch.autograd.grad(cross_entropy(y, target), y)
        assert torch.equal(found, (e * d).sum() * z)


def test_the_error_of_a_step_is_that_of_the_second_derivative() -> None:
    """One-sided: (s / 2) z^T D^2 y z, ten times less for a step ten times shorter."""
    x, target = data()
    (z,) = directions(fdfa.wrap("pseudo-zeroth-order", small(), seed=7), 0)
    slope = gradient(small(), (x, target)) @ z
    errors = []
    for s in (1e-3, 1e-4):
        learner = fdfa.wrap("pseudo-zeroth-order", small(), seed=7, difference_step=s)
        errors.append(gradient(learner, (x, target)) @ z / z.square().sum() - slope)
    assert 9 < errors[0] / errors[1] < 11


def test_an_answer_is_not_read_before_its_step() -> None:
    """Two passes before their errors, the later one first: its answer is not part of the earlier.

    A step counts as old only where it came before.
    """
    learner = fdfa.wrap("pseudo-zeroth-order", small(), seed=7, decay=0.5)
    twin = fdfa.wrap("pseudo-zeroth-order", small(), seed=7, decay=0.5)
    (x, target), parameters = data(), list(learner.parameters())
    first, second = learner(x), learner(x)
    late = torch.autograd.grad(cross_entropy(second, target), parameters)
    early = torch.autograd.grad(cross_entropy(first, target), parameters)
    alone = torch.autograd.grad(cross_entropy(twin(x), target), list(twin.parameters()))
    assert torch.equal(flat(list(early)), flat(list(alone)))
    assert not torch.equal(flat(list(late)), flat(list(early)))
    assert learner.answers.steps.tolist()[-2:] == [0, 1]


def _exact(window: int, model: nn.Module) -> tuple[fdfa.PseudoZerothOrder, list[Tensor]]:
    """A learner of a model linear in its weights, and its steps' own parts of the gradient."""
    options = {"noise": "normal", "seed": 7}
    single = fdfa.wrap("fg-w", copy.deepcopy(model), **options)
    parts = [gradient(single, data()) for _ in range(6)]
    learner = fdfa.wrap("pseudo-zeroth-order", model, window=window, decay=1.0, **options)
    return learner, parts


def test_the_window_counts_steps() -> None:
    """Whatever the order of the backward passes; and steps that no error came for are steps."""
    learner, parts = _exact(3, nn.Linear(2, 2).double())
    x, target = data()
    for y in reversed([learner(x) for _ in range(3)]):
        cross_entropy(y, target).backward()
    assert learner.answers.steps.tolist() == [1, 2]
    torch.testing.assert_close(gradient(learner, (x, target)), sum(parts[1:4]))
    learner(x)
    torch.testing.assert_close(gradient(learner, (x, target)), parts[3] + parts[5])


def test_an_answer_older_than_all_that_are_kept() -> None:
    learner, parts = _exact(2, nn.Linear(2, 2).double())
    x, target = data()
    waits = learner(x)
    gradient(learner, (x, target))
    cross_entropy(waits, target).backward()
    assert learner.answers.steps.tolist() == [1]
    torch.testing.assert_close(gradient(learner, (x, target)), parts[1] + parts[2])


def test_parameters_that_rest_and_learn_again() -> None:
    """Answers count where the same parameters learn; directions do not change with the others."""
    model = nn.Linear(2, 2).double()
    learner, parts = _exact(9, model)
    for _ in range(2):
        gradient(learner, data())
    model.weight.requires_grad_(False)
    alone = gradient(learner, data())
    model.weight.requires_grad_(True)
    (z,) = directions(learner, 2)  # over all: the bias's part is the last
    torch.testing.assert_close(alone / z[-2:], (alone / z[-2:]).mean().expand(2))
    torch.testing.assert_close(gradient(learner, data()), parts[0] + parts[1] + parts[3])


def test_nothing_is_taken_in_by_a_learner_alone() -> None:
    learner = fdfa.wrap("pseudo-zeroth-order", small(), seed=7)
    learner.alone = True
    gradient(learner, data())
    assert not (learner.answers.steps + 1).any()


def test_answers_of_processes_that_are_gone() -> None:
    """A state of two processes serves one: its own answers count, and room is kept for no other."""
    learner = fdfa.wrap("pseudo-zeroth-order", small(), seed=7, window=3)
    gradient(learner, data())
    state = learner.state_dict()
    shapes, values = state["answers.shapes"], state["answers.values"]
    state["answers.shapes"] = torch.cat([shapes, shapes], 1)
    state["answers.values"] = torch.cat([values, values + 1], 1)
    resumed = fdfa.wrap("pseudo-zeroth-order", small(), window=3)
    resumed.load_state_dict(state)
    origin = resumed.answers.origins[-1].item()
    assert [step for step, _ in resumed.answers.of_process(1, origin)] == [0]
    torch.testing.assert_close(gradient(resumed, data()), gradient(learner, data()))
    assert resumed.answers.shapes.tolist() == learner.answers.shapes.tolist()

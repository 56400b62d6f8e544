"""Any ``torch.optim`` optimiser, gradient clipping and schedulers go on working."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.contract.networks import batch, busy, dense
from tests.contract.steps import assert_same_bits, cross_entropy, gradients
from tests.methods import Case

OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, foreach=True),
    "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=4),
}


class _Tape:
    """Gradients and losses in the order in which an optimiser asked for them."""

    def __init__(self) -> None:
        self.entries: list[tuple[Tensor, dict[str, Tensor]]] = []


def _run(module: nn.Module, kind: str, produce: Callable[[int], Tensor], steps: int = 4) -> None:
    """Closure, clipping, optimiser, scheduler, as a user stacks them."""
    optimizer = OPTIMIZERS[kind](module.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    for number in range(steps):

        def closure(number: int = number) -> Tensor:
            optimizer.zero_grad()
            loss = produce(number)
            nn.utils.clip_grad_norm_(module.parameters(), 0.5)
            return loss

        optimizer.step(closure)
        scheduler.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizer_sees_what_backward_left(first_case: Case, kind: str) -> None:
    """The gradients, put by hand into a plain model's ``.grad``, move it to the same weights.

    So the learner changes neither weights nor gradients behind the optimiser's back, and asks for
    no forward pass of its own.
    """
    learner, tape = first_case.wrap(dense()), _Tape()

    def record(number: int) -> Tensor:
        x, target = batch(number)
        loss = cross_entropy(learner(x), target)
        loss.backward()
        tape.entries.append((loss.detach(), gradients(learner)))
        return loss.detach()

    _run(learner.model, kind, record)
    assert learner.steps == len(tape.entries)
    plain, replay = dense(), iter(copy.deepcopy(tape.entries))

    def play(number: int) -> Tensor:
        loss, recorded = next(replay)
        for name, parameter in plain.named_parameters():
            parameter.grad = recorded[name]
        return loss

    _run(plain, kind, play)
    assert_same_bits(learner.model.state_dict(), plain.state_dict())
    start = dense().state_dict()
    assert all((value != start[key]).any() for key, value in plain.state_dict().items())


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_exact_methods_train_as_the_plain_model(first_case: Case, kind: str) -> None:
    """Bit for bit, batch norm and dropout included; a method of its own rule ends elsewhere."""
    learner, plain = first_case.wrap(busy()), busy()
    for module in (learner, plain):
        torch.default_generator.manual_seed(3)

        def produce(number: int, module: nn.Module = module) -> Tensor:
            x, target = batch(number)
            loss = cross_entropy(module(x), target)
            loss.backward()
            return loss

        _run(module, kind, produce)
    weights, true = learner.model.state_dict(), plain.state_dict()
    if first_case.info.exact:
        assert_same_bits(weights, true)
    else:
        assert not torch.allclose(weights["0.weight"], true["0.weight"])


def test_loss_falls(case: Case) -> None:
    """Each rule learns one small batch by heart: a credit of the wrong sign would not.

    (LBFGS is not asked to: it takes differences of gradients for curvature; of estimates they are
    none.)
    """
    learner, losses = case.wrap(dense()), []
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.01)
    x, target = batch(0, size=6)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(learner(x), target)
        loss.backward()
        losses.append(loss.item())
        return loss.detach()

    # noise takes its time
    for _ in range(max(case.info.steps_to_learn, 400 if case.varying else 0)):
        optimizer.step(closure)
    # targets alone push on when nothing is wrong any more: such a rule is no fast learner by heart
    assert losses[-1] < (0.5 if case.info.by_error else 0.9) * losses[0]

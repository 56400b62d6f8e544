"""``learner.criterion``: the one line by which a loop serves rules that learn from the targets."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import fdfa
from fdfa.errors import FDFAError
from tests.contract.networks import CLASSES, INPUTS, batch, dense
from tests.contract.steps import (
    added,
    assert_close_to_rounding,
    assert_same_bits,
    fresh_gradients,
    gradients,
)
from tests.methods import Case


def test_is_the_loss_function_itself_where_targets_are_not_needed(case: Case) -> None:
    learner = case.wrap(dense())
    loss_function = nn.CrossEntropyLoss()
    criterion = learner.criterion(loss_function)
    assert (criterion is loss_function) == (not learner.needs_targets)


def test_returns_the_loss(case: Case) -> None:
    """Of every argument, in training, in eval mode and without gradients."""
    learner, plain = case.wrap(dense()), dense()
    criterion = learner.criterion(F.cross_entropy)
    x, target = batch(0)
    for options in ({}, {"label_smoothing": 0.1}):
        if case.noisy:
            break  # no two passes have one output
        expected = F.cross_entropy(plain(x), target, **options)
        assert_same_bits(criterion(learner(x), target, **options), expected)
        assert_same_bits(criterion(input=learner(x), target=target, **options), expected)
        assert_same_bits(criterion(target=target, input=learner(x), **options), expected)
        with torch.no_grad():
            assert_same_bits(criterion(learner(x), target, **options), expected)
    learner.eval()
    criterion(learner(x), target).backward()
    F.cross_entropy(plain(x), target).backward()
    assert_same_bits(gradients(learner), gradients(plain))


def test_without_it_a_rule_that_needs_targets_says_which_line_to_add(case: Case) -> None:
    learner = case.wrap(dense())
    x, target = batch(0)
    loss = F.cross_entropy(learner(x), target)
    if not learner.needs_targets:
        loss.backward()
        return
    with pytest.raises(FDFAError, match=r"criterion = learner\.criterion\(loss_function\)"):
        loss.backward()
    fresh_gradients(learner, (x, target))  # the next pass is none the worse


def test_copies_and_pickles() -> None:
    learner, criterion = drtp()
    x, target = batch(0)
    expected = fresh_gradients(learner, (x, target))
    for copied in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        learner.zero_grad()
        copied(learner(x), target).backward()
        assert_same_bits(gradients(learner), expected)


def drtp() -> tuple[fdfa.DRTP, object]:
    learner = fdfa.DRTP(dense(), seed=7)
    return learner, learner.criterion(F.cross_entropy)


def test_each_pass_gets_its_own_targets() -> None:
    """Two passes, told in the other order, one backward."""
    learner, criterion = drtp()
    expected = added(fresh_gradients(learner, batch(1)), fresh_gradients(learner, batch(2, size=4)))
    learner.zero_grad()
    (x1, target1), (x2, target2) = batch(1), batch(2, size=4)
    first, second = learner(x1), learner(x2)
    loss = criterion(second, target2)
    (criterion(first, target1) + loss).backward()
    assert_close_to_rounding(gradients(learner), expected)


def test_a_loss_that_is_only_looked_at_counts_for_nothing() -> None:
    learner, criterion = drtp()
    x, target = batch(0)
    expected = fresh_gradients(learner, (x, target))
    learner.zero_grad()
    y = learner(x)
    criterion(y, (target + 1) % CLASSES).item()
    criterion(y, target).backward()
    assert_same_bits(gradients(learner), expected)


def test_losses_of_one_pass_add() -> None:
    """With the factors that they have in the sum: a mixture of two targets, as in mixup."""
    learner, criterion = drtp()
    x, target = batch(0)
    other = (target + 1) % CLASSES
    parts = [fresh_gradients(learner, (x, each)) for each in (target, other)]
    expected = {key: 0.7 * parts[0][key] + 0.3 * parts[1][key] for key in parts[0]}
    learner.zero_grad()
    y = learner(x)
    (0.7 * criterion(y, target) + 0.3 * criterion(y, other)).backward()
    assert_close_to_rounding(gradients(learner), expected)


def test_targets_of_the_outputs_shape() -> None:
    """One-hot by hand is the same; a mixture is the same as a sum of losses."""
    learner, criterion = drtp()
    x, target = batch(0)
    expected = fresh_gradients(learner, (x, target))
    learner.zero_grad()
    criterion(learner(x), F.one_hot(target, CLASSES).double()).backward()
    assert_close_to_rounding(gradients(learner), expected)


@pytest.mark.parametrize("reduction", ["none", "weighted"])
def test_a_loss_a_sample(reduction: str) -> None:
    """Each target counts as its loss does in the sum that the user makes."""
    learner, criterion = drtp()
    x, target = batch(0)
    share = torch.full((6,), 1 / 6) if reduction == "none" else torch.arange(6.0)
    share = share.double()
    expected = None
    for n in range(6):
        part = fresh_gradients(learner, (x[n : n + 1], target[n : n + 1]))
        part = {key: share[n] * value for key, value in part.items()}
        expected = part if expected is None else added(expected, part)
    learner.zero_grad()
    (criterion(learner(x), target, reduction="none") * share).sum().backward()
    assert_close_to_rounding(gradients(learner), expected)


def test_ignored_labels_teach_nothing() -> None:
    learner, criterion = drtp()
    x, target = batch(0)
    target[1:] = -100
    criterion(learner(x), target).backward()
    (x1, target1), found = (x[:1], target[:1]), gradients(learner)
    alone = fresh_gradients(learner, (x1, target1))
    # the loss's mean is over the one label that is left, the rule's over the six samples
    assert_close_to_rounding(found["0.weight"] * 6, alone["0.weight"])


@pytest.mark.parametrize(
    "loss_function",
    [
        nn.CrossEntropyLoss(ignore_index=0),
        nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 1.0]).double()),
        lambda y, t: (F.cross_entropy(y, t, reduction="none") * (t > 0)).sum() / 4,
    ],
    ids=["ignored", "weighed with zero", "masked"],
)
def test_samples_without_an_error_rest(loss_function: Callable[..., Tensor]) -> None:
    """What the loss does not see: hidden blocks are taught by the others, a sixth by each."""
    learner, _ = drtp()
    x, target = batch(0)[0], torch.tensor([0, 1, 2, 0, 1, 2])
    parts = [fresh_gradients(learner, (x[n : n + 1], target[n : n + 1])) for n in (1, 2, 4, 5)]
    learner.zero_grad()
    learner.criterion(loss_function)(learner(x), target).backward()
    for name in ("0.weight", "2.bias", "4.weight"):
        expected = sum(part[name] for part in parts) / 6
        assert_close_to_rounding(gradients(learner)[name], expected)


@pytest.mark.parametrize("met", [True, False], ids=["met to the last bit", "left out"])
def test_a_value_without_an_error_rests(met: bool) -> None:
    """Where it is left out, it need not be a number."""
    learner, _ = drtp()
    x, wanted = batch(0)[0], torch.linspace(-1, 1, 6 * CLASSES).double().view(6, CLASSES)
    mean = learner.criterion(lambda y, t: (y - t).square().mean())
    mean(learner(x[1:]), wanted[1:]).backward()
    expected = gradients(learner)["0.weight"] * 5 / 6
    learner.zero_grad()
    y = learner(x)
    if met:
        wanted[0] = y[0].detach()
        mean(y, wanted).backward()
    else:
        wanted[0] = torch.nan
        learner.criterion(lambda y, t: (y[1:] - t[1:]).square().mean())(y, wanted).backward()
    assert_close_to_rounding(gradients(learner)["0.weight"], expected)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_integers_are_the_values_of_one_component(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    learner = fdfa.DRTP(nn.Sequential(*dense()[:6], nn.Linear(6, 1).double()), seed=7)
    criterion = learner.criterion(
        lambda y, t: F.binary_cross_entropy_with_logits(y.flatten(), t.flatten().double())
    )
    x, target = batch(0)[0], torch.tensor([0, 1, 1, 0, 1, 1])
    criterion(learner(x), target.double().unsqueeze(1)).backward()
    expected = gradients(learner)
    learner.zero_grad()
    criterion(learner(x), target.view(shape).to(dtype)).backward()
    assert_same_bits(gradients(learner), expected)


def _own_names(logits: Tensor, weight: Tensor | None = None, *, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, weight)


@pytest.mark.parametrize("method", ["drtp", "pepita"])
@pytest.mark.parametrize(
    ("loss_function", "names"),
    [
        (F.cross_entropy, ("input", "target")),
        (nn.CrossEntropyLoss(), ("input", "target")),
        (_own_names, ("logits", "labels")),
        (lambda **given: F.cross_entropy(**given), ("input", "target")),
        (torch.kl_div, ("input", "target")),
    ],
    ids=["function", "module", "names of its own", "any names", "no signature"],
)
def test_by_keyword_in_any_order(
    method: str, loss_function: Callable[..., Tensor], names: tuple[str, str]
) -> None:
    learner = fdfa.wrap(method, dense(), seed=7)
    x, target = batch(0)
    if loss_function is torch.kl_div:
        target = F.one_hot(target, CLASSES).double()
    first, second = names
    criterion = learner.criterion(loss_function)
    criterion(**{first: learner(x), second: target}).sum().backward()
    expected = gradients(learner)
    learner.zero_grad()
    criterion(**{second: target, first: learner(x)}).sum().backward()
    assert_same_bits(gradients(learner), expected)


def test_targets_that_fit_no_output() -> None:
    learner, _ = drtp()
    criterion = learner.criterion(lambda y, t: y.square().mean())
    loss = criterion(learner(batch(0)[0]), torch.zeros(5, dtype=torch.int64))
    with pytest.raises(FDFAError, match=r"targets have shape \(5,\)"):
        loss.backward()


def test_a_loss_of_no_known_shape() -> None:
    learner, _ = drtp()
    criterion = learner.criterion(lambda y, t: y.square().mean(0)[:2])
    loss = criterion(learner(batch(0)[0]), batch(0)[1])
    with pytest.raises(FDFAError, match=r"the loss has shape \(2,\)"):
        loss.sum().backward()


class _Head(nn.Module):
    """Something of the user's behind the learner, and the learner in a checkpoint."""

    def __init__(self, learner: nn.Module) -> None:
        super().__init__()
        self.learner = learner

    def forward(self, x: Tensor) -> Tensor:
        y = checkpoint(self.learner, x, use_reentrant=True)
        output: Tensor = checkpoint(torch.neg, y, use_reentrant=True)
        return -output


def test_found_through_what_lies_between_learner_and_loss() -> None:
    learner, criterion = drtp()
    x, target = batch(0)
    expected = fresh_gradients(learner, (x, target))
    learner.zero_grad()
    criterion(_Head(learner)(x.requires_grad_()), target).backward()
    assert_same_bits(gradients(learner), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_in_a_compiled_loop() -> None:
    learner, criterion = drtp()
    x, target = batch(0)
    expected = fresh_gradients(learner, (x, target))
    learner.zero_grad()

    def loss(x: Tensor) -> Tensor:
        result: Tensor = criterion(learner(x), target)
        return result

    torch.compile(loss, backend="eager")(x).backward()
    assert_close_to_rounding(gradients(learner), expected)
    assert x.shape[1] == INPUTS

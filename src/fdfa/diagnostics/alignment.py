"""The angle between the gradients of a learning rule and the exact ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.estimator import Estimator
from fdfa.engine.intercept import untouched_state

__all__ = ["alignment"]


def alignment(
    learner: Estimator,
    loss_function: Callable[[Any, Any], Tensor],
    inputs: Tensor | tuple[Any, ...],
    targets: Any,
) -> dict[str, float]:
    """Cosine between the rule's gradient of each parameter and autograd's exact one, on one batch.

    Both are taken at the same weights, in the modes in which the modules stand, with the same
    dropout masks. The learner is left bit for bit as it was (weights, buffers, feedback, ``.grad``,
    random number generators): everything runs on copies. Cost: one copy of the learner and one of
    the model, and one forward and backward pass of each.

    One process of several may call it alone. The copy teaches no feedback maps and agrees on no
    seed, so it waits for no other process, and the result is of this process's batch. Only a layer
    of the model that communicates by itself (``SyncBatchNorm``) still asks for all of them.

    Args:
        learner: an estimator of any method, in training mode.
        loss_function: (what the learner returns, targets) to a scalar.
        inputs: the batch; a tuple for a model with several arguments.
        targets: passed to the loss function.

    Returns:
        Name of each trainable parameter (the model's own) to its cosine, -1 to 1. NaN where the
        rule or the exact gradient gives nothing: a zero has no direction.

    Raises:
        ValueError: if the learner is in eval mode, where it is the plain model.

    Example:
        >>> import fdfa
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        ... )
        >>> cosines = alignment(
        ...     fdfa.DFA(model),
        ...     torch.nn.functional.cross_entropy,
        ...     torch.rand(5, 4),
        ...     torch.tensor([0, 1, 2, 0, 1]),
        ... )
        >>> list(cosines), round(cosines["2.weight"], 4)  # the last block's error is exact
        (['0.weight', '0.bias', '2.weight', '2.bias'], 1.0)
    """
    if not learner.training:
        raise ValueError(
            "the learner is in eval mode, where it is the plain model and every cosine would be 1. "
            "Call learner.train() first."
        )
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    twin, plain = copy.deepcopy(learner), copy.deepcopy(learner.model)
    twin.alone = True  # other processes are not making this pass
    # Each of the two forks the random number generators where they stand now: equal dropout masks.
    with torch.enable_grad(), untouched_state(twin):
        ruled = _gradients(twin.criterion(loss_function)(twin(*args), targets), twin.model)
    with torch.enable_grad(), untouched_state(plain):
        exact = _gradients(loss_function(plain(*args), targets), plain)
    return {name: _cosine(ruled[name], exact[name]) for name in exact}


def _gradients(loss: Tensor, model: nn.Module) -> dict[str, Tensor | None]:
    """The gradient of each trainable parameter; None where the loss does not depend on it."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return dict(zip(named, found, strict=True))


def _cosine(a: Tensor | None, b: Tensor | None) -> float:
    if a is None or b is None:
        return math.nan
    # In float64: squares of small gradients would vanish in float32.
    a, b = a.flatten().double(), b.flatten().double()
    lengths = a.norm() * b.norm()
    return (a.dot(b) / lengths).item() if lengths > 0 else math.nan

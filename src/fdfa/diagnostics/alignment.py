"""The angle between the gradients of a learning rule and the exact ones."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from fdfa.diagnostics.learner_copy import copy_alone, refuse_other
from fdfa.engine.estimator import Estimator
from fdfa.engine.intercept import untouched_state

__all__ = ["GradientMatch", "alignment", "gradient_matches"]


_IN_CACHE = 2**15


@dataclasses.dataclass(frozen=True)
class GradientMatch:
    """How a rule's gradient of one parameter lies to autograd's exact one.

    Attributes:
        cosine: of the angle between them, -1 to 1; NaN where either is zero or not there.
        angle: in degrees, 0 to 180; NaN as the cosine.
        norm_ratio: length of the rule's, in lengths of the exact one; NaN where that is zero.
    """

    cosine: float
    angle: float
    norm_ratio: float

    @classmethod
    def of(cls, ruled: Tensor | None, exact: Tensor | None) -> Self:
        """Of two gradients.

        Args:
            ruled: the rule's; None where it gives nothing.
            exact: autograd's, of the same shape; None where it gives nothing.

        Returns:
            How they lie to each other.

        Example:
            >>> GradientMatch.of(torch.tensor([2.0, 2.0]), torch.tensor([0.0, 1.0]))
            GradientMatch(cosine=0.7071..., angle=45.0..., norm_ratio=2.828...)
        """
        product, length, truth = _inner_products(ruled, exact)
        ratio = length / truth if truth > 0 else math.nan
        if not (length > 0 and truth > 0):
            return cls(math.nan, math.nan, ratio)
        cosine = min(max(product / length / truth, -1.0), 1.0)
        return cls(cosine, math.degrees(math.acos(cosine)), ratio)


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
    matches = gradient_matches(learner, loss_function, inputs, targets)
    return {name: match.cosine for name, match in matches.items()}


def gradient_matches(
    learner: Estimator,
    loss_function: Callable[[Any, Any], Tensor],
    inputs: Tensor | tuple[Any, ...],
    targets: Any,
) -> dict[str, GradientMatch]:
    """As :func:`alignment`, with the angle and the ratio of the lengths beside the cosine.

    Args:
        learner: an estimator of any method, in training mode.
        loss_function: (what the learner returns, targets) to a scalar.
        inputs: the batch; a tuple for a model with several arguments.
        targets: passed to the loss function.

    Returns:
        Name of each trainable parameter (the model's own) to how its two gradients lie.

    Raises:
        ValueError: if the learner is in eval mode, where it is the plain model.

    Example:
        >>> import fdfa
        >>> learner = fdfa.Backpropagation(torch.nn.Linear(2, 2))
        >>> found = gradient_matches(
        ...     learner,
        ...     torch.nn.functional.cross_entropy,
        ...     torch.rand(3, 2),
        ...     torch.tensor([0, 1, 0]),
        ... )
        >>> round(found["weight"].norm_ratio, 6)
        1.0
    """
    refuse_other(learner)
    if not learner.training:
        raise ValueError(
            "the learner is in eval mode, where it is the plain model and every cosine would be 1. "
            "Call learner.train() first."
        )
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    twin = copy_alone(learner)  # other processes are not making this pass
    # Each of the two has modules and buffers of its own; they share one copy of the weights.
    plain = copy.deepcopy(twin.model, {id(p): p for p in twin.model.parameters()})
    # Each of the two forks the random number generators where they stand now: equal dropout masks.
    with torch.enable_grad(), untouched_state(twin):
        ruled = _gradients(twin.criterion(loss_function)(twin(*args), targets), twin.model)
    with torch.enable_grad(), untouched_state(plain):
        exact = _gradients(loss_function(plain(*args), targets), plain)
    return {name: GradientMatch.of(ruled[name], exact[name]) for name in exact}


def _gradients(loss: Tensor, model: nn.Module) -> dict[str, Tensor | None]:
    """The gradient of each trainable parameter; None where the loss does not depend on it."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return dict(zip(named, found, strict=True))


def _inner_products(a: Tensor | None, b: Tensor | None) -> tuple[float, float, float]:
    """A . b, |a| and |b|, in float64, where squares of small gradients do not vanish."""
    some = a if a is not None else b
    if some is None:
        return 0.0, 0.0, 0.0
    vectors = [torch.zeros_like(some) if x is None else x for x in (a, b)]
    gram = torch.zeros(2, 2, dtype=torch.float64, device=some.device)
    rows = gram.new_empty(2, min(_IN_CACHE, some.numel()))
    # In pieces that stay in cache: each number is fetched once for all three products.
    for pieces in zip(*(torch.split(x.reshape(-1), _IN_CACHE) for x in vectors), strict=True):
        pair = rows[:, : len(pieces[0])]
        for row, piece in zip(pair, pieces, strict=True):
            row.copy_(piece)
        gram.addmm_(pair, pair.T)
    (aa, ab), (_, bb) = gram.tolist()
    return ab, math.sqrt(aa), math.sqrt(bb)

"""What a network makes of its inputs at the taps, and how alike two networks do it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.at_taps import AtTaps
from fdfa.engine.intercept import untouched_state
from fdfa.engine.taps import Tap, plan_taps

__all__ = ["linear_cka", "principal_components", "tapped_activations"]

_FEWEST = 4  # the unbiased estimate divides by N - 3


def tapped_activations(
    model: nn.Module, inputs: Tensor | tuple[Any, ...], *, output: str | int | None = None
) -> dict[str, Tensor]:
    """The activations at the places where a rule would cut by itself (``taps="auto"``).

    One forward pass, in the modes in which the modules stand, that leaves no trace in the model.

    Args:
        model: the plain model, trained by any rule.
        inputs: the batch of N; a tuple for a model with several arguments.
        output: names the output in what the model returns.

    Returns:
        Name of each tap, from the input on, to its activations (N, units).

    Raises:
        UnsupportedModelError: if there is no place to cut.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> {
        ...     name: tuple(h.shape)
        ...     for name, h in tapped_activations(model, torch.rand(5, 4)).items()
        ... }
        {'1': (5, 8)}
    """
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    plan = plan_taps(model, args, {}, output=output)
    found: dict[str, Tensor] = {}

    def keep(tap: Tap, tensor: Tensor) -> Tensor:
        found[tap.name] = tensor.detach().flatten(1).clone()  # what follows may work in place
        return tensor

    with torch.no_grad(), untouched_state(model), AtTaps(model, plan, keep):
        model(*args)
    return found


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two representations of the same examples.

    ``HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`` with ``K = X X^T`` and ``L = Y Y^T`` (Kornblith,
    Norouzi, Lee & Hinton, ICML 2019), each HSIC by its unbiased estimator (Song et al., JMLR 2012),
    as Nguyen, Raghu & Kornblith (ICLR 2021) do: with no more examples than units the plain estimate
    calls any two representations alike. It is the same however either is rotated, reflected or
    scaled as a whole.

    Args:
        x: activations (N, units) of the one.
        y: activations (N, units) of the other, which may have other units.

    Returns:
        1 for the same up to such changes, about 0 for unrelated ones, of either sign; NaN where one
        does not tell the examples apart.

    Raises:
        ValueError: if there are not as many examples in both, or fewer than four.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0], [4.0, 1.0], [2.0, 2.0]])
        >>> round(linear_cka(x, -3 * x.flip(1)), 6)
        1.0
    """
    if len(x) != len(y) or len(x) < _FEWEST:
        raise ValueError(
            f"representations of {len(x)} and {len(y)} examples cannot be compared: give both of "
            f"the same examples, {_FEWEST} or more."
        )
    k, l = _gram(x), _gram(y)  # noqa: E741  # as in the papers
    lengths = _hsic(k, k).clamp(min=0).sqrt() * _hsic(l, l).clamp(min=0).sqrt()
    return (_hsic(k, l) / lengths).item() if lengths > 0 else float("nan")


def principal_components(x: Tensor, count: int = 2) -> tuple[Tensor, Tensor]:
    """Where examples lie along the directions in which their representations differ most.

    Args:
        x: activations (N, units).
        count: of directions; no more than N or units.

    Returns:
        Coordinates (N, count), float64, each direction turned so that its largest entry is
        positive; and the shares of the variance (count,) that lie along them.

    Example:
        >>> points, shares = principal_components(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), 1)
        >>> [round(point, 6) for point in points.flatten().abs().tolist()]
        [1.0, 1.0]
        >>> round(shares.item(), 6)
        1.0
    """
    centred = x.double() - x.double().mean(0)
    left, lengths, _ = torch.linalg.svd(centred, full_matrices=False)
    points = left[:, :count] * lengths[:count]
    largest = points.gather(0, points.abs().argmax(0, keepdim=True))
    shares = lengths.square() / lengths.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    return points * largest.sign(), shares[:count]


def _gram(x: Tensor) -> Tensor:
    """``X X^T`` in float64 without its diagonal; centred first, which changes no HSIC."""
    centred = x.double() - x.double().mean(0)
    gram = centred @ centred.T
    return gram.fill_diagonal_(0)


def _hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741  # as in the papers
    """The unbiased estimator of Song et al. (2012), from Gram matrices with zero diagonals."""
    n = len(k)
    both = (k * l).sum()
    apart = k.sum() * l.sum() / ((n - 1) * (n - 2))
    once = 2 / (n - 2) * k.sum(0).dot(l.sum(0))
    return (both + apart - once) / (n * (n - 3))

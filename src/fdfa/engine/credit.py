"""The one autograd node between the network and the loss: the output error arrives, credits leave.

Autograd receives ``(e, g_1, ..., g_L)`` for ``(y, h_1, ..., h_L)`` and runs the derivatives of all
blocks, each independent of the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fdfa.engine.notes import Note, notes_around
from fdfa.errors import FDFAError

__all__ = ["Credits", "Payer", "join_credit", "seal"]

# Bytes. Larger credits, all at once, would stand in memory beside all activations; so each is
# worked out when its block is about to run. For smaller ones that would cost more than it saves.
_AT_ONCE = 2**20

Payer = Callable[[int], Tensor]
Credits = Callable[[Tensor, Sequence[Note]], Payer]


def join_credit(
    y: Tensor,
    taps: Sequence[Tensor],
    *,
    credits: Credits,
    learn: Callable[[Tensor], None] | None = None,
    once: bool = False,
    at_once: bool = False,
) -> Tensor:
    """The output y, joined to the taps so that its error reaches every block at once.

    Args:
        y: the model's output (N, K, ...).
        taps: the tapped activations.
        credits: from e, of y's shape, and what the pass was told, to what gives each tap, by
            number, its credit g, of the tap's shape and dtype.
        learn: called with e once for this pass, when its first backward pass has run through all
            blocks.
        once: whether ``credits`` holds large tensors, to be freed as autograd frees what it saved:
            by a backward pass without ``retain_graph``.
        at_once: whether all credits are paid together, however large they are.

    Returns:
        A tensor equal to y.
    """
    arrival = _Arrival(credits, learn, once)
    if not at_once and sum(tap.nbytes for tap in taps) > _AT_ONCE:
        arrival.one_by_one = True
        for number, tap in enumerate(taps):
            if tap.requires_grad:  # else its block holds no parameter
                # the hook runs just before the block; it holds no tapped tensor, hence no graph
                hook = functools.partial(arrival.pay, number)
                tap.register_hook(hook)  # type: ignore[no-untyped-call]
    joined: Tensor = _Credit.apply(arrival, y, *taps)  # type: ignore[no-untyped-call]
    return joined


class _Arrival:
    """The output error of one pass, from its arrival until the last block has run."""

    def __init__(
        self,
        credits: Credits,
        learn: Callable[[Tensor], None] | None,
        once: bool,
    ) -> None:
        self.one_by_one = False
        self.notes = notes_around()
        self._credits: Credits | None = credits
        self._learn = learn
        self._once = once
        self._error: Tensor | None = None
        self._payer: Payer | None = None

    def take(self, error: Tensor) -> Payer:
        if self._credits is None:
            raise FDFAError(
                "a second backward pass arrived at a forward pass whose perturbations the first one"
                " freed. Pass retain_graph=True to the first, or run the model again."
            )
        payer = self._credits(error, self.notes)
        # no public name (torch 2.13); autograd frees what it saved under the same condition
        if self._once and not torch._C._autograd._get_current_graph_task_keep_graph():
            self._credits = None
        if self.one_by_one:
            self._payer = payer
        if self.one_by_one or self._learn is not None:
            self._error = error
            # not now: the credits are to come from the maps as they were before this pass
            torch.autograd.Variable._execution_engine.queue_callback(self._finish)
        return payer

    def pay(self, number: int, placeholder: Tensor) -> Tensor:
        return placeholder if self._payer is None else self._payer(number)

    @torch.no_grad()
    def _finish(self) -> None:
        error, self._error, self._payer = self._error, None, None
        learn, self._learn = self._learn, None
        if learn is not None and error is not None:
            learn(error)


class _Credit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, arrival: _Arrival, y: Tensor, *taps: Tensor) -> Tensor:
        ctx.arrival, ctx.fdfa_notes = arrival, arrival.notes
        ctx.taps = len(taps)
        if arrival.one_by_one:
            ctx.like = [(tap.shape, tap.dtype, tap.device) for tap in taps]
        ctx.set_materialize_grads(False)
        return y.detach()  # not a view: the user may change it in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, e: Tensor | None) -> Any:
        if e is None:
            return (None,) * (2 + ctx.taps)
        payer = ctx.arrival.take(e)
        if not ctx.arrival.one_by_one:
            return (None, e, *map(payer, range(ctx.taps)))
        places = [
            torch.zeros((), dtype=dtype, device=device).expand(shape)  # a place, no memory
            for shape, dtype, device in ctx.like
        ]
        return (None, e, *places)


def seal(tensor: Tensor, anchor: Tensor) -> Tensor:
    """A tensor equal to this one that refuses a gradient.

    Args:
        tensor: returned beside the output; the graph before it may have been cut away.
        anchor: any tensor that needs a gradient, so that the sealed one does too.

    Returns:
        The sealed tensor.
    """
    sealed: Tensor = _Seal.apply(tensor, anchor)  # type: ignore[no-untyped-call]
    return sealed


class _Seal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, anchor: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.fdfa_notes = None  # what is told to this tensor concerns no pass
        return tensor.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> Any:
        if gradient is None:
            return None, None
        raise FDFAError(
            "a gradient arrived at a tensor that the model returned beside its output: the blocks"
            " before it would get no credit for it. Compute the loss from the output alone, or name"
            " another output with output=."
        )

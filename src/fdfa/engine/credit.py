"""The one autograd node between the network and the loss: the output error arrives, credits leave.

Autograd receives ``(e, g_1, ..., g_L)`` for ``(y, h_1, ..., h_L)`` and runs the derivatives of all
blocks, each independent of the others. A credit is worked out when its block is about to run, and
let go of behind it: all of them at once would stand beside all activations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fdfa.errors import FDFAError, UnsupportedModelError

__all__ = ["join_credit", "seal"]


def join_credit(
    y: Tensor,
    taps: Mapping[str, Tensor],
    *,
    credit: Callable[[int, Tensor], Tensor],
    learn: Callable[[], None] | None = None,
) -> Tensor:
    """The output y, joined to the taps so that its error reaches every block at once.

    Args:
        y: the model's output (N, K, ...).
        taps: the tapped activations by name.
        credit: from a tap's number and e, of y's shape, to g, of the tap's shape and dtype.
        learn: called once for this pass, when its first backward pass has run through all blocks.

    Returns:
        A tensor equal to y.
    """
    arrived = _Arrived(learn)
    for number, (name, tap) in enumerate(taps.items()):
        if not tap.requires_grad:  # its block holds no parameter
            continue
        # the hook runs just before the tap's block; it holds no tapped tensor, hence no graph
        hook = functools.partial(arrived.pay, name, credit, number)
        tap.register_hook(hook)  # type: ignore[no-untyped-call]
    joined: Tensor = _Credit.apply(arrived, y, *taps.values())  # type: ignore[no-untyped-call]
    return joined


class _Arrived:
    """The output error of one pass, from its arrival until the last block has run."""

    def __init__(self, learn: Callable[[], None] | None) -> None:
        self.error: Tensor | None = None
        self._learn = learn

    def take(self, error: Tensor) -> None:
        self.error = error
        # not now: the credits are to come from the maps as they were before this pass
        torch.autograd.Variable._execution_engine.queue_callback(self._finish)

    def pay(
        self,
        name: str,
        credit: Callable[[int, Tensor], Tensor],
        number: int,
        placeholder: Tensor,
    ) -> Tensor:
        if self.error is None:
            return placeholder
        if any(placeholder.stride()) and _is_dense(placeholder):  # something was added to it
            raise UnsupportedModelError(
                f"a path bypasses tap '{name}': in this pass something uses the tapped tensor that"
                " did not when the taps were found (a skip connection that comes and goes?). Name"
                " taps that every path passes, with taps=[...]."
            )
        return credit(number, self.error)

    @torch.no_grad()
    def _finish(self) -> None:
        self.error = None
        learn, self._learn = self._learn, None
        if learn is not None:
            learn()


def _is_dense(tensor: Tensor) -> bool:
    return any(s > 1 and stride for s, stride in zip(tensor.shape, tensor.stride(), strict=True))


class _Credit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, arrived: _Arrived, y: Tensor, *taps: Tensor) -> Tensor:
        ctx.arrived = arrived
        ctx.like = [(tap.shape, tap.dtype, tap.device) for tap in taps]
        ctx.set_materialize_grads(False)
        return y.detach()  # not a view: the user may change it in place

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, e: Tensor | None) -> Any:
        if e is None:
            return (None,) * (2 + len(ctx.like))
        ctx.arrived.take(e)
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

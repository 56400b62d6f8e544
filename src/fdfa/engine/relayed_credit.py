"""Credits that enter some blocks behind their tap and are pulled back exactly from there.

Each relayed credit takes its own way through the derivatives of the blocks that it passes, so all
taps stay independent. What comes from the output itself is one chain, backpropagation through the
last blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from fdfa.engine.credit import Credits, Payer, join_credit
from fdfa.engine.cut import CutPass
from fdfa.engine.graph import leaves_behind
from fdfa.engine.notes import Note
from fdfa.engine.relay_routes import RelayRoutes
from fdfa.engine.taps import Tap, TapPlan
from fdfa.errors import FDFAError, UnsupportedModelError

__all__ = ["check_apart", "join_relayed"]

OnCredit = Callable[[Tap, Tensor], None]


def join_relayed(
    model: nn.Module,
    plan: TapPlan,
    routes: RelayRoutes,
    run: CutPass,
    *,
    credits: Credits,
    learn: Callable[[Tensor], None] | None,
    on_credit: OnCredit | None,
) -> Tensor:
    """The output of a pass, joined so that its error reaches every block by its route.

    Args:
        model: the user's model.
        plan: where it was cut.
        routes: of the credits.
        run: the pass, with an edge at every tap that something is pulled back to.
        credits: from e to what gives a tap, by number, the direct credit ``e B``.
        learn: as in :func:`fdfa.engine.credit.join_credit`.
        on_credit: called with each tap and the credit that its block gets.

    Returns:
        A tensor equal to the output.
    """
    relay = _RelayedPass(model, plan, routes, run, credits, on_credit)
    output = run.output.detach() if routes.apart[-1] else run.output
    return join_credit(output, relay.ends, credits=relay.pull_back, learn=learn, at_once=True)


def check_apart(model: nn.Module, plan: TapPlan, routes: RelayRoutes, run: CutPass) -> None:
    """Refuse a pass in which an inner block learns something that is no parameter of the model.

    Args:
        model: the user's model.
        plan: its taps.
        routes: of the credits.
        run: a pass.

    Raises:
        UnsupportedModelError: if a tensor from outside that needs a gradient enters such a block.
    """
    known = {id(parameter) for parameter in model.parameters()}
    known |= {id(leaf) for leaf in run.anchors}
    ends = [*(f"that ends at tap '{tap.name}'" for tap in plan.taps), "that makes the output"]
    for end, apart, tensor in zip(ends, routes.apart, (*run.taps, run.output), strict=True):
        if apart and leaves_behind(tensor) - known:
            raise UnsupportedModelError(
                f"a tensor from outside the model that needs a gradient enters the block {end}:"
                " with relay= only parameters get gradients there. Detach that tensor, or let it"
                " enter before the first tap, or pass relay=0."
            )


class _RelayedPass:
    """What one pass keeps until its output error arrives: the graphs of its blocks.

    Blocks that nothing is pulled back through lie in autograd's own graph, behind ``ends``. The
    others hang here: only so can their derivatives be asked for by parts, those by weights from one
    credit and those by the block's input from another.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: TapPlan,
        routes: RelayRoutes,
        run: CutPass,
        credits: Credits,
        on_credit: OnCredit | None,
    ) -> None:
        self.taps, self.routes = plan.taps, routes
        self.credits, self.on_credit = credits, on_credit
        tensors = (*run.taps, run.output)
        self.weights: list[list[Tensor]] = [
            [_parameter(model, name) for name in block] if apart else []
            for block, apart in zip(plan.blocks, routes.apart, strict=True)
        ]
        whole = [
            number
            for number, (tensor, apart) in enumerate(zip(run.taps, routes.apart, strict=False))
            if tensor.requires_grad and not apart
        ]
        parameters = {id(weight): weight for block in self.weights for weight in block}
        self.ends: list[Any] = [*(run.taps[number] for number in whole), *parameters.values()]
        self.place = {key: place for place, key in enumerate([*whole, *parameters])}
        self.tensors: Sequence[Tensor] | None = tensors
        self.edges = run.edges

    def pull_back(self, e: Tensor, notes: Sequence[Note]) -> Payer:
        """The gradients of all ends for this output error."""
        if self.tensors is None:
            raise FDFAError(
                "a second backward pass arrived at a forward pass whose graph the first one freed."
                " Pass retain_graph=True to the first, or run the model again."
            )
        # no public name (torch 2.13); autograd frees its own graph under the same condition
        keep = torch._C._autograd._get_current_graph_task_keep_graph()
        found: list[Any] = [None] * len(self.ends)
        direct = self.credits(e, notes)
        # the lowest first: later ones do not pass the block that has just run
        for number, route in self.routes.relayed.items():
            if not (self.routes.apart[number] or number in self.place):
                continue  # nothing learns there
            credit: Tensor | None = direct(route[0])
            for block, before in zip(route, (*route[1:], number), strict=True):
                if credit is not None:
                    (credit,) = self._derivatives(block, [self.edges[before]], credit, keep=True)
            self._run_block(number, credit, (), found, keep)
        exact: dict[int, Tensor | None] = {len(self.tensors) - 1: e}
        for block, entries in self.routes.exact.items():
            into = self._run_block(block, exact.pop(block), entries, found, keep)
            exact.update(zip(entries, into, strict=True))
        if not keep:
            self.tensors = None

        def pay(end: int) -> Tensor:
            gradient: Tensor = found[end]  # handed over: autograd takes it as .grad uncopied
            found[end] = None
            return gradient

        return pay

    def _run_block(
        self,
        block: int,
        credit: Tensor | None,
        entries: Sequence[int],
        found: list[Any],
        keep: bool,
    ) -> Sequence[Tensor | None]:
        """Give a block its credit.

        Returns:
            The credits of the taps through which it is entered, as far as they are asked for.
        """
        if credit is None:
            return [None] * len(entries)
        learns = bool(self.weights[block]) or block in self.place
        if self.on_credit is not None and learns and block < len(self.taps):
            self.on_credit(self.taps[block], credit)
        if not self.routes.apart[block]:
            if block in self.place:
                found[self.place[block]] = credit
            return ()
        weights = self.weights[block]
        wanted: list[Any] = [*weights, *(self.edges[entry] for entry in entries)]
        with _no_hooks(weights):  # they run when the gradient arrives at the parameter itself
            gradients = self._derivatives(block, wanted, credit, keep=keep)
        for weight, gradient in zip(weights, gradients, strict=False):
            place = self.place[id(weight)]
            known = found[place]
            found[place] = gradient if known is None or gradient is None else known + gradient
        return gradients[len(weights) :]

    def _derivatives(
        self, block: int, by: Sequence[Any], credit: Tensor, *, keep: bool
    ) -> Sequence[Tensor | None]:
        tensors = self.tensors
        if not by or tensors is None:
            return []
        return torch.autograd.grad(tensors[block], by, credit, retain_graph=keep, allow_unused=True)


def _parameter(model: nn.Module, name: str) -> Tensor:
    found: Any = model
    for part in name.split("."):
        found = getattr(found, part)
    return cast(Tensor, found)


@contextmanager
def _no_hooks(parameters: Sequence[Tensor]) -> Iterator[None]:
    hooked = [(p, p._backward_hooks) for p in parameters if p._backward_hooks]
    for parameter, _ in hooked:
        parameter._backward_hooks = None
    try:
        yield
    finally:
        for parameter, hooks in hooked:
            parameter._backward_hooks = hooks

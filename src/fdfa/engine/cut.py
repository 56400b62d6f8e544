"""One forward pass with the graph cut at the taps.

On request, perturbations travel beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fdfa.engine.at_taps import AtTaps, Substitute
from fdfa.engine.forward_derivatives import forward_derivatives
from fdfa.engine.handover import Handover
from fdfa.engine.tangents import TangentCarrier
from fdfa.engine.taps import Tap, TapPlan
from fdfa.errors import ProbeError

__all__ = ["CutModel", "CutModels", "CutPass"]

# passes, where none has made another number of autograd nodes
_CHECKED_EVERY = 16
_Returned = tuple[Any, Tensor, Tensor | None]


@dataclasses.dataclass
class CutPass:
    """What one cut forward pass left.

    Attributes:
        returned: the model's return value.
        output: the output tensor (N, K, ...) within it.
        taps: the tapped activations, each with the graph of its own block only.
        nodes: how many autograd nodes the pass made.
        derivative: directional derivative of the output along all perturbations at once, of the
            output's shape; None without a probe.
        noises: the perturbations as they were added, one a perturbed tap.
        edges: by number of the tap, where a derivative can be pulled back to, out of the block that
            is entered there.
        anchors: leaves that only stand for those places.
        tangents: of the tapped activations at which a local loss hangs, in the order of the taps:
            their derivatives along the perturbations of their own blocks.
    """

    returned: Any
    output: Tensor
    taps: list[Tensor]
    nodes: int
    derivative: Tensor | None
    noises: Sequence[Tensor] = ()
    tangents: Sequence[Tensor] = ()
    edges: Mapping[int, GradientEdge] = dataclasses.field(default_factory=dict)
    anchors: Sequence[Tensor] = ()


class CutModel:
    """A model cut at the taps of one plan; made once, run at every step.

    Args:
        model: the user's model.
        plan: where to cut.
        find_output: picks the output out of what the model returns.
        probing: whether tangents travel beside the primals.
        compile_options: for ``torch.compile``; None runs eagerly.
        substitute: a forward in place of that of a module in a hidden block, or None.
        perturbed: the taps that get perturbations; None for all.
        entries: numbers of the taps at which derivatives are pulled back out of the next block.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: TapPlan,
        *,
        find_output: Callable[[Any], Tensor],
        probing: bool,
        compile_options: Mapping[str, Any] | None = None,
        substitute: Substitute | None = None,
        perturbed: Sequence[Tap] | None = None,
        entries: Collection[int] = (),
    ) -> None:
        self._model = model
        self._plan = plan
        self._find_output = find_output
        self._probing = probing
        self._carrier = TangentCarrier()
        self._handover = Handover(model)
        if probing:
            self._at_taps = AtTaps(model, plan, self._perturb, self._carrier, self._handover)
        else:
            self._at_taps = AtTaps(model, plan, self._cut, substitute=substitute)
        self._taps: list[Tensor] = []
        self._tangents: list[Tensor] = []
        # a head's own tap is perturbed only where its credit would teach anything
        self._silent = {
            tap.name
            for tap, block in zip(plan.taps, plan.blocks, strict=False)
            if tap.has_head and not block
        }
        self._perturbed = plan.taps if perturbed is None else perturbed
        self._expects_derivative = any(tap.end is None for tap in self._perturbed)
        self._receiving = plan.receiving(self._perturbed)
        self._entries = {plan.taps[number].name: number for number in entries}
        self._edges: dict[int, GradientEdge] = {}
        self._anchors: list[Tensor] = []
        self._noises: dict[str, Tensor] = {}
        self._active_only = False
        self._forward = self._forward_with_tangents if probing else self._plain_forward
        if compile_options is not None:
            forward = self._traced_forward if probing else self._plain_forward
            self._forward = torch.compile(forward, **compile_options)

    def run(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        noises: Sequence[Tensor] = (),
        active_only: bool = False,
    ) -> CutPass:
        """Run the model once.

        Args:
            args: positional arguments of the model.
            kwargs: keyword arguments of the model.
            noises: one perturbation a perturbed tap: when probing, added to the tangent there; else
                to the tensor itself, behind the cut.
            active_only: add none where the tapped tensor is zero.

        Returns:
            The pass.

        Raises:
            ProbeError: if a tangent is lost, or an operator has no forward derivative.
        """
        self._noises = {
            tap.name: noise for tap, noise in zip(self._perturbed, noises, strict=False)
        }
        self._active_only = active_only
        first = torch._C._autograd._get_sequence_nr()
        try:
            with self._at_taps:
                if self._probing:
                    with forward_derivatives(self._model, attention=self._plan.attention):
                        returned, y, d = self._forward(args, kwargs)
                    if d is None and self._expects_derivative:
                        raise ProbeError(_lost("the output"))
                else:
                    returned, y, d = self._forward(args, kwargs)
            nodes = torch._C._autograd._get_sequence_nr() - first
            noises = list(self._noises.values())
            return CutPass(
                returned,
                *(y, self._taps, nodes, d, noises, self._tangents),
                edges=self._edges,
                anchors=self._anchors,
            )
        finally:
            self._taps, self._noises, self._tangents = [], {}, []
            self._edges, self._anchors = {}, []

    def _plain_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Returned:
        returned = self._model(*args, **kwargs)
        return returned, self._find_output(returned), None

    def _forward_with_tangents(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Returned:
        with self._carrier:
            returned = self._model(*args, **kwargs)
            return returned, *self._carrier.split(self._find_output(returned))

    def _traced_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Returned:
        with fwAD.dual_level():  # spelled out: the compiler knows this one
            returned = self._model(*args, **kwargs)
            return returned, *self._carrier.split(self._find_output(returned))

    def _cut(self, tap: Tap, tensor: Tensor) -> Tensor:
        self._taps.append(_behind_hooks(tensor))
        noise = self._noises.get(tap.name)
        entry = self._enter(tap, tensor)
        return entry if noise is None else entry + noise.to(tensor.dtype)

    def _enter(self, tap: Tap, tensor: Tensor) -> Tensor:
        """The tapped tensor as the next block gets it, without the graph of its own."""
        number = self._entries.get(tap.name)
        if number is None:
            return tensor.detach()
        anchor = torch.empty(0, device=tensor.device, requires_grad=True)
        entry: Tensor = _Entry.apply(anchor, tensor.detach())  # type: ignore[no-untyped-call]
        self._anchors.append(anchor)
        self._edges[number] = get_gradient_edge(entry)  # now: it may be overwritten later
        return entry

    def _perturb(self, tap: Tap, tensor: Tensor) -> Tensor:
        plain = self._handover.take()
        primal, tangent = self._carrier.split(tensor)
        if tangent is None and tap.name in self._receiving:
            raise ProbeError(_lost(f"tap '{tap.name}'"))
        self._taps.append(_behind_hooks(primal))
        if self._plan.chain:
            self._carrier.reenter()
        p = self._noises.get(tap.name)
        if p is not None and self._active_only:
            p = self._noises[tap.name] = p * (primal.detach() != 0)
        if tangent is not None:
            p = tangent if p is None or tap.name in self._silent else tangent + p
        if tap.has_head and p is not None:
            self._tangents.append(p)
            return primal.detach()
        entry = self._enter(tap, primal)
        if p is None:
            return entry
        if tangent is None and not plain:  # what others get to see they may write into
            p = p.clone()
        return self._carrier.join(entry, p, plain=plain)


class _Entry(torch.autograd.Function):
    """Where a block is entered: a derivative is asked for here, and goes no further."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, tensor: Tensor) -> Tensor:
        return tensor.detach()  # not a view: the block may change it in place

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        return None, None


def _behind_hooks(tensor: Tensor) -> Tensor:
    """Where the user hooked the tapped tensor, a view of it: then those hooks see the credit."""
    hooked = tensor._backward_hooks or tensor.retains_grad
    return tensor.view_as(tensor) if hooked else tensor


class CutModels:
    """The model cut for one structure: for ordinary passes and for those that probe.

    The first pass is always eager: there the cuts are checked, which a compiled graph hides.

    Args:
        model: the user's model.
        plan: where to cut.
        find_output: picks the output out of what the model returns.
        compile_options: for ``torch.compile``; None runs eagerly.
        substitute: a forward in place of that of a module in a hidden block, or None.
        perturbed: the taps that get perturbations; None for all.
        entries: numbers of the taps at which derivatives are pulled back out of the next block.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: TapPlan,
        find_output: Callable[[Any], Tensor],
        compile_options: Mapping[str, Any] | None,
        substitute: Substitute | None = None,
        perturbed: Sequence[Tap] | None = None,
        entries: Collection[int] = (),
    ) -> None:
        self.plan = plan
        self._passes = 0
        self._nodes: dict[bool, int] = {}  # of the last pass of its kind
        self._compiled = compile_options is not None

        def both(options: Mapping[str, Any] | None) -> dict[bool, CutModel]:
            return {
                probing: CutModel(
                    model,
                    plan,
                    find_output=find_output,
                    probing=probing,
                    compile_options=options,
                    substitute=substitute,
                    perturbed=perturbed,
                    entries=entries,
                )
                for probing in (False, True)
            }

        self._eager = both(None)
        self._later = both(compile_options) if self._compiled else self._eager

    def next(self, *, probing: bool) -> CutModel:
        """The one to run for the next pass."""
        return (self._later if self._passes else self._eager)[probing]

    def to_be_checked(self, run: CutPass) -> bool:
        """Whether this pass is the first, unlike the last one, or one of many; and counts it."""
        probing = run.derivative is not None
        eager = self._passes == 0 or not self._compiled
        due = self._nodes.get(probing) != run.nodes or self._passes % _CHECKED_EVERY == 0
        self._nodes[probing] = run.nodes
        self._passes += 1
        return eager and due


def _lost(place: str) -> str:
    return (
        f"{place} has no tangent: something before it drops forward derivatives (a compiled module,"
        " detach(), .data, an operator on integers). Pass the plain module and call"
        " learner.compile(), choose taps behind that place, or pass probe='finite-difference'."
    )

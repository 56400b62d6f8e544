"""One forward pass with the graph cut at the taps.

On request, perturbations travel beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn

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
        noises: the perturbations as they were added, one a tap.
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


class CutModel:
    """A model cut at the taps of one plan; made once, run at every step.

    Args:
        model: the user's model.
        plan: where to cut.
        find_output: picks the output out of what the model returns.
        probing: whether tangents travel beside the primals.
        compile_options: for ``torch.compile``; None runs eagerly.
        substitute: a forward in place of that of a module in a hidden block, or None.
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
        self._expects_derivative = any(tap.end is None for tap in plan.taps)
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
            noises: one perturbation a tap: when probing, added to the tangent there; else to the
                tensor itself, behind the cut.
            active_only: add none where the tapped tensor is zero.

        Returns:
            The pass.

        Raises:
            ProbeError: if a tangent is lost, or an operator has no forward derivative.
        """
        self._noises = {
            tap.name: noise for tap, noise in zip(self._plan.taps, noises, strict=False)
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
            return CutPass(returned, y, self._taps, nodes, d, noises, self._tangents)
        finally:
            self._taps, self._noises, self._tangents = [], {}, []

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
        return tensor.detach() if noise is None else tensor.detach() + noise.to(tensor.dtype)

    def _perturb(self, tap: Tap, tensor: Tensor) -> Tensor:
        plain = self._handover.take()
        primal, tangent = self._carrier.split(tensor)
        if tangent is None and tap.receives:
            raise ProbeError(_lost(f"tap '{tap.name}'"))
        self._taps.append(_behind_hooks(primal))
        if self._plan.chain:
            self._carrier.reenter()
        p = self._noises[tap.name]
        if self._active_only:
            p = self._noises[tap.name] = p * (primal.detach() != 0)
        if tangent is not None:
            p = tangent if tap.name in self._silent else tangent + p
        if tap.has_head:
            self._tangents.append(p)
            return primal.detach()
        if tangent is None and not plain:  # what others get to see they may write into
            p = p.clone()
        return self._carrier.join(primal.detach(), p, plain=plain)


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
    """

    def __init__(
        self,
        model: nn.Module,
        plan: TapPlan,
        find_output: Callable[[Any], Tensor],
        compile_options: Mapping[str, Any] | None,
        substitute: Substitute | None = None,
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

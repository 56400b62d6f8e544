"""Meeting the tapped tensors of a forward pass, and running tangent rules beside its modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from fdfa.engine.discovery import single_tensor
from fdfa.engine.handover import Handover
from fdfa.engine.intercept import Forward, Interception, safe_forward
from fdfa.engine.tangents import TangentCarrier
from fdfa.engine.taps import Tap, TapPlan
from fdfa.errors import UnsupportedModelError

__all__ = ["AtTaps", "Substitute"]

Substitute = Callable[[nn.Module], Forward | None]


class AtTaps:
    """Hands every tapped tensor of a forward pass to a visitor and puts back what it returns.

    A context, within which the model is to run exactly once; it raises ``UnsupportedModelError``
    if a tap did not fire, or fired otherwise than planned.

    Args:
        model: the user's model.
        plan: where the taps are.
        visit: what is to stand in a tapped tensor's place.
        carrier: where given, modules with a tangent rule run beside it.
        handover: goes with the carrier; tells the visitor whether its result may go plain.
        substitute: gives a forward that is to stand in for a module's until the last tap is
            passed, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: TapPlan,
        visit: Callable[[Tap, Tensor], Tensor],
        carrier: TangentCarrier | None = None,
        handover: Handover | None = None,
        substitute: Substitute | None = None,
    ) -> None:
        self._plan = plan
        self._visit = visit
        self._handover = handover
        self._calls: dict[str, int] = {}
        self._fired: list[str] = []
        wanted: dict[str, dict[tuple[str, int], Tap]] = {}
        for tap in plan.taps:
            wanted.setdefault(tap.module, {})[tap.kind, tap.call] = tap
        forwards: dict[nn.Module, Forward] = {}
        for name, module in model.named_modules():
            forward = safe_forward(module)
            if carrier is not None and handover is not None:
                forward = _with_tangents(module, carrier, handover) or forward
            if substitute is not None and (other := substitute(module)) is not None:
                forward = self._until_last_tap(other, forward or module.forward)
            if name in wanted:
                forward = self._tapped(name, module, forward or module.forward, wanted[name])
            if forward is not None:
                forwards[module] = forward
        if handover is not None:
            handover.intercepted.update(forwards)
        self._planned = [tap.name for tap in plan.taps]
        self._interception = Interception(forwards)

    def __enter__(self) -> None:
        self._calls.clear()
        self._fired.clear()
        if self._handover is not None:
            self._handover.announce(False)
        self._interception.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._interception.__exit__(kind, *error)
        if kind is None and self._fired != self._planned:
            missing = [tap for tap in self._plan.taps if tap.name not in self._fired]
            tap = (missing or self._plan.taps)[0]
            raise UnsupportedModelError(_changed(tap, "it did not fire in its turn"))

    def _tapped(
        self, name: str, module: nn.Module, forward: Forward, taps: Mapping[tuple[str, int], Tap]
    ) -> Forward:
        handover = self._handover
        ruled = handover is not None and module in handover.ruled

        def tapped(*args: Any, **kwargs: Any) -> Any:
            call = self._calls.get(name, 0)
            self._calls[name] = call + 1
            plain = handover is not None and handover.take()
            tap = taps.get(("input", call))
            if tap is not None:
                x = single_tensor(args, kwargs)
                cut = self._fire(tap, x, ruled and len(args) == 1 and not kwargs)
                args = tuple(cut if value is x else value for value in args)
                kwargs = {k: cut if v is x else v for k, v in kwargs.items()}
            tap = taps.get(("output", call))
            if handover is not None:  # a tap asks for the tangent of what it cuts
                handover.announce(ruled and (plain or tap is not None))
            returned = forward(*args, **kwargs)
            return returned if tap is None else self._fire(tap, returned, plain)

        return tapped

    def _until_last_tap(self, other: Forward, forward: Forward) -> Forward:
        def chosen(*args: Any, **kwargs: Any) -> Any:
            hidden = len(self._fired) < len(self._planned)
            return (other if hidden else forward)(*args, **kwargs)

        return chosen

    def _fire(self, tap: Tap, tensor: Any, plain: bool) -> Tensor:
        if not isinstance(tensor, Tensor) or tensor.shape != tap.shape:
            seen = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise UnsupportedModelError(_changed(tap, f"it met {seen}"))
        self._fired.append(tap.name)
        if self._handover is not None:
            self._handover.announce(plain)
        return self._visit(tap, tensor)


def _with_tangents(
    module: nn.Module, carrier: TangentCarrier, handover: Handover
) -> Forward | None:
    if type(module) is nn.Sequential and "forward" not in module.__dict__:
        return handover.in_sequence(module)
    return carrier.beside(module, handover.take)


def _changed(tap: Tap, seen: str) -> str:
    return (
        f"tap '{tap.name}' was found with shape {tap.shape} for inputs like these, but in this pass"
        f" {seen}: the model's structure depends on more than the shapes of its inputs. Name taps"
        " that every pass meets, with taps=[...]."
    )

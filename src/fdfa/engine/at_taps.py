"""Meeting the tapped tensors of a forward pass, and running tangent rules beside its modules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from fdfa.engine.discovery import single_tensor
from fdfa.engine.intercept import Forward, Interception, safe_forward
from fdfa.engine.tangents import TangentCarrier, rule_for
from fdfa.engine.taps import Tap, TapPlan
from fdfa.errors import UnsupportedModelError

__all__ = ["AtTaps"]


class AtTaps:
    """Hands every tapped tensor of a forward pass to a visitor and puts back what it returns.

    A context, within which the model is to run exactly once; it raises ``UnsupportedModelError``
    if a tap did not fire, or fired otherwise than planned.

    Args:
        model: the user's model.
        plan: where the taps are.
        visit: what is to stand in a tapped tensor's place. With a carrier it is asked, by a second
            argument, whether that may travel plain.
        carrier: where given, modules with a tangent rule run beside it.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: TapPlan,
        visit: Callable[[Tap, Tensor, bool], Tensor],
        carrier: TangentCarrier | None = None,
    ) -> None:
        self._plan = plan
        self._visit = visit
        self._calls: dict[str, int] = {}
        self._fired: list[str] = []
        # Set for the wrapped module that is called next: whoever takes its result asks for the
        # tangent. Only a caller that we know can say so: a Sequential, or a tap.
        self._plain = False
        wanted: dict[str, dict[tuple[str, int], Tap]] = {}
        for tap in plan.taps:
            wanted.setdefault(tap.module, {})[tap.kind, tap.call] = tap
        self._ruled = set() if carrier is None else {m for m in model.modules() if rule_for(m)}
        self._forwards: dict[nn.Module, Forward] = {}
        for name, module in model.named_modules():
            forward = self._wrapped(module, carrier)
            if name in wanted:
                inner, ruled = forward or module.forward, module in self._ruled
                forward = self._tapped(name, inner, wanted[name], ruled=ruled)
            if forward is not None:
                self._forwards[module] = forward
        self._planned = [tap.name for tap in plan.taps]
        self._interception = Interception(self._forwards)

    def __enter__(self) -> None:
        self._calls.clear()
        self._fired.clear()
        self._plain = False
        self._interception.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._interception.__exit__(kind, *error)
        if kind is None and self._fired != self._planned:
            missing = [tap for tap in self._plan.taps if tap.name not in self._fired]
            tap = (missing or self._plan.taps)[0]
            raise UnsupportedModelError(_changed(tap, "it did not fire in its turn"))

    def _wrapped(self, module: nn.Module, carrier: TangentCarrier | None) -> Forward | None:
        if carrier is not None and type(module) is nn.Sequential and "forward" not in vars(module):
            return self._in_sequence(module)
        forward = None if carrier is None else carrier.beside(module, self._take_plain)
        return safe_forward(module) if forward is None else forward

    def _take_plain(self) -> bool:
        plain, self._plain = self._plain, False
        return plain

    def _in_sequence(self, container: nn.Sequential) -> Forward:
        """What a Sequential does, telling each child whether the next one asks for its tangent."""

        def in_sequence(input: Any) -> Any:  # named as in nn.Sequential
            children = list(container)
            plain = [self._passes_on(a, b) for a, b in itertools.pairwise(children)]
            plain.append(self._take_plain() and self._obeys(children[-1]) if children else False)
            for child, hand_over in zip(children, plain, strict=False):
                self._plain = hand_over
                input = child(input)
            return input

        return in_sequence

    def _passes_on(self, module: nn.Module, following: nn.Module) -> bool:
        return self._obeys(module) and self._asks(following)

    def _obeys(self, module: nn.Module) -> bool:
        """Whether the module takes note of what is said about its result."""
        return module in self._forwards and not _hooked(module)

    def _asks(self, module: nn.Module) -> bool:
        """Whether the module asks for the tangent of a plain argument."""
        if module not in self._forwards or _hooked(module):
            return False
        if type(module) is nn.Sequential:
            return len(module) > 0 and self._asks(module[0])
        # not one that writes into its input: a tap or a user may hold that under its old name
        return module in self._ruled and not getattr(module, "inplace", False)

    def _tapped(
        self, name: str, forward: Forward, taps: Mapping[tuple[str, int], Tap], *, ruled: bool
    ) -> Forward:
        def tapped(*args: Any, **kwargs: Any) -> Any:
            call = self._calls.get(name, 0)
            self._calls[name] = call + 1
            plain = self._take_plain()
            tap = taps.get(("input", call))
            if tap is not None:
                x = single_tensor(args, kwargs)
                cut = self._fire(tap, x, ruled and len(args) == 1 and not kwargs)
                args = tuple(cut if value is x else value for value in args)
                kwargs = {k: cut if v is x else v for k, v in kwargs.items()}
            tap = taps.get(("output", call))
            self._plain = ruled and (plain or tap is not None)
            returned = forward(*args, **kwargs)
            return returned if tap is None else self._fire(tap, returned, plain)

        return tapped

    def _fire(self, tap: Tap, tensor: Any, plain: bool) -> Tensor:
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != tap.shape:
            seen = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise UnsupportedModelError(_changed(tap, f"it met {seen}"))
        self._fired.append(tap.name)
        return self._visit(tap, tensor, plain)


def _hooked(module: nn.Module) -> bool:
    """Whether anything runs between the module and its caller: it might change what passes."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or nn.modules.module._has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def _changed(tap: Tap, seen: str) -> str:
    return (
        f"tap '{tap.name}' was found with shape {tap.shape} for inputs like these, but in this pass"
        f" {seen}: the model's structure depends on more than the shapes of its inputs. Name taps"
        " that every pass meets, with taps=[...]."
    )

"""How tangents travel: exact rules beside the usual modules, dual numbers for all the rest.

Forward-mode AD inside the usual layers costs several times what it should, and what autograd saves
for backward keeps its tangent. So a module with a rule sees the plain primal, and its output's
tangent is computed next to it under ``no_grad``. Dual tensors carry tangents between modules, and
through every module and function without a rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn

from fdfa.engine.intercept import Forward, safe_forward
from fdfa.engine.saved_tensors import saved_tensors_readable
from fdfa.engine.tangent_rules import RULES, TangentRule
from fdfa.errors import ProbeError

__all__ = ["TangentCarrier", "rule_for"]


class TangentCarrier:
    """Carries tangents through one forward pass, inside one dual level that it opens and closes.

    Where one module with a rule hands its output to the next and to nobody else, the tensor goes
    plain and its tangent waits here; everywhere else it goes as a dual tensor.
    """

    def __init__(self) -> None:
        self._level: Any = None
        self._dual_made = False
        self._waiting: dict[int, tuple[Tensor, Tensor]] = {}  # by id of the tensor, which it holds

    def __enter__(self) -> TangentCarrier:
        self._level = fwAD.dual_level()
        self._level.__enter__()
        self._dual_made = False
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        lost = bool(self._waiting) and kind is None
        self._waiting.clear()
        self._level.__exit__(kind, *error)
        if lost:
            raise ProbeError(
                "a tangent was handed over and nobody asked for it: a module of an nn.Sequential"
                " was not called with what the one before it returned. Please report it, and pass"
                " probe='finite-difference' meanwhile."
            )

    def forget(self) -> None:
        """Drop the tangents that wait: nobody will ask for them."""
        self._waiting.clear()

    def reenter(self) -> None:
        """Drop every tangent in flight, also with tensors saved by autograd; start a new level."""
        if self._dual_made:
            self.__exit__(None, None, None)
            self.__enter__()

    def split(self, tensor: Tensor) -> tuple[Tensor, Tensor | None]:
        """The plain tensor and its tangent, None where it has none."""
        waiting = self._waiting.pop(id(tensor), None) if self._waiting else None
        if waiting is not None:
            return waiting
        primal, tangent = fwAD.unpack_dual(tensor)  # type: ignore[no-untyped-call]
        if tangent is None:
            return tensor, None
        return primal, tangent.detach()

    def join(self, primal: Tensor, tangent: Tensor, *, plain: bool) -> Tensor:
        """The tensor to pass on: the primal itself where it travels plain, else a dual tensor."""
        if tangent.dtype != primal.dtype:
            tangent = tangent.to(primal.dtype)
        if plain and not torch.compiler.is_compiling():
            self._waiting[id(primal)] = (primal, tangent)
            return primal
        if not torch.compiler.is_compiling():  # a compiler keeps what it needs and no more
            self._dual_made = True
        dual: Tensor = fwAD.make_dual(primal, tangent)  # type: ignore[no-untyped-call]
        return dual

    def beside(self, module: nn.Module, travels_plain: Callable[[], bool]) -> Forward | None:
        """A forward for this module that applies its rule, or None if only dual numbers will do.

        Args:
            module: any module.
            travels_plain: asked once a call, whether that call's result travels plain.

        Returns:
            What is to stand in for its forward.
        """
        rule = rule_for(module)
        if rule is None:
            return None
        forward = safe_forward(module) or module.forward

        def forward_with_rule(*args: Any, **kwargs: Any) -> Any:
            plain = travels_plain()
            x = args[0] if len(args) == 1 and not kwargs else None
            if not isinstance(x, Tensor):
                return forward(*args, **kwargs)
            primal, tangent = self.split(x)
            if tangent is None:
                return forward(x)
            if rule.reads_graph and not (primal.requires_grad and saved_tensors_readable()):
                return forward(x if primal is not x else self.join(x, tangent, plain=False))
            y = forward(primal)
            with torch.no_grad():
                tangent = rule.tangent(module, primal, y, tangent)
            if y is primal and primal is not x:
                return _overwritten(x, tangent)
            return self.join(y, tangent, plain=plain)

        return forward_with_rule


def rule_for(module: nn.Module) -> TangentRule | None:
    """The rule that holds for this module as it is set.

    Args:
        module: any module; a subclass, or one with a forward of its own, has no rule.

    Returns:
        The rule, or None.
    """
    rule = RULES.get(type(module))
    if rule is None or "forward" in module.__dict__ or getattr(module, "return_indices", False):
        return None
    if (rule.reads_input or rule.reads_graph) and getattr(module, "inplace", False):
        return None
    return rule


def _overwritten(dual: Tensor, tangent: Tensor) -> Tensor:
    """For a module that wrote into its input: whoever holds that must see the new tangent."""
    old = fwAD.unpack_dual(dual).tangent.detach()  # type: ignore[no-untyped-call]
    old.copy_(tangent)
    return dual

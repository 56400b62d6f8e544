"""Watching the activation functions of a pass: which tensor is what an activation makes of which.

A model may call them as modules or as functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch.autograd.forward_ad as fwAD
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from fdfa.engine.layer_calls import ACTIVATIONS, PRODUCTS, tensors_in
from fdfa.engine.random_state import remember_random_state

__all__ = ["Activated", "ActivationWatch"]

# every component stays as it is, in its order; the first two make and take apart dual numbers
_COPIES = frozenset(
    (
        *("_make_dual", "_unpack_dual", "clone", "contiguous", "flatten", "reshape", "squeeze"),
        *("to", "unflatten", "unsqueeze", "view", "view_as"),
    )
)
# of one tensor these change each component alone, the same in every pass: parts of the activation
_BY_COMPONENT = frozenset(
    (
        *("add", "clamp", "clip", "div", "mul", "neg", "pow", "square", "sub", "__neg__"),
        *(f"__{kind}{of}__" for of in ("add", "mul", "sub", "truediv") for kind in ("", "r", "i")),
    )
)
_NORMALISATIONS = frozenset(f"{kind}_norm" for kind in ("batch", "group", "instance", "layer"))


@dataclasses.dataclass(frozen=True)
class Activated:
    """Where a tensor comes from.

    Attributes:
        name: of the activation function.
        tangent: of the pre-activation; None where it has none.
        function: the activation; None where it is not kept.
        primal: the pre-activation; None where it is not kept.
        then: name of a function that has changed the activation's result since; None: the tensor
            is the result.
    """

    name: str
    tangent: Tensor | None
    function: Callable[[Tensor], Tensor] | None = None
    primal: Tensor | None = None
    then: str | None = None

    def followed_by(self, function: Callable[[Tensor], Tensor]) -> Activated:
        """The same, with a function of each component behind the activation.

        Args:
            function: any such.

        Returns:
            Both count as one activation.
        """
        first = self.function
        if first is None:
            return self
        return dataclasses.replace(self, function=lambda a: function(first(a)))

    def derivative(self, tangent: Tensor) -> Tensor | None:
        """The activation's derivative along a tangent of the pre-activation.

        Args:
            tangent: with as many components, in the same order.

        Returns:
            Of the pre-activation's shape; None where the function was not kept.
        """
        if self.function is None or self.primal is None:
            return None
        # a copy: the function may write into both
        along = tangent.reshape(self.primal.shape).to(self.primal.dtype, copy=True)
        dual = fwAD.make_dual(self.primal.clone(), along)  # type: ignore[no-untyped-call]
        derived: Tensor = fwAD.unpack_dual(self.function(dual)).tangent  # type: ignore[no-untyped-call]
        return derived


class ActivationWatch(TorchFunctionMode):
    """A context that knows of each tensor whether an activation function made it.

    Args:
        model: that runs within.

    Attributes:
        primals: whether functions and pre-activations are kept.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.primals = True
        self._parameters = {id(parameter) for parameter in model.parameters()}
        self._made = WeakTensorKeyDictionary()

    def made(self, tensor: Tensor) -> Activated | None:
        """How a tensor was made.

        Args:
            tensor: any.

        Returns:
            None where it comes from a product, or from more than one tensor.
        """
        found: Activated | None = self._made.get(tensor, None)  # type: ignore[no-untyped-call]
        return found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        given = [] if name == "__get__" else list(tensors_in((args, kwargs)))
        if not given:
            return func(*args, **kwargs)
        if name.removesuffix("_") in ACTIVATIONS:
            made = self._activated(name.strip("_"), func, args, kwargs)
        else:
            made = self._passed_on(name, given, func, args, kwargs)
        returned = func(*args, **kwargs)
        for tensor in tensors_in(returned):
            if made is not None:
                self._made[tensor] = made
            elif tensor in self._made:  # overwritten
                del self._made[tensor]
        return returned

    def _activated(self, name: str, func: Any, args: Any, kwargs: Any) -> Activated | None:
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, Tensor):
            return None
        rest = {key: value for key, value in kwargs.items() if key != "input" or args}
        primal, tangent = fwAD.unpack_dual(x)  # type: ignore[no-untyped-call]
        if not self.primals:
            return Activated(name, None if tangent is None else tangent.clone())
        return Activated(
            name,
            None if tangent is None else tangent.clone(),
            function=lambda a: func(a, *args[1:], **rest),
            primal=primal.detach().clone(),  # the function may write into it
        )

    def _passed_on(
        self, name: str, given: Sequence[Tensor], func: Any, args: Any, kwargs: Any
    ) -> Activated | None:
        """What is known of a function's result from its arguments."""
        made = self.made(given[0])
        if name in _COPIES:
            return made
        single = len(given) == 1 and bool(args) and given[0] is args[0]
        if made is not None and single and "dropout" in name:
            return made.followed_by(_with_these_numbers(lambda h: func(h, *args[1:], **kwargs)))
        if single and _by_component(name):
            return (
                None if made is None else made.followed_by(lambda h: func(h, *args[1:], **kwargs))
            )
        if name in PRODUCTS:
            return None
        learned = any(id(tensor) in self._parameters for tensor in given)
        if learned and name not in _NORMALISATIONS:
            return None
        known = [tensor for tensor in given if self.made(tensor) is not None]
        if not known or any(_beside(tensor, known[0]) for tensor in given):
            return None
        made = self.made(known[0])
        return None if made is None else dataclasses.replace(made, then=made.then or name)


def _by_component(name: str) -> bool:
    return name in _BY_COMPONENT or name.removesuffix("_") in _BY_COMPONENT


def _with_these_numbers(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function with the random numbers that come next, whenever it is called."""
    then = remember_random_state()

    def repeated(h: Tensor) -> Tensor:
        now = remember_random_state()
        then()
        try:
            return function(h)
        finally:
            now()

    return repeated


def _beside(tensor: Tensor, other: Tensor) -> bool:
    """Whether both are signals, which meet here: no statistics or weights of one."""
    return tensor is not other and tensor.dim() == other.dim() and len(tensor) == len(other)

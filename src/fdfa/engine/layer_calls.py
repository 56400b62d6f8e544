"""Watching the functions that a model calls: which use parameters, and what activation follows.

A *layer* here is one call of a function with parameters and something else, wherever it is written:
in ``nn.Linear`` or as ``F.linear`` in a model's own code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = [
    "ACTIVATIONS",
    "PRODUCTS",
    "Layer",
    "LayerWatch",
    "Layers",
    "map_arguments",
    "tensors_in",
]

# These mix units; the signal ends here, where layers learn one by one.
PRODUCTS = {
    **dict.fromkeys(("linear", "matmul", "__matmul__", "mm"), -1),  # where its units are
    **{f"conv{kind}{d}d": 1 for d in "123" for kind in ("", "_transpose")},
}
ACTIVATIONS = frozenset(
    (
        *("celu", "elu", "erf", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh"),
        *("leaky_relu", "log_sigmoid", "mish", "relu", "relu6", "rrelu", "selu", "sigmoid"),
        *("silu", "softplus", "softshrink", "softsign", "special_expit", "tanh", "tanhshrink"),
        *("threshold", "_threshold"),  # the second is F.threshold
    )
)


@dataclasses.dataclass(frozen=True)
class Layer:
    """One call of a function with parameters.

    Attributes:
        parameters: their dotted names.
        function: its name.
        units: components of its output that share no weight: features, or channels.
        last: the output is reached from here through no other product.
        activated: an activation follows before the shape changes or the next product comes.
    """

    parameters: tuple[str, ...]
    function: str
    units: int
    last: bool = False
    activated: bool = False

    @property
    def is_product(self) -> bool:
        """Whether it mixes units."""
        return self.function in PRODUCTS


@dataclasses.dataclass(frozen=True)
class Layers:
    """The layers of a model for inputs of one kind.

    Attributes:
        each: in the order in which they run.
        learning: names of the parameters that learn: those that the output's derivative reaches.
        output_shape: of the model's output.
    """

    each: tuple[Layer, ...]
    learning: frozenset[str]
    output_shape: tuple[int, ...]

    @property
    def last_parameters(self) -> list[str]:
        """Names of the parameters of the last layers."""
        return [name for layer in self.each if layer.last for name in layer.parameters]


class LayerWatch(TorchFunctionMode):
    """A context that sees every layer of the pass that runs within, and its activation.

    Subclasses say what a layer returns (:meth:`call`) and what becomes of an activation.

    Args:
        model: whose parameters count.

    Attributes:
        count: layers met so far.
        aliases: what functions get in place of parameters, by the parameter's id.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.count = 0
        self.aliases: dict[int, Tensor] = {}
        self._names = {id(p): (name,) for name, p in model.named_parameters()}
        self._made_of = WeakTensorKeyDictionary()  # of parameters alone: names
        self._pending = WeakTensorKeyDictionary()  # layers without an activation yet

    def call(self, number: int, layer: Layer, func: Any, args: Any, kwargs: Any) -> Any:
        """Run a layer.

        Args:
            number: of the layer in this pass.
            layer: what is known of it before it runs; ``units`` of a product is not.
            func: the function.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            What the model gets.
        """
        return func(*args, **kwargs)

    def activated(self, number: int, h: Tensor) -> None:
        """A layer's activation has been computed.

        Args:
            number: of the layer.
            h: of the shape of the layer's output.
        """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # an attribute: x.shape
            return func(*args, **kwargs)
        given = list(tensors_in((args, kwargs)))
        learned = [self._learned(tensor) for tensor in given]
        parameters = tuple(dict.fromkeys(n for names in learned for n in names))
        alone = all(learned)
        if parameters and self.aliases:
            args, kwargs = map_arguments((args, kwargs), self._alias)
        pending: frozenset[int] = frozenset()
        if parameters and not alone and torch.is_grad_enabled():
            units = max(t.numel() for t, names in zip(given, learned, strict=True) if names)
            number, self.count = self.count, self.count + 1
            plain = name if not learned[0] or name not in PRODUCTS else f"{name} on the left"
            layer = Layer(parameters, plain, units)
            returned = self.call(number, layer, func, args, kwargs)
            pending = frozenset({number})
            passes_on = not layer.is_product
        else:
            returned = func(*args, **kwargs)
            passes_on = True
        for made in tensors_in(returned):
            if parameters and alone:
                self._made_of[made] = parameters
            waiting = pending
            for tensor in given if passes_on else ():
                if tensor.shape == made.shape:
                    waiting |= self._waiting(tensor)
            if waiting and name.removesuffix("_") in ACTIVATIONS:
                for number in waiting:
                    self.activated(number, made)
                waiting = frozenset()
            self._pending[made] = waiting
        return returned

    def _alias(self, tensor: Tensor) -> Tensor:
        return self.aliases.get(id(tensor), tensor)

    def _learned(self, tensor: Tensor) -> tuple[str, ...]:
        own = self._names.get(id(tensor))
        found = self._made_of.get(tensor, ())  # type: ignore[no-untyped-call]
        return own or tuple(found)

    def _waiting(self, tensor: Tensor) -> frozenset[int]:
        return frozenset(self._pending.get(tensor, ()))  # type: ignore[no-untyped-call]


def map_arguments(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """A function's arguments, or results, with another value in the place of every tensor.

    Args:
        value: nested in tuples, lists and dicts.
        function: called with every tensor.

    Returns:
        A copy.
    """
    if isinstance(value, Tensor):
        return function(value)
    if type(value) in (tuple, list):
        return type(value)(map_arguments(entry, function) for entry in value)
    if type(value) is dict:
        return {key: map_arguments(entry, function) for key, entry in value.items()}
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors among a function's arguments, or results.

    Args:
        value: nested in tuples, lists and dicts.

    Yields:
        Each, in order.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from tensors_in(entry)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from tensors_in(entry)

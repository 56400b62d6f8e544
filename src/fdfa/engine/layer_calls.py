"""Watching the functions that a model calls: which use parameters, and what activation follows.

A *layer* here is one call of a function with parameters and something else, wherever it is written:
in ``nn.Linear`` or as ``F.linear`` in a model's own code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from fdfa.engine.graph import Node
from fdfa.engine.intercept import untouched_state
from fdfa.engine.outputs import output_tensor
from fdfa.engine.saved_tensors import checkpoint_region
from fdfa.errors import UnsupportedModelError

__all__ = ["Layer", "LayerWatch", "Layers", "find_layers", "map_arguments"]

# These mix units; the signal ends here, where layers learn one by one.
PRODUCTS = {
    **dict.fromkeys(("linear", "matmul", "__matmul__", "mm"), -1),  # where its units are
    **{f"conv{kind}{d}d": 1 for d in "123" for kind in ("", "_transpose")},
}
# These scale and shift each unit.
ELEMENTWISE = (
    *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"),
    *("add", "mul"),
)
ACTIVATIONS = frozenset(
    (
        *("celu", "elu", "erf", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh"),
        *("leaky_relu", "logsigmoid", "mish", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu"),
        *("softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold"),
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
        given = list(_tensors((args, kwargs)))
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
        for made in _tensors(returned):
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


class _Survey(LayerWatch):
    """Notes the layers of a pass that is differentiable."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.layers: list[Layer] = []
        self.ends: dict[Node, int] = {}
        self.checkpointed: list[str] = []

    def call(self, number: int, layer: Layer, func: Any, args: Any, kwargs: Any) -> Any:
        """Note the nodes that the layer ends in."""
        if checkpoint_region() is not None:
            self.checkpointed.append(layer.parameters[0])
        returned = func(*args, **kwargs)
        for made in _tensors(returned):
            if made.grad_fn is not None:
                self.ends[made.grad_fn] = number
        if layer.is_product:
            units = returned.shape[PRODUCTS[layer.function]]
            layer = dataclasses.replace(layer, units=units)
        self.layers.append(layer)
        return returned

    def activated(self, number: int, h: Tensor) -> None:
        """Note that there is one."""
        self.layers[number] = dataclasses.replace(self.layers[number], activated=True)


def find_layers(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, output: str | int | None
) -> Layers:
    """Run the model once, without a trace in its state, and see its layers.

    Args:
        model: any module.
        args: its positional arguments.
        kwargs: its keyword arguments.
        output: names the output within what the model returns.

    Returns:
        The layers.

    Raises:
        UnsupportedModelError: with every parameter that a hidden layer uses otherwise than to mix,
            scale or shift units, by name.
    """
    survey = _Survey(model)
    hooks = torch.autograd.graph.saved_tensors_hooks(_forget, _no_backward)
    with torch.enable_grad(), untouched_state(model), hooks, survey:
        returned = model(*args, **kwargs)
    y = output_tensor(returned, name=output, sample_dims=1)
    leaves, reached, checkpoint = _behind(y, survey)
    names = {name for name, p in model.named_parameters() if id(p) in leaves}
    layers = [
        dataclasses.replace(layer, last=number in reached)
        for number, layer in enumerate(survey.layers)
    ]
    problems = _problems(layers, names)
    if checkpoint or survey.checkpointed:
        where = f"'{survey.checkpointed[0]}' is used" if survey.checkpointed else "a part runs"
        problems.append(
            f"{where} inside torch.utils.checkpoint, and no graph is kept here anyway. Take the"
            " checkpoint out of the model."
        )
    if problems:
        raise UnsupportedModelError(dict.fromkeys(problems))
    return Layers(tuple(layers), frozenset(names), tuple(y.shape))


def _problems(layers: Sequence[Layer], names: set[str]) -> list[str]:
    seen = {name for layer in layers for name in layer.parameters}
    return [
        f"'{name}' is a parameter of {layer.function}(): the rule is defined for products (linear"
        " layers, convolutions), normalisations, and what scales or shifts. Replace that layer,"
        " freeze it, or choose another method."
        for layer in layers
        for name in layer.parameters
        if name in names and not layer.last
        if not layer.is_product and layer.function not in ELEMENTWISE
    ] + [
        f"'{name}' is used where no function of torch shows it (compiled code, a function of your"
        " own): it would not learn. Write the layer with torch.nn.functional."
        for name in sorted(names - seen)
    ]


def _behind(y: Tensor, survey: _Survey) -> tuple[set[int], set[int], bool]:
    """Leaves behind the output; the layers reached through no product; whether a checkpoint is."""
    leaves: set[int] = set()
    reached: set[int] = set()
    checkpoint = False
    for stop in (False, True):
        waiting: list[Any] = [y.grad_fn] if y.grad_fn is not None else []
        seen = set(waiting)
        for node in waiting:  # grows while it is read
            checkpoint |= node.name() == "CheckpointFunctionBackward"
            if hasattr(node, "variable"):
                leaves.add(id(node.variable))
            number = survey.ends.get(node)
            if stop and number is not None:
                reached.add(number)
                if survey.layers[number].is_product:
                    continue
            for source, _ in node.next_functions:
                if source is not None and source not in seen:
                    seen.add(source)
                    waiting.append(source)
    return leaves, reached, checkpoint


def _forget(tensor: Tensor) -> None:
    """Nothing is kept: nobody differentiates this pass."""


def _no_backward(saved: None) -> Tensor:
    raise UnsupportedModelError(
        "the model differentiates something within its own forward pass (torch.autograd.grad or"
        " backward()), which the search for its layers cannot follow: it saves nothing for"
        " backward. Take that out of the forward pass."
    )


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


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those among the arguments, or the results, of a function."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from _tensors(entry)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _tensors(entry)

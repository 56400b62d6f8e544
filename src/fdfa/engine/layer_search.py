"""Finding the layers of a model by one pass, and what a rule for single layers has to refuse."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.graph import Node
from fdfa.engine.intercept import untouched_state
from fdfa.engine.layer_calls import PRODUCTS, Layer, Layers, LayerWatch, tensors_in
from fdfa.engine.outputs import output_tensor
from fdfa.engine.saved_tensors import checkpoint_region
from fdfa.errors import UnsupportedModelError

__all__ = ["find_layers"]

# These scale and shift each unit.
ELEMENTWISE = (
    *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"),
    *("add", "mul"),
)


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
        for made in tensors_in(returned):
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

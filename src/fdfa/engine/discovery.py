"""One uncut forward pass that records where a model could be cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from fdfa.engine.graph import AutogradGraph, Node
from fdfa.engine.intercept import Forward, Interception, untouched_state
from fdfa.engine.outputs import map_tensors, output_tensor
from fdfa.engine.saved_tensors import checkpoint_region
from fdfa.errors import UnsupportedModelError

__all__ = ["Calls", "Candidate", "Recording", "record", "single_tensor"]


Source = tuple[Node, int]  # a node and which of its results


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A tensor of one forward pass at which the graph might be cut.

    Attributes:
        module: the module at whose output or input it was met.
        kind: which of the two.
        call: 0 for the module's first call.
        node: made the tensor.
        output_nr: which of the node's results it is.
        shape: of the tensor.
        device: of the tensor.
        window: sequence numbers of the nodes made during the call, for an input.
    """

    module: str
    kind: Literal["output", "input"]
    call: int
    node: Node
    output_nr: int
    shape: tuple[int, ...]
    device: torch.device
    window: range = range(0)

    @property
    def name(self) -> str:
        """Of the tap that is cut here."""
        where = ":input" if self.kind == "input" else ""
        return self.module + where + (f"#{self.call + 1}" if self.call else "")


@dataclasses.dataclass
class Calls:
    """What modules did in one pass, in order.

    Attributes:
        candidates: tensors that modules made, and that they consumed.
        weight_calls: calls of trainable weight layers, with the nodes that made their outputs.
        returned: of every module that ran, the nodes that made what it returned.
        checkpoints: modules that ran inside ``torch.utils.checkpoint``, with the region's number.
        without_tensor: names of the modules that returned something else than one tensor.
    """

    candidates: list[Candidate] = dataclasses.field(default_factory=list)
    weight_calls: list[tuple[str, tuple[Node, ...]]] = dataclasses.field(default_factory=list)
    returned: dict[str, set[Node]] = dataclasses.field(default_factory=dict)
    checkpoints: list[tuple[str, int]] = dataclasses.field(default_factory=list)
    without_tensor: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True)
class Recording:
    """One uncut pass.

    Attributes:
        calls: what modules did.
        graph: behind the output.
        output_shape: of the output.
        other_gradients: of the other tensors that the model returned, which needed a gradient.
    """

    calls: Calls
    graph: AutogradGraph
    output_shape: tuple[int, ...]
    other_gradients: tuple[bool, ...]


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    output: str | int | None,
    sample_dims: int,
) -> Recording:
    """Run the model once, uncut, and record what passes through its modules.

    Its state keeps no trace of that.

    Args:
        model: any module.
        args: its positional arguments.
        kwargs: its keyword arguments.
        output: names the output within what the model returns.
        sample_dims: number of leading dimensions that count samples.

    Returns:
        The recording; it holds the autograd graph, so let go of it soon.

    Raises:
        UnsupportedModelError: if the output does not depend on any trainable parameter, or is no
            (N, K, ...) tensor.
    """
    recorder = _Recorder()
    modules = {
        name: module
        for name, module in model.named_modules()
        if "parametrizations" not in name.split(".")
    }
    forwards = {module: recorder.around(name, module) for name, module in modules.items()}
    hooks = torch.autograd.graph.saved_tensors_hooks(_forget, _no_backward)
    with torch.enable_grad(), untouched_state(model), hooks, Interception(forwards):
        returned = model(*args, **kwargs)
    y = output_tensor(returned, name=output, sample_dims=sample_dims)
    if y.grad_fn is None:
        raise UnsupportedModelError(
            "the model's output depends on no trainable parameter: there is nothing to learn. Check"
            " that parameters have requires_grad=True and that the forward pass does not run under"
            " torch.no_grad() or detach()."
        )
    other_gradients: list[bool] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor is not y:
            other_gradients.append(tensor.requires_grad)
        return tensor

    map_tensors(returned, note)
    return Recording(recorder.calls, AutogradGraph(y), tuple(y.shape), tuple(other_gradients))


class _Recorder:
    """Wraps every module's forward; knows whether weight layers run inside the one that runs."""

    def __init__(self) -> None:
        self.calls = Calls()
        self.count: dict[str, int] = {}
        self.inner_weight_call = [False]

    def around(self, name: str, module: nn.Module) -> Forward:
        forward = module.forward
        weights = _own_matrices(module)

        def recorded(*args: Any, **kwargs: Any) -> Any:
            call = self.count[name] = self.count.get(name, -1) + 1
            region = checkpoint_region()
            if region is not None:
                self.calls.checkpoints.append((name, region))
            given = _sources((args, kwargs))
            met, start = len(self.calls.candidates), torch._C._autograd._get_sequence_nr()
            x = single_tensor(args, kwargs)
            self.inner_weight_call.append(False)
            returned = forward(*args, **kwargs)
            holds_weight_layer = self.inner_weight_call.pop()
            made = tuple(node for node, _ in _sources(returned) if node is not None)
            self.calls.returned.setdefault(name, set()).update(made)
            if not holds_weight_layer and any(weight.requires_grad for weight in weights):
                self.calls.weight_calls.append((name, made))
            self.inner_weight_call[-1] |= bool(weights) or holds_weight_layer
            if name and x is not None:  # met before what runs inside
                window = range(start, torch._C._autograd._get_sequence_nr())
                self._add(name, "input", call, given[0], x, met, window)
            if not isinstance(returned, torch.Tensor):
                self.calls.without_tensor.add(name)
                return returned
            source = _sources(returned)[0]
            if name and source not in given:
                # what a module only passes through, others may hold too: it is cut elsewhere
                self._add(name, "output", call, source, returned)
            return returned

        return recorded

    def _add(
        self,
        name: str,
        kind: Literal["output", "input"],
        call: int,
        source: Source,
        tensor: torch.Tensor,
        position: int | None = None,
        window: range = range(0),
    ) -> None:
        node, output_nr = source
        if node is None or not tensor.is_floating_point():
            return
        shape, device = tuple(tensor.shape), tensor.device
        candidate = Candidate(name, kind, call, node, output_nr, shape, device, window)
        candidates = self.calls.candidates
        candidates.insert(len(candidates) if position is None else position, candidate)


def single_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """The only tensor among a module's arguments, if it stands bare among them.

    With two (attention's query, key and value) cutting one would leave the others uncut.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.

    Returns:
        The tensor, or None.
    """
    bare = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    return bare[0] if len(bare) == 1 == len(_tensors((args, kwargs))) else None


def _own_matrices(module: nn.Module) -> list[nn.Parameter]:
    """Parameters with two or more dimensions that the module itself holds."""
    own = list(module.parameters(recurse=False))
    parametrizations = getattr(module, "parametrizations", None)
    if isinstance(parametrizations, nn.ModuleDict):
        own += list(parametrizations.parameters())
    return [parameter for parameter in own if parameter.dim() >= 2]


def _sources(value: Any) -> list[Source]:
    """What made each tensor."""
    return [(tensor.grad_fn, tensor.output_nr) for tensor in _tensors(value)]


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for entry in value for tensor in _tensors(entry)]
    return []


def _forget(tensor: torch.Tensor) -> None:
    """Saves nothing for backward.

    A recording is never differentiated, and its activations need not be kept.
    """


def _no_backward(saved: None) -> torch.Tensor:
    raise UnsupportedModelError(
        "the model differentiates something within its own forward pass (torch.autograd.grad or"
        " backward()), which the search for taps cannot follow: it saves nothing for backward. Take"
        " that out of the forward pass."
    )

"""The hooks of one pass that hand autograd another weight, B, where a layer saved its own.

Where a layer saved its weight, to carry the error to its input, its backward is handed B instead.
The gradient of the weight itself comes from the layer's saved input, and stays as it is. So every
layer with a weight is served, with no copy of its code: linear, convolution (groups, stride,
dilation, transposed), recurrent, attention, einsum.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from fdfa.engine.intercept import uncached_autocast
from fdfa.engine.model_weights import matrices, read_aside
from fdfa.engine.weight_trace import COPIES, memory_of
from fdfa.engine.weight_uses import WeightUses

__all__ = ["WeightExchange"]

_COPY_NODES = ("ToCopyBackward0", "CloneBackward0")


class WeightExchange:
    """The hooks of one pass: recognise a weight where autograd saves it, give out B for it.

    Other tensors go to the hooks that the user (or a checkpoint) has put round the learner.

    Args:
        model: that makes the pass.
        uses: its weights.
        feedback: from a weight's name and value to B, of its shape; asked in the backward pass.
        reader: who makes B of the weight's value, which must then stay until backward; None if
            nobody does.

    Attributes:
        values: of the weights in this pass, detached, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        uses: WeightUses,
        feedback: Callable[[str, Tensor], Tensor],
        *,
        reader: str | None,
    ) -> None:
        self.values: dict[str, Tensor] = {}
        self._model = model
        self._names = uses.products.keys()
        self._watch = uses.watch
        self._feedback = feedback
        self._reader = reader
        self._found: dict[int, _Weight] = {}  # by storage
        self._nodes: dict[Any, _Weight] = {}
        self._alive: list[Tensor] = []
        self._made: dict[Any, Tensor] = {}
        self._paused = False
        # what lies on top now: a checkpoint round the learner, save_on_cpu
        self._outer = torch._C._autograd._top_saved_tensors_default_hooks(False)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The context of the forward pass."""
        for name, parameter in matrices(self._model).items():
            if name in self._names:
                self._know(name, parameter, parameter)
        aside = read_aside(self._model, pause=self._pausing, found=self._note)
        hooks = saved_tensors_hooks(self._pack, self._unpack)
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(hooks)
                stack.enter_context(aside)
                if self._watch:
                    stack.enter_context(uncached_autocast())
                    stack.enter_context(_Copies(self))
                yield
        finally:
            self._found, self._nodes, self._alive = {}, {}, []

    def _know(self, name: str, base: Tensor, key: Any) -> None:
        weight = _Weight(name, base)
        self._found[memory_of(base)] = weight
        self._nodes[id(key) if isinstance(key, Tensor) else key] = weight
        self.values.setdefault(name, weight.base)

    def know_copy(self, source: Tensor, copy: Tensor) -> None:
        """A tensor was copied: if the one is a weight, so is the other."""
        weight = self._found.get(memory_of(source))
        if weight is not None and copy.shape == weight.base.shape:
            self._alive.append(copy)
            self._found[memory_of(copy)] = _Weight(weight.name, copy)

    def _note(self, name: str, value: Tensor) -> None:
        if name in self._names:
            self._alive.append(value)
            self._know(name, value, value.grad_fn if value.grad_fn is not None else value)

    @contextlib.contextmanager
    def _pausing(self) -> Iterator[None]:
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _pack(self, tensor: Tensor) -> Any:
        if not self._paused:
            weight = self._found.get(memory_of(tensor))
            if weight is None and tensor.grad_fn is not None:
                weight = self._copy_of(tensor)
            if weight is not None:
                return _Marked(self, weight, tensor)
        if self._outer is not None:
            return self._outer[0](tensor)
        # detached: a node that held its own result would hold itself; autograd puts the graph back
        return tensor.detach(), tensor._version

    def _unpack(self, saved: Any) -> Any:
        if isinstance(saved, _Marked):
            return saved.feedback()
        if self._outer is not None:
            return self._outer[1](saved)
        tensor, version = saved
        if tensor._version != version:  # with hooks, autograd itself does not look
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an"
                f" inplace operation: a tensor of shape {tuple(tensor.shape)} is at version"
                f" {tensor._version}; expected version {version} instead. Compute a new"
                " tensor in its place, or change a clone()."
            )
        return tensor

    def _copy_of(self, tensor: Tensor) -> _Weight | None:
        """The weight of which the tensor is a copy (autocast's, of another dtype), or a view."""
        base = tensor._base if tensor._is_view() else tensor
        node = None if base is None else base.grad_fn
        if base is None or node is None or node.name() not in _COPY_NODES:
            return None
        source = node.next_functions[0][0]
        leaf = getattr(source, "variable", None)
        weight = self._nodes.get(source if leaf is None else id(leaf))
        if weight is None or weight.base.shape != base.shape:
            return None
        return _Weight(weight.name, base)

    @torch.no_grad()
    def feedback(self, weight: _Weight, dtype: torch.dtype) -> Tensor:
        """B in the layout and dtype in which the weight was saved."""
        name, base = weight.name, weight.base
        if self._reader is not None and base._version != weight.version:
            raise RuntimeError(
                f"weight '{name}' was changed in place between the forward pass and its backward:"
                f" {self._reader}'s feedback is a function of it. Run backward()"
                " before the optimiser steps."
            )
        key = (name, base.stride(), dtype)
        if key not in self._made:
            with torch.autocast(base.device.type, enabled=False):
                B = self._feedback(name, self.values[name])
                if B.dtype != dtype or B.stride() != base.stride():
                    like = torch.empty_strided(
                        base.shape, base.stride(), dtype=dtype, device=base.device
                    )
                    B = like.copy_(B)
            self._made[key] = B
        return self._made[key]


class _Weight:
    """A weight as autograd meets it in one pass: itself, or a copy of another dtype."""

    __slots__ = ("base", "name", "version")

    def __init__(self, name: str, base: Tensor) -> None:
        self.name = name
        self.base = base.detach()
        self.version = base._version


class _Marked:
    """Stands in the graph for a saved weight."""

    __slots__ = ("dtype", "exchange", "offset", "size", "stride", "weight")

    def __init__(self, exchange: WeightExchange, weight: _Weight, tensor: Tensor) -> None:
        self.exchange = exchange
        self.weight = weight
        self.size, self.stride = tensor.size(), tensor.stride()
        self.offset = tensor.storage_offset() - weight.base.storage_offset()
        self.dtype = tensor.dtype

    def feedback(self) -> Tensor:
        """B, viewed as the saved tensor viewed the weight."""
        B = self.exchange.feedback(self.weight, self.dtype)
        return B.as_strided(self.size, self.stride, B.storage_offset() + self.offset)


class _Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees copies that leave no trace in the graph: autocast's of a frozen weight."""

    def __init__(self, exchange: WeightExchange) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._exchange = exchange

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        if func.name().split(".")[0] in COPIES:
            self._exchange.know_copy(args[0], returned)
        return returned

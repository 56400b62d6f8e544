"""Watching the operators of one forward pass: which multiply a weight with the signal.

A *weight* is a matrix (or kernel) that an operator multiplies with the signal: something computed
from the model's inputs. What only scales or shifts the signal (normalisation, position embeddings)
is none; its derivative does not mix units.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["COPIES", "Place", "Product", "WeightTrace", "memory_of"]

COPIES = ("aten::_to_copy", "aten::clone")

# Both operands may be anything: the derivative with respect to the signal mixes no units by the
# parameter's transpose.
_ELEMENTWISE = frozenset(
    f"aten::{name}{end}"
    for name in (
        *("add", "sub", "rsub", "mul", "div", "cat", "stack", "where", "copy", "lerp", "addcmul"),
        *("addcdiv", "maximum", "minimum", "native_layer_norm", "native_group_norm"),
        *("_fused_rms_norm", "rms_norm", "_prelu_kernel", "index_put", "masked_fill", "pow"),
        *("native_batch_norm", "expand_as", "masked_scatter", "scatter", "slice_scatter"),
    )
    for end in ("", "_")
)


@dataclasses.dataclass(frozen=True)
class Place:
    """Stands for a tensor among the arguments of a product.

    Attributes:
        kind: ``"weight"``, ``"signal"`` or ``"other"``.
        shape: of the tensor.
        stride: of the tensor.
        offset: within the weight's own first element, for a weight.
    """

    kind: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0


@dataclasses.dataclass(frozen=True)
class Product:
    """One operator that multiplied a weight with the signal.

    Attributes:
        operator: callable with ``args`` and ``kwargs``.
        args: with a :class:`Place` where a tensor stood.
        kwargs: likewise.
        weights: names of all weights among the arguments.
    """

    operator: Any
    args: Any
    kwargs: Any
    weights: tuple[str, ...]


class WeightTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that sees every operator of the pass that runs within.

    It knows weights, what was computed from them alone, and the signal.

    Args:
        weights: by name.

    Attributes:
        watch: whether a copy of a frozen weight was made, which leaves no trace in the graph.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = False
        self._weights: dict[int, tuple[str, Tensor]] = {}  # by storage
        self._derived: dict[int, str] = {}
        # made of vectors of parameters alone: a bias's copy, a view
        self._learned: set[int] = set()
        self._signal: set[int] = set()
        self._alive: list[Tensor] = []  # so that no address is used twice
        self._packed: set[str] = set()
        self._pending: list[str] = []
        self._carrying: set[str] = set()
        self._multiplied: dict[str, Product] = {}
        self._problems: list[str] = []
        self._paused = False
        for name, weight in weights.items():
            address = memory_of(weight)
            if address in self._weights:
                other = self._weights[address][0]
                self._problems.append(
                    f"parameters '{other}' and '{name}' share one block of memory, so that the"
                    " feedback could not tell them apart. Give each its own."
                )
            self._weights[address] = (name, weight)

    def note_input(self, tensor: Tensor) -> Tensor:
        """From here the signal comes."""
        self._signal.add(memory_of(tensor))
        self._alive.append(tensor)
        return tensor

    def note_weight(self, name: str, value: Tensor) -> None:
        """A parametrisation has computed this weight."""
        self._weights[memory_of(value)] = (name, value)
        self._derived.pop(memory_of(value), None)
        self._alive.append(value)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within this context nothing is noted: a weight is being computed."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def pack(self, tensor: Tensor) -> None:
        """The hook for what autograd saves."""
        known = self._weights.get(memory_of(tensor))
        if known is not None and not self._paused:
            self._packed.add(known[0])
            self._pending.append(known[0])

    def forget(self) -> None:
        """Let go of every tensor: some of them hold the graph."""
        self._weights, self._alive = {}, []

    def problems(self) -> list[str]:
        """Why the pass cannot be learned from; empty if it can."""
        unseen = [name for name in self._multiplied if name in self._carrying - self._packed]
        return self._problems + [
            f"weight '{name}' is multiplied by {self._multiplied[name].operator}, which does not"
            " keep it for backward as a tensor of its own: its transpose would carry the error. Use"
            " an unfused layer, or another method."
            for name in unseen
        ]

    def products(self) -> dict[str, Product]:
        """Of each weight that carries an error: the first operator that multiplied the signal."""
        return {
            name: product for name, product in self._multiplied.items() if name in self._carrying
        }

    def kept_by_function(self, name: str) -> bool:
        """Whether a function of the user's saved it; then it carries the error."""
        if name in self._packed:
            self._carrying.add(name)
            self._multiplied.setdefault(name, Product(None, (), {}, (name,)))
        return name in self._packed

    def name_of(self, tensor: Tensor) -> str | None:
        """The weight that this tensor is, or is a copy of."""
        return self._weights.get(memory_of(tensor), (None,))[0]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        returned = func(*args, **kwargs)
        pending, self._pending = self._pending, []
        if not self._paused:
            self._judge(func, args, kwargs, returned, pending)
        return returned

    def _judge(self, func: Any, args: Any, kwargs: Any, returned: Any, pending: list[str]) -> None:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]
        weights = [self._weights[memory_of(t)][0] for t in given if memory_of(t) in self._weights]
        derived = [self._derived[memory_of(t)] for t in given if memory_of(t) in self._derived]
        signals = [tensor for tensor in given if self._is_signal(tensor)]
        operator = func.name().split(".")[0]
        if any(tensor.is_floating_point() for tensor in signals):
            self._meets_signal(func, operator, args, kwargs, signals, weights, derived)
        elif pending:
            self._problems += [
                f"weight '{name}' is used by {operator} without the model's input beside it (a"
                " product of parameters, a penalty on weights, a parameter that is a layer's"
                " input): the feedback would stand in for it there too. Compute such terms outside"
                " the model."
                for name in pending
            ]
        self._follow(operator, made, signals, weights, derived)

    def _meets_signal(
        self,
        func: Any,
        operator: str,
        args: Any,
        kwargs: Any,
        signals: list[Tensor],
        weights: list[str],
        derived: list[str],
    ) -> None:
        if operator in _ELEMENTWISE:
            return
        floating = [tensor for tensor in signals if tensor.is_floating_point()]
        carries = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in floating)
        if carries and derived:
            self._problems += [
                f"'{name}' reaches {operator} changed (masked, joined, reshaped by a copy): the"
                " feedback has no place there, and its transpose would carry the error. Compute the"
                " weight by torch.nn.utils.parametrize, or use another method."
                for name in derived
            ]
        if weights and floating:
            product = self._product(func, args, kwargs, tuple(weights))
            for name in weights:
                self._multiplied.setdefault(name, product)
                if carries:
                    self._carrying.add(name)

    def _product(self, func: Any, args: Any, kwargs: Any, weights: tuple[str, ...]) -> Product:
        def place(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            shape, stride = tuple(value.shape), tuple(value.stride())
            known = self._weights.get(memory_of(value))
            if known is not None:
                offset = int(value.storage_offset()) - int(known[1].storage_offset())
                return Place("weight", shape, stride, offset)
            kind = "signal" if self._is_signal(value) else "other"
            return Place(kind, shape, stride)

        return Product(func, tree_map(place, args), tree_map(place, kwargs), weights)

    def _follow(
        self,
        operator: str,
        made: list[Tensor],
        signals: list[Tensor],
        weights: list[str],
        derived: list[str],
    ) -> None:
        """What the results are: more signal, a copy of a weight, or something made of weights."""
        for tensor in made:
            address = memory_of(tensor)
            if address in self._weights:
                continue
            self._derived.pop(address, None)
            self._learned.discard(address)
            if signals:
                if not torch.is_grad_enabled() or not any(s.requires_grad for s in signals):
                    self._signal.add(address)
                    self._alive.append(tensor)
                continue
            self._alive.append(tensor)
            source = self._source(weights[0]) if len(weights) == 1 and not derived else None
            if operator in COPIES and source is not None and tensor.shape == source.shape:
                self._weights[address] = (weights[0], tensor)
                self.watch |= not source.requires_grad
            elif tensor.dim() >= 2 and (weights or derived):
                self._derived[address] = (weights or derived)[0]
            else:
                self._learned.add(address)

    def _source(self, name: str) -> Tensor | None:
        return next((t for known, t in self._weights.values() if known == name), None)

    def _is_signal(self, tensor: Tensor) -> bool:
        address = memory_of(tensor)
        if address in self._weights or address in self._derived or address in self._learned:
            return False
        return address in self._signal or (tensor.requires_grad and not tensor.is_leaf)


def memory_of(tensor: Tensor) -> int:
    """Where a tensor's memory begins: the same for it and all of its views.

    Args:
        tensor: any.

    Returns:
        The address.
    """
    return tensor.untyped_storage().data_ptr()

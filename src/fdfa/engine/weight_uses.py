"""One traced forward pass that tells which parameters are weights of a layer, and how they are met.

A *weight* is a matrix (or kernel) that an operator multiplies with the signal: something computed
from the model's inputs. What only scales or shifts the signal (normalisation, position embeddings)
is none; its derivative does not mix units.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from fdfa.engine.graph import AutogradGraph
from fdfa.engine.intercept import Interception, untouched_state
from fdfa.engine.outputs import map_tensors, output_tensor
from fdfa.engine.saved_tensors import checkpoint_region
from fdfa.errors import UnsupportedModelError

__all__ = [
    "COPIES",
    "Place",
    "Product",
    "WeightUses",
    "find_weight_uses",
    "matrices",
    "read_aside",
    "uncached_autocast",
]

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


@dataclasses.dataclass(frozen=True)
class WeightUses:
    """What a forward pass does with a model's matrices.

    Attributes:
        products: each weight that carries an error backwards, by dotted name, with the first
            operator that multiplied it with the signal.
        watch: whether a copy of a frozen weight is used, which leaves no trace in the graph.
    """

    products: dict[str, Product]
    watch: bool


def matrices(model: nn.Module) -> dict[str, Tensor]:
    """Parameters with two or more dimensions, by name; those under a parametrisation aside.

    Args:
        model: any module.

    Returns:
        Dotted name to parameter; a shared one stands once.
    """
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2 and parameter.numel() and "parametrizations" not in name.split(".")
    }


def read_aside(
    model: nn.Module, *, pause: Callable[[], Any], found: Callable[[str, Tensor], None]
) -> contextlib.AbstractContextManager[None]:
    """While a model runs, every parametrised weight is announced when it has been computed.

    Args:
        model: any module.
        pause: makes a context within which it is computed.
        found: called with the weight's dotted name and value.

    Returns:
        The context within which to run the model.
    """
    forwards: dict[nn.Module, Any] = {}
    for name, module in model.named_modules():
        if isinstance(module, ParametrizationList):
            owner, _, tensor = name.rpartition(".")
            dotted = f"{owner.removesuffix('parametrizations')}{tensor}"

            def forward(inner: Any = module.forward, dotted: str = dotted) -> Any:
                with pause():
                    value = inner()
                if isinstance(value, Tensor) and value.dim() >= 2:
                    found(dotted, value)
                return value

            forwards[module] = forward
    return Interception(forwards) if forwards else contextlib.nullcontext()


def find_weight_uses(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    output: str | int | None,
) -> WeightUses:
    """Run the model once and see which parameters its operators multiply with the signal.

    Its state keeps no trace of that.

    Args:
        model: any module.
        args: its positional arguments.
        kwargs: its keyword arguments.
        output: names the output within what the model returns.

    Returns:
        The weights.

    Raises:
        UnsupportedModelError: with every weight whose transpose would go on carrying the error, by
            name.
    """
    tracer = _Tracer(matrices(model))
    map_tensors((args, kwargs), tracer.note_input)
    outside = checkpoint_region()
    regions: list[str] = []
    watched = {
        module: _region_watch(name, module, outside, regions)
        for name, module in model.named_modules()
        if not isinstance(module, ParametrizationList)
    }
    hooks = saved_tensors_hooks(tracer.pack, _no_backward)
    aside = read_aside(model, pause=tracer.paused, found=tracer.note_weight)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(untouched_state(model))
            stack.enter_context(hooks)
            stack.enter_context(Interception(watched))
            stack.enter_context(aside)
            stack.enter_context(uncached_autocast())
            stack.enter_context(tracer)
            returned = model(*args, **kwargs)
        y = output_tensor(returned, name=output, sample_dims=1)
        if y.grad_fn is None:
            raise UnsupportedModelError(
                "the model's output depends on no trainable parameter: there is nothing to learn."
                " Check that parameters have requires_grad=True and that the forward pass does not"
                " run under torch.no_grad() or detach()."
            )
        problems = [*_checkpointed(y, regions), *tracer.problems(), *_custom(y, tracer)]
    finally:
        tracer.forget()
    if problems:
        raise UnsupportedModelError(dict.fromkeys(problems))
    return WeightUses(tracer.products(), tracer.watch)


@contextlib.contextmanager
def uncached_autocast() -> Iterator[None]:
    """Casts of weights are made in this context, never taken from an earlier pass's cache."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator; knows weights, what was computed from them alone, and the signal."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = False
        self._weights: dict[int, tuple[str, Tensor]] = {}  # by storage
        self._derived: dict[int, str] = {}
        self._learned: set[int] = (
            set()
        )  # made of vectors of parameters alone: a bias's copy, a view
        self._signal: set[int] = set()
        self._alive: list[Tensor] = []  # so that no address is used twice
        self._packed: set[str] = set()
        self._pending: list[str] = []
        self._carrying: set[str] = set()
        self._multiplied: dict[str, Product] = {}
        self._problems: list[str] = []
        self._paused = False
        for name, weight in weights.items():
            address = _address(weight)
            if address in self._weights:
                other = self._weights[address][0]
                self._problems.append(
                    f"parameters '{other}' and '{name}' share one block of memory, so that the"
                    " feedback could not tell them apart. Give each its own."
                )
            self._weights[address] = (name, weight)

    def note_input(self, tensor: Tensor) -> Tensor:
        self._signal.add(_address(tensor))
        self._alive.append(tensor)
        return tensor

    def note_weight(self, name: str, value: Tensor) -> None:
        self._weights[_address(value)] = (name, value)
        self._derived.pop(_address(value), None)
        self._alive.append(value)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def pack(self, tensor: Tensor) -> None:
        known = self._weights.get(_address(tensor))
        if known is not None and not self._paused:
            self._packed.add(known[0])
            self._pending.append(known[0])

    def forget(self) -> None:
        """Let go of every tensor: some of them hold the graph."""
        self._weights, self._alive = {}, []

    def problems(self) -> list[str]:
        unseen = [name for name in self._multiplied if name in self._carrying - self._packed]
        return self._problems + [
            f"weight '{name}' is multiplied by {self._multiplied[name].operator}, which does not"
            " keep it for backward as a tensor of its own: its transpose would carry the error. Use"
            " an unfused layer, or another method."
            for name in unseen
        ]

    def products(self) -> dict[str, Product]:
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
        return self._weights.get(_address(tensor), (None,))[0]

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
        weights = [self._weights[_address(t)][0] for t in given if _address(t) in self._weights]
        derived = [self._derived[_address(t)] for t in given if _address(t) in self._derived]
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
            known = self._weights.get(_address(value))
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
            address = _address(tensor)
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
        address = _address(tensor)
        if address in self._weights or address in self._derived or address in self._learned:
            return False
        return address in self._signal or (tensor.requires_grad and not tensor.is_leaf)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _region_watch(name: str, module: nn.Module, outside: int | None, found: list[str]) -> Any:
    forward = module.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        # the tracer's own hooks lie on top unless a checkpoint inside the model put its there
        region = checkpoint_region()
        if region is not None and region != outside:
            found.append(name)
        return forward(*args, **kwargs)

    return watched


def _checkpointed(y: Tensor, regions: list[str]) -> list[str]:
    inside = f"module '{regions[0]}' runs" if regions else None
    if inside is None and any(
        node.name() == "CheckpointFunctionBackward" for node in AutogradGraph(y).order
    ):
        inside = "a part of the model runs"
    if inside is None:
        return []
    return [
        f"{inside} inside torch.utils.checkpoint: what is recomputed for backward would use the"
        " weights' own transpose. Checkpoint the whole, checkpoint(learner, x,"
        " use_reentrant=False)."
    ]


def _custom(y: Tensor, tracer: _Tracer) -> list[str]:
    """Weights that a function of the user's keeps for backward by itself."""
    problems = []
    graph = AutogradGraph(y)
    for place, leaf in graph.leaves:
        node = graph.order[place]
        name = tracer.name_of(leaf)
        others = [source for source, _ in node.next_functions if source is not None]
        carries = any(not hasattr(source, "variable") for source in others)
        own = isinstance(node, torch.autograd.function.BackwardCFunction)
        if own and carries and name is not None and not tracer.kept_by_function(name):
            problems.append(
                f"weight '{name}' goes into {node.name()}, a function that does not keep it by"
                " ctx.save_for_backward: its transpose would carry the error. Save it there."
            )
    return problems


def _no_backward(saved: None) -> Tensor:
    raise RuntimeError("a trace was differentiated; this is a fault of fdfa, please report it")

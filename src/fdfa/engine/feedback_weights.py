"""Estimators whose error travels backwards layer by layer, through other weights than the forward.

Autograd's own backward pass runs; but where a layer saved its weight, to carry the error to its
input, it is handed the feedback weight B instead. The gradient of the weight itself comes from the
layer's saved input, and stays as it is. So every layer with a weight is served, with no copy of its
code: linear, convolution (groups, stride, dilation, transposed), recurrent, attention, einsum.
"""

from __future__ import annotations

import abc
import contextlib
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

from fdfa.engine.credit import Payer, join_credit
from fdfa.engine.distributed import agreed
from fdfa.engine.estimator import Estimator
from fdfa.engine.outputs import map_tensors, output_tensor
from fdfa.engine.probes import generator_for
from fdfa.engine.structure import fingerprint, refuse_compiled, signature
from fdfa.engine.weight_uses import (
    COPIES,
    WeightUses,
    find_weight_uses,
    matrices,
    read_aside,
    uncached_autocast,
)
from fdfa.errors import ConfigError, unknown_name

__all__ = [
    "START_NAMES",
    "FeedbackWeightEstimator",
    "FeedbackWeights",
    "WeightStart",
    "check_start",
    "draw_start",
]

WeightStart = Literal["uniform", "kaiming-uniform", "xavier-uniform"]
START_NAMES = ("uniform", "kaiming-uniform", "xavier-uniform")

_KINDS_KEPT = 256
_COPY_NODES = ("ToCopyBackward0", "CloneBackward0")


def fans(weight: Tensor) -> tuple[int, int]:
    """Inputs and outputs of a unit, as the layers' own initialisation counts them."""
    return nn.init._calculate_fan_in_and_fan_out(weight)


def check_start(start: str) -> None:
    """Refuse an unknown start.

    Args:
        start: as the user gave it.

    Raises:
        ConfigError: if it is none of :data:`START_NAMES`.
    """
    if start not in START_NAMES:
        raise ConfigError(unknown_name("start", str(start), START_NAMES))


def draw_start(start: WeightStart, weight: Tensor, generator: torch.Generator) -> Tensor:
    """A random feedback weight, of a weight's shape and layout.

    Args:
        start: ``"uniform"`` U(+-1/sqrt(fan_in)), as linear layers and convolutions start;
            ``"kaiming-uniform"`` U(+-sqrt(6/fan_in)); ``"xavier-uniform"``
            U(+-sqrt(6/(fan_in + fan_out))).
        weight: that it goes with.
        generator: draws it.

    Returns:
        The feedback weight, never narrower than float32.
    """
    fan_in, fan_out = fans(weight)
    bound = {
        "uniform": 1 / math.sqrt(fan_in),
        "kaiming-uniform": math.sqrt(6 / fan_in),
        "xavier-uniform": math.sqrt(6 / (fan_in + fan_out)),
    }[start]
    dtype = torch.promote_types(weight.dtype, torch.float32)
    # drawn in one order whatever the weight's memory format
    drawn = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    return drawn.uniform_(-bound, bound, generator=generator)


class FeedbackWeights(nn.Module):
    """What a method keeps for each weight: one buffer, under the weight's name, dots as slashes."""

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._buffers

    def __getitem__(self, name: str) -> Tensor:
        return cast(Tensor, self._buffers[_key(name)])

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._buffers[_key(name)] = value

    def names(self) -> list[str]:
        """Names of the weights that have feedback."""
        return [key.replace("/", ".") for key in self._buffers]

    def conflicts(
        self, entries: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]
    ) -> list[str]:
        """Why a state cannot be that of these weights.

        Args:
            entries: of a state dict, prefix removed.
            shapes: of the model's weights, by dotted name.

        Returns:
            One text a problem; empty if it can.
        """
        problems = []
        for key, value in entries.items():
            name = key.replace("/", ".")
            if "." in key or name not in shapes:
                problems.append(f"'feedback.{key}' belongs to no weight of the model.")
            elif shapes[name] != value.shape:
                sizes = f"{tuple(value.shape)} in the state and {tuple(shapes[name])} here"
                problems.append(f"'feedback.{key}' is {sizes}.")
        return problems

    def adopt(self, entries: Mapping[str, Tensor], like: Tensor) -> None:
        """Make room for exactly these entries of a state dict.

        Args:
            entries: of a state dict, prefix removed.
            like: a tensor with the device and dtype that they go with.
        """
        self._buffers.clear()
        dtype = torch.promote_types(like.dtype, torch.float32)
        # in an order that is the same in all processes: DDP sends all buffers as one
        for key, value in sorted(entries.items()):
            self._buffers[key] = torch.empty_like(value, dtype=dtype, device=like.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FeedbackWeights:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for key, before in kept.items():
            now = self._buffers[key]
            # .half() and .bfloat16() convert the model, not what the feedback has learned
            if (
                before is not None
                and now is not None
                and now.dtype.itemsize < 4 <= before.dtype.itemsize
            ):
                self._buffers[key] = before.to(now.device)
        return self


class FeedbackWeightEstimator(Estimator):
    """Runs autograd's backward pass with other weights in the place of each layer's own.

    The forward pass is the plain model's, bit for bit, and so is the gradient of whatever lies
    behind the last weight. A method says what it keeps for a weight (:meth:`start`), what it makes
    of it (:meth:`feedback_for`), and what a step teaches it (:meth:`teach`).

    On the first pass of each kind, one more forward pass is traced: it finds the weights, and
    refuses a model in which some transpose would go on carrying the error.

    Args:
        model: any module.
        output: which entry of the model's return value is the output.
        seed: of the method's own random numbers.

    Attributes:
        feedback: what is kept, one buffer a weight, made on the first forward pass.
    """

    teaches: ClassVar[bool] = False
    """Whether a step changes what is kept."""

    reads_weights: ClassVar[bool] = False
    """Whether B is a function of the weight of its own step."""

    def __init__(
        self, model: nn.Module, *, output: str | int | None = None, seed: int | None = None
    ) -> None:
        super().__init__(model, output=output, seed=seed)
        refuse_compiled(model)
        self.feedback = FeedbackWeights()
        self._uses: dict[Any, WeightUses] = {}
        self._seed_agreed = False

    @abc.abstractmethod
    def start(self, name: str, weight: Tensor, generator: torch.Generator) -> Tensor | None:
        """What is kept for a weight, as it starts.

        Args:
            name: of the weight.
            weight: its value now, detached.
            generator: a function of the seed and the name.

        Returns:
            The buffer, of the weight's shape; None if nothing is kept.
        """

    def feedback_for(self, name: str, weight: Tensor, kept: Tensor | None, step: int) -> Tensor:
        """B for one weight in one pass.

        Args:
            name: of the weight.
            weight: its value in this pass, detached.
            kept: its buffer, as it was at the forward pass.
            step: number of the pass.

        Returns:
            B, of the weight's shape.
        """
        return cast(Tensor, kept)

    def check(self, uses: WeightUses) -> None:
        """Refuse weights for which the rule is not defined.

        Args:
            uses: the weights of a pass.
        """

    def teach(self, uses: WeightUses, weights: Mapping[str, Tensor], step: int) -> None:
        """Let what is kept learn, once, after the backward pass has used it.

        Buffers are replaced, never written to: a pass that still waits for its backward keeps its
        own.

        Args:
            uses: the weights of the pass.
            weights: their values in the pass, detached.
            step: number of the pass.
        """

    def learning_forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The model's own forward pass, with the saved weights marked.

        Args:
            args: positional arguments of the model.
            kwargs: keyword arguments of the model.

        Returns:
            What the model returns.
        """
        uses = self._uses_of(args, kwargs)
        step = self.take_step()
        swap = _Swap(self, uses, step)
        with swap.running():
            returned = self.model(*args, **kwargs)
        y = output_tensor(returned, name=self.output, sample_dims=1)
        if not self.teaches or self.alone:
            return returned
        weights = swap.values

        def learn(_error: Tensor) -> None:
            with torch.autocast(y_device, enabled=False):
                self.teach(uses, weights, step)

        y_device = y.device.type
        joined = join_credit(y, (), credits=_no_credits, learn=learn)
        return map_tensors(returned, lambda tensor: joined if tensor is y else tensor)

    def _uses_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> WeightUses:
        """The weights for inputs like these, from memory where they were met before."""
        key = (signature(args), signature(kwargs), fingerprint(self.model), _autocast())
        if key not in self._uses:
            if len(self._uses) >= _KINDS_KEPT:
                self._uses.clear()
            refuse_compiled(self.model)
            uses = find_weight_uses(self.model, args, kwargs, output=self.output)
            self.check(uses)
            self._make_feedback(uses)
            self._uses[key] = uses
        return self._uses[key]

    def _make_feedback(self, uses: WeightUses) -> None:
        device = next(self.model.parameters()).device
        # once: a later structure may be met by one process alone
        if not self._seed_agreed and not self.alone:
            self.seed, self._seed_agreed = agreed(self.seed, device), True
        for name in uses.products:
            if name not in self.feedback:
                weight = _value(self.model, name)
                draws = generator_for(weight.device, self.seed, zlib.crc32(name.encode()))
                kept = self.start(name, weight, draws)
                if kept is not None:
                    self.feedback[name] = kept

    def state_conflicts(self, state: Mapping[str, Any]) -> list[str]:
        """Adds what is kept for the weights to what must fit."""
        entries = _feedback_entries(state)
        shapes = {
            name: _value(self.model, name).shape
            for name in (key.replace("/", ".") for key in entries)
            if _has(self.model, name)
        }
        return super().state_conflicts(state) + self.feedback.conflicts(entries, shapes)

    def prepare_to_load(self, state: Mapping[str, Any]) -> None:
        """Make room for exactly what the state brings.

        A state from before the first forward pass brings nothing.
        """
        self.feedback.adopt(_feedback_entries(state), next(self.model.parameters()))
        self._uses.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_uses": {}}


class _Weight:
    """A weight as autograd meets it in one pass: itself, or a copy of another dtype."""

    __slots__ = ("base", "name", "version")

    def __init__(self, name: str, base: Tensor) -> None:
        self.name = name
        self.base = base.detach()
        self.version = base._version


class _Marked:
    """Stands in the graph for a saved weight."""

    __slots__ = ("dtype", "offset", "size", "stride", "swap", "weight")

    def __init__(self, swap: _Swap, weight: _Weight, tensor: Tensor) -> None:
        self.swap = swap
        self.weight = weight
        self.size, self.stride = tensor.size(), tensor.stride()
        self.offset = tensor.storage_offset() - weight.base.storage_offset()
        self.dtype = tensor.dtype

    def feedback(self) -> Tensor:
        B = self.swap.feedback(self.weight, self.dtype)
        return B.as_strided(self.size, self.stride, B.storage_offset() + self.offset)


class _Swap:
    """The hooks of one pass: recognise a weight where autograd saves it, give out B for it.

    Other tensors go to the hooks that the user (or a checkpoint) has put round the learner.
    """

    def __init__(self, estimator: FeedbackWeightEstimator, uses: WeightUses, step: int) -> None:
        self._estimator = estimator
        self._names = uses.products.keys()
        self._watch = uses.watch
        self._step = step
        self._kept = {
            name: estimator.feedback[name] for name in self._names if name in estimator.feedback
        }
        self.values: dict[str, Tensor] = {}
        self._found: dict[int, _Weight] = {}  # by storage
        self._nodes: dict[Any, _Weight] = {}
        self._alive: list[Tensor] = []
        self._made: dict[Any, Tensor] = {}
        self._paused = False
        # what lies on top now: a checkpoint round the learner, save_on_cpu
        self._outer = torch._C._autograd._top_saved_tensors_default_hooks(False)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        for name, parameter in matrices(self._estimator.model).items():
            if name in self._names:
                self.know(name, parameter, parameter)
        aside = read_aside(self._estimator.model, pause=self.paused, found=self._note)
        hooks = saved_tensors_hooks(self.pack, self.unpack)
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

    def know(self, name: str, base: Tensor, key: Any) -> None:
        weight = _Weight(name, base)
        self._found[base.untyped_storage().data_ptr()] = weight
        self._nodes[id(key) if isinstance(key, Tensor) else key] = weight
        self.values.setdefault(name, weight.base)

    def know_copy(self, source: Tensor, copy: Tensor) -> None:
        weight = self._found.get(source.untyped_storage().data_ptr())
        if weight is not None and copy.shape == weight.base.shape:
            self._alive.append(copy)
            self._found[copy.untyped_storage().data_ptr()] = _Weight(weight.name, copy)

    def _note(self, name: str, value: Tensor) -> None:
        if name in self._names:
            self._alive.append(value)
            self.know(name, value, value.grad_fn if value.grad_fn is not None else value)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def pack(self, tensor: Tensor) -> Any:
        if not self._paused:
            weight = self._found.get(tensor.untyped_storage().data_ptr())
            if weight is None and tensor.grad_fn is not None:
                weight = self._copy_of(tensor)
            if weight is not None:
                return _Marked(self, weight, tensor)
        if self._outer is not None:
            return self._outer[0](tensor)
        # detached: a node that held its own result would hold itself; autograd puts the graph back
        return tensor.detach(), tensor._version

    def unpack(self, saved: Any) -> Any:
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
        estimator, value = self._estimator, self.values[weight.name]
        if estimator.reads_weights and weight.base._version != weight.version:
            raise RuntimeError(
                f"weight '{name}' was changed in place between the forward pass and its backward:"
                f" {type(estimator).__name__}'s feedback is a function of it. Run backward()"
                " before the optimiser steps."
            )
        key = (name, base.stride(), dtype)
        if key not in self._made:
            with torch.autocast(base.device.type, enabled=False):
                B = estimator.feedback_for(name, value, self._kept.get(name), self._step)
                if B.dtype != dtype or B.stride() != base.stride():
                    like = torch.empty_strided(
                        base.shape, base.stride(), dtype=dtype, device=base.device
                    )
                    B = like.copy_(B)
            self._made[key] = B
        return self._made[key]


class _Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees copies that leave no trace in the graph: autocast's of a frozen weight."""

    def __init__(self, swap: _Swap) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._swap = swap

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        if func.name().split(".")[0] in COPIES:
            self._swap.know_copy(args[0], returned)
        return returned


def _no_credits(_error: Tensor) -> Payer:
    return _no_credit


def _no_credit(number: int) -> Tensor:
    raise RuntimeError("there is no tap; this is a fault of fdfa, please report it")


def _autocast() -> tuple[Any, ...]:
    return tuple(
        (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in ("cpu", "cuda")
    )


def _has(model: nn.Module, name: str) -> bool:
    owner, _, tensor = name.rpartition(".")
    try:
        module = model.get_submodule(owner)
    except AttributeError:
        return False
    return isinstance(getattr(module, tensor, None), Tensor)


@torch.no_grad()
def _value(model: nn.Module, name: str) -> Tensor:
    """A weight's value, also where it is parametrised."""
    owner, _, tensor = name.rpartition(".")
    value: Tensor = getattr(model.get_submodule(owner), tensor)
    return value.detach()


def _key(name: str) -> str:
    return name.replace(".", "/")


def _feedback_entries(state: Mapping[str, Any]) -> dict[str, Tensor]:
    prefix = "feedback."
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}

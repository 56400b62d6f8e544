"""Direct feedback connections: how they start, carry the error, and learn from probes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn

from fdfa.engine.taps import Tap
from fdfa.errors import ConfigError, UnsupportedModelError

__all__ = [
    "DirectFeedbackMap",
    "FeedbackMaps",
    "FeedbackOptimizer",
    "Start",
    "WideBuffers",
    "feedback_entries",
    "in_bytes",
]

Start = Literal["zero", "kaiming-uniform", "uniform"]
FeedbackOptimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]

_OWN_BUFFERS = ("weight", "error", "noise", "lessons", "learned")  # no optimiser's


class WideBuffers(nn.Module):
    """Buffers that ``.half()`` and ``.bfloat16()`` leave as wide as they are.

    They convert the model, not what a method has learned.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for key, before in kept.items():
            now = self._buffers[key]
            if (
                before is not None
                and now is not None
                and now.dtype.itemsize < 4 <= before.dtype.itemsize
            ):
                self._buffers[key] = before.to(now.device)
        return self


class DirectFeedbackMap(WideBuffers):
    """Carries the output error straight to one tap: ``g = e B``.

    Args:
        outputs: K, number of components of the output error for one sample.
        units: |h|, number of components of the tap for one sample.
        start: ``"zero"`` (FDFA: hidden blocks get no credit in the first step),
            ``"kaiming-uniform"`` (U(+-sqrt(6 / |h|)), the FDFA authors' DFA) or ``"uniform"``
            (U(+-1 / sqrt(|h|)), Nokland 2016).
        generator: draws a random start; must live on ``device``.
        dtype: of the map; raised to float32 where narrower.
        device: of the map.

    Attributes:
        weight: buffer B of shape (K, |h|), never narrower than float32, whatever autocast is in
            force.

    Raises:
        ValueError: if a width is not positive or a random start has no generator.

    Example:
        >>> feedback = DirectFeedbackMap(outputs=2, units=3)
        >>> feedback(torch.ones(4, 2)).shape
        torch.Size([4, 3])
    """

    weight: Tensor

    def __init__(
        self,
        *,
        outputs: int,
        units: int,
        start: Start = "zero",
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        if outputs < 1 or units < 1:
            raise ValueError(
                f"outputs={outputs}, units={units}: a feedback map needs at least one of each."
                " Give whole numbers from 1."
            )
        if start != "zero" and generator is None:
            raise ValueError(f"start={start!r} draws at random: pass a generator.")
        weight = torch.zeros(
            outputs, units, dtype=torch.promote_types(dtype, torch.float32), device=device
        )
        if start != "zero":
            bound = math.sqrt(6 / units) if start == "kaiming-uniform" else 1 / math.sqrt(units)
            weight.uniform_(-bound, bound, generator=generator)
        self.register_buffer("weight", weight)
        self._optimizer: torch.optim.Optimizer | None = None

    def forward(self, e: Tensor) -> Tensor:
        """The credit ``e B`` of shape (N, |h|) for an output error (N, K)."""
        return torch.mm(e.to(self.weight.dtype), self.weight)

    def step(
        self, gradient: Tensor, factory: FeedbackOptimizer, idle: Tensor | None = None
    ) -> None:
        """Take one step on B with an optimiser whose state lives in this module's buffers.

        So the state moves, copies and saves as every buffer does; the optimiser object itself can
        be made again.

        Args:
            gradient: (K, |h|).
            factory: makes the optimiser from a list with one tensor.
            idle: columns of B that stay as they are (|h|), whatever the optimiser remembers.

        Raises:
            ConfigError: if the optimiser keeps anything but tensors as state.
        """
        weight = self.weight
        if self._optimizer is None or self._optimizer.param_groups[0]["params"][0] is not weight:
            self._optimizer = factory([weight])
            state = {key: b for key, b in self._buffers.items() if key not in _OWN_BUFFERS}
            if state:
                self._optimizer.state[weight] = state
        kept = None if idle is None else weight[:, idle]
        weight.grad = gradient
        self._optimizer.step()
        weight.grad = None
        if idle is not None and kept is not None:
            weight[:, idle] = kept
        for key, value in self._optimizer.state[weight].items():
            if isinstance(value, Tensor):
                self._buffers[key] = value
            elif value is not None:
                raise ConfigError(
                    f"{type(self._optimizer).__name__} keeps {key!r} as {type(value).__name__},"
                    " which no state dict can hold. Teach the feedback with an optimiser whose"
                    " state is tensors, such as SGD or Adam."
                )

    def count_lesson(self, rate: float | Tensor) -> None:
        """Note that a share of B was replaced, in the buffer ``learned``: 1 - (1 - a)^t.

        Args:
            rate: a; or one a unit (|h|).
        """
        learned = self._buffers.get("learned")
        if learned is None:
            like = rate if isinstance(rate, Tensor) else self.weight.new_zeros(())
            learned = torch.zeros_like(like)
        self._buffers["learned"] = learned + rate * (1 - learned)

    def corrected(self, credit: Tensor) -> Tensor:
        """A credit ``e B`` (N, |h|) as if B had not started at zero, in place."""
        learned = self._buffers.get("learned")
        if learned is None:
            return credit
        # where nothing is learned the credit is zero
        return credit.div_(learned.to(credit).clamp(min=torch.finfo(credit.dtype).tiny))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_optimizer": None}


class FeedbackMaps(nn.Module):
    """One feedback map a tap, made when the tap is first met or when a state dict brings it.

    A tap's name may hold dots, which a key of a state dict may not: they stand as slashes in it.

    Args:
        start: how each map starts.
        size_limit: bytes; a map that would be larger is refused before it is allocated.

    Raises:
        ConfigError: if the limit is no number of bytes.
    """

    def __init__(self, *, start: Start, size_limit: int) -> None:
        super().__init__()
        if not isinstance(size_limit, int) or size_limit < 1:
            raise ConfigError(
                f"feedback_size_limit={size_limit!r} is no number of bytes. Pass 4 * 2**30 for"
                " 4 GiB, say."
            )
        self.start = start
        self.size_limit = size_limit

    def __getitem__(self, tap: Tap | str) -> DirectFeedbackMap:
        name = tap if isinstance(tap, str) else tap.name
        return cast(DirectFeedbackMap, self._modules[_key(name)])

    def __contains__(self, tap: Tap | str) -> bool:
        return _key(tap if isinstance(tap, str) else tap.name) in self._modules

    def names(self) -> list[str]:
        """Names of the taps that have a map."""
        return [key.replace("/", ".") for key in self._modules]

    def ensure(
        self, tap: Tap | str, *, outputs: int, units: int, like: Tensor, generator: torch.Generator
    ) -> None:
        """Make the tap's map if it is not there yet; check its shape if it is.

        Args:
            tap: the tap, or its name.
            outputs: K.
            units: |h|.
            like: a tensor with the device and dtype that the map goes with.
            generator: draws a random start.

        Raises:
            UnsupportedModelError: if it would be larger than the limit, or if it was made for
                another shape.
        """
        name = tap if isinstance(tap, str) else tap.name
        if tap in self:
            known = tuple(self[tap].weight.shape)
            if known != (outputs, units):
                raise UnsupportedModelError(
                    f"tap '{name}' has {units} units and the output {outputs} components, but"
                    f" its feedback map was made for {known[1]} units and {known[0]} components: a"
                    " map is tied to one size. Cut where the size does not depend on the input's"
                    " (after pooling), or use sample_dims=2 for sequences."
                )
            return
        size = outputs * units * torch.promote_types(like.dtype, torch.float32).itemsize
        if size > self.size_limit:
            raise UnsupportedModelError(
                f"the feedback map of tap '{name}' would hold {outputs} x {units} numbers,"
                f" {in_bytes(size)}, over the limit of {in_bytes(self.size_limit)}. Use fewer taps,"
                " taps after pooling, depth=, sample_dims=2 for dense outputs, a (smaller) rank= if"
                " the method takes one, or raise feedback_size_limit (bytes)."
            )
        self._modules[_key(name)] = DirectFeedbackMap(
            outputs=outputs,
            units=units,
            start=self.start,
            generator=generator,
            dtype=like.dtype,
            device=like.device,
        )

    def conflicts(self, entries: Mapping[str, Tensor]) -> list[str]:
        """Why a state cannot be that of these maps.

        Args:
            entries: of a state dict, prefix removed.

        Returns:
            One text a problem; empty if it can.
        """
        shapes = {
            key[: -len(".weight")]: value.shape
            for key, value in entries.items()
            if key.endswith(".weight")
        }
        problems = []
        for key, value in entries.items():
            tap, _, buffer = key.rpartition(".")
            shape = shapes.get(tap)
            if not tap or shape is None or len(shape) != 2:
                problems.append(f"'feedback.{key}' belongs to no map (K, |h|) in the state.")
            elif value.dim() and value.shape not in (shape, shape[1:]):  # or one a unit
                problems.append(
                    f"'feedback.{key}' is {tuple(value.shape)}, its map {tuple(shape)}."
                )
            elif buffer == "weight" and tap in self and shape != self[tap].weight.shape:
                here = tuple(self[tap].weight.shape)
                problems.append(f"'feedback.{key}' is {tuple(shape)} in the state and {here} here.")
        return problems

    def adopt(self, entries: Mapping[str, Tensor], like: Tensor) -> None:
        """Make room for exactly these entries of a state dict: loading finds a place for each.

        Args:
            entries: ``"layer1/0.weight"`` and the like.
            like: a tensor with the device and dtype that the maps go with.
        """
        self._modules.clear()
        # In an order that is the same in all processes, whatever that of the dict: DDP sends all
        # buffers as one.
        for key, value in sorted(entries.items()):
            tap, _, buffer = key.rpartition(".")
            if tap not in self:
                self._modules[tap] = DirectFeedbackMap(outputs=1, units=1)
            if value.dim():
                dtype = torch.promote_types(like.dtype, torch.float32)
                room = torch.empty_like(value, dtype=dtype, device=like.device)
            else:  # an optimiser's counter
                room = torch.empty_like(value)
            self[tap]._buffers[buffer] = room


def feedback_entries(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a learner's state dict holds for its maps.

    Args:
        state: entries of a learner that keeps its maps as ``feedback``.

    Returns:
        Those entries, prefix removed.
    """
    prefix = "feedback."
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def in_bytes(size: float) -> str:
    """A size in the unit that reads best.

    Args:
        size: in bytes.

    Returns:
        Number and unit.

    Example:
        >>> in_bytes(1536)
        '1.5 KiB'
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.4g} {unit}"


def _key(tap: str) -> str:
    return tap.replace(".", "/")

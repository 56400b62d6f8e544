"""Running a model with something in it, or about it, replaced for the length of one pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from fdfa.engine.random_state import remember_random_state

__all__ = [
    "Forward",
    "Interception",
    "safe_forward",
    "standing_in",
    "uncached_autocast",
    "untouched_state",
]

Forward = Callable[..., Any]


class Interception:
    """A context in which modules run another ``forward``; afterwards nothing is left behind.

    The replacement goes into the instance's dictionary, inside whatever hooks the user registered:
    they fire as always.

    Args:
        forwards: module to the function that stands in for its ``forward``.
    """

    def __init__(self, forwards: Mapping[nn.Module, Forward]) -> None:
        self._forwards = [(module.__dict__, forward) for module, forward in forwards.items()]
        self._before: list[tuple[dict[str, Any], Forward]] = []

    def __enter__(self) -> None:
        for own, forward in self._forwards:
            if "forward" in own:
                self._before.append((own, own["forward"]))
            own["forward"] = forward

    def __exit__(self, *error: object) -> None:
        for own, _ in self._forwards:
            own.pop("forward", None)
        while self._before:
            own, forward = self._before.pop()
            own["forward"] = forward


@contextlib.contextmanager
def untouched_state(model: nn.Module) -> Iterator[None]:
    """Run the model without a trace.

    Its buffers and the random number generators are as before when the context ends.

    Batch-norm statistics step on copies, dropout draws from forked generators.

    Args:
        model: the module whose buffers are guarded.
    """
    owners = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    devices = {p.device for p in model.parameters()} | {
        b.device for _, _, b in owners if b is not None
    }
    accelerators = [device for device in devices if device.type not in ("cpu", "meta")]
    copies: dict[int, torch.Tensor] = {}
    back = remember_random_state()
    with contextlib.ExitStack() as forks:
        for device in accelerators:
            forks.enter_context(torch.random.fork_rng(devices=[device], device_type=device.type))
        try:
            for module, name, buffer in owners:
                if buffer is not None:  # a shared buffer stays shared
                    module._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
            yield
        finally:
            for module, name, buffer in owners:
                module._buffers[name] = buffer
            back()


@contextlib.contextmanager
def standing_in(model: nn.Module, places: Mapping[int, torch.Tensor]) -> Iterator[None]:
    """Other tensors in the places of parameters, wherever the modules hold them.

    A recurrent layer holds its weights a second time, in a list.
    """
    parameters, lists = [], []
    for module in model.modules():
        own = module._parameters
        parameters += [(own, name, p) for name, p in own.items() if p is not None]
        if isinstance(module, nn.RNNBase):
            lists.append((module, module._flat_weights))
    try:
        for own, name, parameter in parameters:
            own[name] = places.get(id(parameter), parameter)  # type: ignore[assignment]
        for module, weights in lists:
            stand_ins = [None if w is None else places.get(id(w), w) for w in weights]
            module.__dict__["_flat_weights"] = stand_ins
        yield
    finally:
        for own, name, parameter in parameters:
            own[name] = parameter
        for module, weights in lists:
            module.__dict__["_flat_weights"] = weights


@contextlib.contextmanager
def uncached_autocast() -> Iterator[None]:
    """Casts of weights are made in this context, never taken from an earlier pass's cache."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


def safe_forward(module: nn.Module) -> Forward | None:
    """For a module that must not run as it is behind a tap, a forward with the same result.

    There an input needs no gradient. On a CPU the channels-last kernel of group norm then writes
    to the gradient that was not asked for, and kills the process (torch 2.13); so it is asked for.

    Args:
        module: any module.

    Returns:
        The forward; None where the module's own will do.
    """
    if type(module) is not nn.GroupNorm or "forward" in module.__dict__:
        return None
    forward = module.forward

    def group_norm(x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and not x.requires_grad and not x.is_contiguous():
            x = x.detach().requires_grad_()
        return forward(x)

    return group_norm

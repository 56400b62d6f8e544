"""Running a pass once more: with the buffers, the modes and the random numbers that it had."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from fdfa.engine.autocast import without_autocast
from fdfa.engine.intercept import untouched_state
from fdfa.engine.outputs import map_tensors
from fdfa.engine.random_state import remember_random_state

__all__ = ["Repetition"]


class Repetition:
    """What it takes to repeat a pass, made before that pass begins.

    Buffers, modes (train or eval) and random number generators are kept as they are then, so that
    statistics and dropout masks are the same in both. Parameters and inputs are not copied: as
    autograd does for what it saves, their versions are kept, and a change is refused.

    Args:
        model: the user's model.
        args: positional arguments of the pass.
        kwargs: keyword arguments of the pass.
    """

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.model, self.args, self.kwargs = model, args, kwargs
        self._restore_random_state = remember_random_state()
        self._buffers = [
            (module, name, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self._modes = [(module, module.training) for module in model.modules()]
        self._parameters = {name: (p, p._version) for name, p in model.named_parameters()}
        self._inputs: list[tuple[Tensor, int]] = []

        def note(tensor: Tensor) -> Tensor:
            if not tensor.is_inference():  # it counts no versions
                self._inputs.append((tensor, tensor._version))
            return tensor

        map_tensors((args, dict(kwargs)), note)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Within, the model is as it was when the pass began.

        Afterwards nothing is left of what ran within. Autocast is off.

        Raises:
            RuntimeError: if a parameter or an input was changed since.
        """
        self._refuse_changes()
        devices = {parameter.device for parameter in self.model.parameters()}
        with untouched_state(self.model), without_autocast(devices), self._former_modes():
            for module, name, buffer in self._buffers:
                module._buffers[name] = buffer.clone()
            self._restore_random_state()
            yield

    @contextlib.contextmanager
    def _former_modes(self) -> Iterator[None]:
        now = [(module, module.training) for module, _ in self._modes]
        try:
            for module, training in self._modes:
                module.training = training
            yield
        finally:
            for module, training in now:
                module.training = training

    def _refuse_changes(self) -> None:
        now = dict(self.model.named_parameters())
        changed = [
            f"weight '{name}'"
            for name, (parameter, version) in self._parameters.items()
            if now.get(name) is not parameter or parameter._version != version
        ]
        if any(tensor._version != version for tensor, version in self._inputs):
            changed.append("an input")
        if changed:
            raise RuntimeError(
                f"{changed[0]} was replaced or changed in place between the forward pass and its"
                " backward, which runs the model once more: on other values than the first time."
                " Run backward() before the optimiser steps."
            )

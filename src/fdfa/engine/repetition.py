"""Running a pass once more: with the buffers and the random numbers that it had."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from fdfa.engine.autocast import without_autocast
from fdfa.engine.intercept import untouched_state
from fdfa.engine.random_state import remember_random_state

__all__ = ["Repetition"]


class Repetition:
    """What it takes to repeat a pass, made before that pass begins.

    Buffers and random number generators are kept as they are then, so that statistics and dropout
    masks are the same in both.

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

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Within, the model is as it was when the pass began, its weights aside.

        Afterwards nothing is left of what ran within. Autocast is off.
        """
        devices = {parameter.device for parameter in self.model.parameters()}
        with untouched_state(self.model), without_autocast(devices):
            for module, name, buffer in self._buffers:
                module._buffers[name] = buffer.clone()
            self._restore_random_state()
            yield

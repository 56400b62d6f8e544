"""Computing in full precision where the user's autocast is in force."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import torch

__all__ = ["without_autocast"]


def without_autocast(
    devices: Iterable[torch.device],
) -> contextlib.AbstractContextManager[object]:
    """A context in which autocast is off on these kinds of devices, and on the CPU.

    Args:
        devices: any.

    Returns:
        The context, to be entered at once.
    """
    kinds = {"cpu", *(device.type for device in devices)}
    on = [kind for kind in kinds if torch.is_autocast_enabled(kind)]
    return _off(on) if on else contextlib.nullcontext()


@contextlib.contextmanager
def _off(kinds: Sequence[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(torch.autocast(kind, enabled=False))
        yield

"""How many CPU threads one operation may use during a study."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["suitable_threads", "using_threads"]

# Measured with 2 x 256 units on two cores: a second thread gains 7 % on an idle machine, and where
# another program wants a core as well it makes a step up to a hundred times slower.
_SMALL_NETWORK = 1_000_000


def suitable_threads(requested: int | None, network: nn.Module) -> int:
    """The number of threads to use.

    Args:
        requested: by the user; None leaves the choice to this function.
        network: what is trained.

    Returns:
        The user's choice, 1 for a small network, or torch's own number.

    Example:
        >>> suitable_threads(None, nn.Linear(2, 2))
        1
    """
    if requested is None:
        small = sum(p.numel() for p in network.parameters()) < _SMALL_NETWORK
        return 1 if small else torch.get_num_threads()
    return requested


@contextlib.contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Set torch's number of threads, and put the old one back.

    Args:
        threads: how many.

    Example:
        >>> with using_threads(1):
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

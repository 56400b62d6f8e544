"""Every random number generator of a process, as tensors that a checkpoint can hold."""

from __future__ import annotations

import contextlib
import importlib
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "capture_random_state",
    "random_state_of",
    "remember_random_state",
    "restore_random_state",
]


def capture_random_state() -> dict[str, Tensor]:
    """The state of torch's generators on all devices, Python's, and numpy's where it is in use.

    Returns:
        Name to uint8 tensor, on the CPU.

    Example:
        >>> before = capture_random_state()
        >>> drawn = torch.rand(3)
        >>> restore_random_state(before)
        >>> torch.equal(torch.rand(3), drawn)
        True
    """
    found = {**_of_torch(), "python": _to_bytes(random.getstate())}
    if (numpy_random := _numpy_random()) is not None:
        kind, words, *rest = numpy_random.get_state()
        found["numpy"] = _to_bytes((kind, words.tolist(), *rest))
    return found


def restore_random_state(states: Mapping[str, Tensor]) -> None:
    """Set every generator to where it was.

    Args:
        states: from :func:`capture_random_state`. A device that is not here has nothing to restore.
    """
    for name, state in states.items():
        if name == "torch":
            torch.set_rng_state(state)
        elif name == "python":
            version, words, gauss = _from_bytes(state)
            random.setstate((version, tuple(words), gauss))
        elif name == "numpy":
            importlib.import_module("numpy.random").set_state(tuple(_from_bytes(state)))
        elif name == "mps" and torch.backends.mps.is_available():
            torch.mps.set_rng_state(state)
        elif name.startswith("cuda") and int(name[4:]) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, int(name[4:]))


def remember_random_state() -> Callable[[], None]:
    """Where every generator stands, for this process: much faster than what a checkpoint holds.

    Returns:
        Sets all of them back, as often as it is called.

    Example:
        >>> back = remember_random_state()
        >>> drawn = random.random(), torch.rand(1).item()
        >>> back()
        >>> drawn == (random.random(), torch.rand(1).item())
        True
    """
    of_torch, of_python, numpy_random = _of_torch(), random.getstate(), _numpy_random()
    of_numpy = None if numpy_random is None else numpy_random.get_state()

    def back() -> None:
        restore_random_state(of_torch)
        random.setstate(of_python)
        if numpy_random is not None:
            numpy_random.set_state(of_numpy)

    return back


@contextlib.contextmanager
def random_state_of(seed: int) -> Iterator[None]:
    """Every generator as a seed makes it, for a while; afterwards each is where it was.

    Args:
        seed: from 0.

    Example:
        >>> with random_state_of(3):
        ...     first = random.random(), torch.rand(1).item()
        >>> with random_state_of(3):
        ...     first == (random.random(), torch.rand(1).item())
        True
    """
    back = remember_random_state()
    torch.manual_seed(seed)
    random.seed(seed)
    if (numpy_random := _numpy_random()) is not None:
        numpy_random.seed(seed % 2**32)
    try:
        yield
    finally:
        back()


def _of_torch() -> dict[str, Tensor]:
    found = {"torch": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # else it would make a context on every GPU
        for number, state in enumerate(torch.cuda.get_rng_state_all()):
            found[f"cuda{number}"] = state
    if torch.backends.mps.is_available():
        found["mps"] = torch.mps.get_rng_state()
    return found


def _numpy_random() -> Any:
    """Numpy's generators, where a user's own code has imported numpy: we never do."""
    # numpy itself imports them when they are first asked for.
    return importlib.import_module("numpy.random") if "numpy" in sys.modules else None


def _to_bytes(value: Any) -> Tensor:
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def _from_bytes(state: Tensor) -> Any:
    return json.loads(bytes(state.tolist()))

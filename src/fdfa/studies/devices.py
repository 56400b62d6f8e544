"""Where a study computes, alone or among the processes that ``torchrun`` started."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist

from fdfa.errors import ConfigError

__all__ = ["chosen_device", "process_group"]


def chosen_device(wanted: str) -> torch.device:
    """The device that a name stands for.

    Args:
        wanted: as torch writes devices, or ``"auto"`` for the best that is there. Without a number
            each of several processes on a machine takes the GPU of its own number.

    Returns:
        The device.

    Raises:
        ConfigError: if there is no such device.

    Example:
        >>> chosen_device("cpu")
        device(type='cpu')
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
        if wanted == "cpu" and torch.backends.mps.is_available():
            wanted = "mps"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ConfigError(
            f"device={wanted!r} is unknown. Give cpu, cuda, cuda:1, mps or auto."
        ) from error
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    here = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if device.type not in here:
        raise ConfigError(f"device={wanted!r} is unknown. Give cpu, cuda, cuda:1, mps or auto.")
    if not here[device.type]:
        raise ConfigError(
            f"device={wanted!r} is not there (torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices). Give cpu, or auto for what is there."
        )
    return device


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that ``torchrun`` started; alone, or in a group already, do nothing.

    Args:
        device: of this process; decides how they talk.

    Example:
        >>> with process_group(torch.device("cpu")):
        ...     dist.is_initialized()
        False
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
        dist.barrier()  # none goes while another still listens
    finally:
        gc.collect()  # a DistributedDataParallel that outlives its group may hang or abort
        dist.destroy_process_group()

"""What a run depends on beside its configuration."""

from __future__ import annotations

import ctypes
import hashlib
import platform
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from fdfa.data.dataset import Dataset

__all__ = ["checksum", "environment"]


def environment(data: Dataset) -> dict[str, Any]:
    """What a run depends on beside its configuration: versions, threads, and the data's checksum.

    Args:
        data: what is learned.

    Returns:
        For ``config.json``.
    """
    return {
        "fdfa": version("fdfa"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "data_sha256": checksum(
            data.train_inputs,
            data.train_labels,
            data.validation_inputs,
            data.validation_labels,
            data.test_inputs,
            data.test_labels,
        ),
    }


def checksum(*tensors: Tensor) -> str:
    """SHA-256 over the bytes of tensors, without a copy of them.

    Args:
        *tensors: on the CPU.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> checksum(torch.tensor([1, 2], dtype=torch.uint8))[:8]  # of the bytes 01 02
        'a12871fe'
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        held = tensor.contiguous()
        # torch without numpy offers no buffer of its own.
        digest.update((ctypes.c_ubyte * held.nbytes).from_address(held.data_ptr()))
    return digest.hexdigest()

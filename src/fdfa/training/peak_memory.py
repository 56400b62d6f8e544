"""The most memory that a training has held at once, as the system counts it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

__all__ = ["count_peak_anew", "peak_memory"]

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"  # proc(5), clear_refs: the peak falls back to what is resident now


def count_peak_anew(device: torch.device) -> None:
    """Forget the peak so far, where that can be done: on CUDA, and for a process under Linux.

    Args:
        device: where the training computes.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # a container may forbid it: the peak is then older
            (_PROCESS / "clear_refs").write_text(_RESET_PEAK)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes since :func:`count_peak_anew`.

    Args:
        device: where the training computes.

    Returns:
        On CUDA, of tensors on the device; on a CPU, of the whole process, with Python, torch and
        the data. None where nobody counts.

    Example:
        >>> import sys
        >>> (peak_memory(torch.device("cpu")) or 0) > 0 or sys.platform != "linux"
        True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu":
        return None
    try:
        status = (_PROCESS / "status").read_text()
    except OSError:
        return None
    kibibytes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(kibibytes[0]) if kibibytes else None

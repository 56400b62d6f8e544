"""How much memory there is, to decide what may be held in it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_memory"]

# Where a system tells nothing (Windows), a machine that we would still want to run on.
ASSUMED = 4 * 2**30


def available_memory(*, root: Path = Path("/")) -> int:
    """Tells how much memory can still be had without taking it from others.

    Args:
        root: of the system's own files.

    Returns:
        Bytes; of the machine, or of the container that this process is confined to if that is less.

    Example:
        >>> available_memory() > 0
        True
    """
    return int(max(0, min(_machine(root), _container(root))))


def _machine(root: Path) -> int:
    """What the machine has left, as Linux says it; else half of all, as POSIX says it."""
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return ASSUMED


def _container(root: Path) -> float:
    """What the control group leaves, infinite where there is none or it sets no limit."""
    group = root / "sys/fs/cgroup"
    try:
        limit = int((group / "memory.max").read_text())  # "max" where there is no limit
        return limit - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return float("inf")

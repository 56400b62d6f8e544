"""How much memory is left, by what the system says of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fdfa.data.memory import ASSUMED, available_memory
from tests.data.writers import write

MEMINFO = b"MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  300 kB\n"
GROUP = "sys/fs/cgroup/memory."


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/meminfo": MEMINFO}, 300 * 1024),
        ({"proc/meminfo": MEMINFO, f"{GROUP}max": b"max\n", f"{GROUP}current": b"5"}, 300 * 1024),
        ({"proc/meminfo": MEMINFO, f"{GROUP}max": b"9000", f"{GROUP}current": b"5000"}, 4000),
        ({"proc/meminfo": MEMINFO, f"{GROUP}max": b"9000", f"{GROUP}current": b"9001"}, 0),
        ({"proc/meminfo": MEMINFO, f"{GROUP}max": b"9000"}, 300 * 1024),
    ],
)
def test_the_machine_or_its_container(tmp_path: Path, files: dict, expected: int) -> None:
    assert available_memory(root=write(tmp_path, files)) == expected


@pytest.mark.parametrize("content", [None, b"", b"MemAvailable:\n", b"MemAvailable: x kB\n"])
def test_where_linux_does_not_say(tmp_path: Path, monkeypatch, content: bytes | None) -> None:
    if content is not None:
        write(tmp_path, {"proc/meminfo": content})
    known = {"SC_PHYS_PAGES": 100, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", known.__getitem__)
    assert available_memory(root=tmp_path) == 100 * 4096 // 2
    monkeypatch.delattr(os, "sysconf")
    assert available_memory(root=tmp_path) == ASSUMED


def test_this_machine() -> None:
    assert 2**20 < available_memory() < 2**50

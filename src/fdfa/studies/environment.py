"""What a run depends on beside its configuration."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fdfa.data.dataset import Dataset

__all__ = ["environment", "git_state", "surroundings"]


def environment(
    data: Dataset, *, device: torch.device | None = None, code: Path | None = None
) -> dict[str, Any]:
    """What a run depends on beside its configuration: versions, machine, data, the user's code.

    Args:
        data: what is learned.
        device: where it is learned.
        code: folder of the user's own code; None for where the user stands.

    Returns:
        For ``config.json``.
    """
    return {
        **surroundings(device=device, code=code),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "data_sha256": data.checksum(),
    }


def surroundings(*, device: torch.device | None = None, code: Path | None = None) -> dict[str, Any]:
    """The part of it that has nothing to do with data: versions, machine, the user's code.

    Args:
        device: where it is computed.
        code: folder of the user's own code; None for where the user stands.

    Returns:
        For ``config.json``.
    """
    device = device or torch.device("cpu")
    return {
        "fdfa": version("fdfa"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "git": git_state(code or Path.cwd()),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit at which a folder stands, where the user's own code lies.

    Args:
        folder: anywhere in a work tree.

    Returns:
        The commit, and whether tracked files differ from it; None without git or a commit.

    Example:
        >>> git_state(Path("/")) is None
        True
    """
    git = shutil.which("git")
    if git is None:
        return None

    def answer(*question: str) -> str | None:
        asked = subprocess.run(  # noqa: S603  # no shell, arguments of ours alone
            [git, "-C", str(folder), *question], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip() if asked.returncode == 0 else None

    commit = answer("rev-parse", "HEAD")
    if commit is None:
        return None
    changed = answer("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": changed is None or bool(changed)}

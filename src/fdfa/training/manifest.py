"""The manifest of a checkpoint: what each of its files must be, to the last bit."""

from __future__ import annotations

import hashlib
import json
import operator
import stat
from collections.abc import Mapping
from pathlib import Path

from fdfa.errors import CheckpointError, briefly
from fdfa.training.atomic import Seal

__all__ = [
    "MANIFEST",
    "MODEL",
    "STATE",
    "VALUES",
    "IntactError",
    "manifest_bytes",
    "read_manifest",
    "read_sealed",
]

FORMAT = 1
MANIFEST = "manifest.json"
MODEL, STATE, VALUES = "model.safetensors", "state.safetensors", "values.json"
_LONGEST = 1 << 16


class IntactError(CheckpointError):
    """A checkpoint that cannot be read here and now, and is not to be thrown away for that."""


def manifest_bytes(step: int, seals: Mapping[str, Seal]) -> bytes:
    """The manifest, always in these very bytes: so a change of any of them is noticed.

    Args:
        step: of the checkpoint.
        seals: length and hash of each of its other files.

    Returns:
        The file.

    Example:
        >>> print(manifest_bytes(120, {"values.json": Seal(2, "44136f...")}).decode())
        {
          "format": 1,
          "step": 120,
          "files": {
            "values.json": {
              "bytes": 2,
              "sha256": "44136f..."
            }
          }
        }
    """
    files = {name: {"bytes": seal.size, "sha256": seal.sha256} for name, seal in seals.items()}
    content = {"format": FORMAT, "step": step, "files": files}
    return (json.dumps(content, indent=2) + "\n").encode()


def read_manifest(folder: Path, step: int) -> dict[str, Seal]:
    """Read what the files of a checkpoint must be.

    Args:
        folder: of the checkpoint.
        step: by the folder's name.

    Returns:
        A seal for each file but the manifest.

    Raises:
        CheckpointError: if the manifest is missing, damaged or of another step.
        IntactError: if it is of an unknown format, or cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_manifest(Path(folder), 120)
        Traceback (most recent call last):
            ...
        fdfa.errors.CheckpointError: manifest.json is missing
    """
    raw = _read(folder / MANIFEST, _LONGEST)
    try:
        content = json.loads(raw)
        version = content["format"]
        if isinstance(version, int) and version != FORMAT:
            raise IntactError(
                f"{MANIFEST} says format {version}, and this version of fdfa knows {FORMAT} alone. "
                "Install the version that wrote it."
            )
        seals = {
            name: Seal(operator.index(entry["bytes"]), str(entry["sha256"]))
            for name, entry in ((name, content["files"][name]) for name in (MODEL, STATE, VALUES))
        }
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else briefly(error)
        raise CheckpointError(f"{MANIFEST} is damaged: it is no manifest ({reason})") from error
    if raw != manifest_bytes(step, seals):
        raise CheckpointError(f"{MANIFEST} is damaged, or of another step than {step}")
    return seals


def read_sealed(path: Path, seal: Seal) -> bytes:
    """Read a file of which length and hash are known. What is too long is not read at all.

    Args:
        path: of the file.
        seal: what it must be.

    Returns:
        Its bytes, verified.

    Raises:
        CheckpointError: if it is missing, another, or cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "values.json").write_bytes(b"{}!")
        ...     read_sealed(Path(folder, "values.json"), Seal(2, "44136f..."))
        Traceback (most recent call last):
            ...
        fdfa.errors.CheckpointError: values.json is damaged: it has 3 bytes instead of 2
    """
    raw = _read(path, seal.size)
    if len(raw) != seal.size:
        raise CheckpointError(
            f"{path.name} is damaged: it has {len(raw)} bytes instead of {seal.size}"
        )
    if hashlib.sha256(raw).hexdigest() != seal.sha256:
        raise CheckpointError(f"{path.name} is damaged: its SHA-256 is not the one in {MANIFEST}")
    return raw


def _read(path: Path, longest: int) -> bytes:
    """A file of bounded length, and nothing that only looks like one: a pipe would never end."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise CheckpointError(f"{path.name} is damaged: it is no file")
        if info.st_size > longest:
            raise CheckpointError(
                f"{path.name} is damaged: it has {info.st_size} bytes instead of {longest}"
            )
        with path.open("rb") as file:
            return file.read(info.st_size)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.name} is missing") from error
    except OSError as error:
        raise IntactError(
            f"{path.name} cannot be read ({briefly(error)}). Make it readable, and resume."
        ) from error

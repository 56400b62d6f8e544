"""The folder of a run: every file in it is whole, and none of it is anyone else's."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fdfa.data.dataset import Dataset
from fdfa.errors import ConfigError

__all__ = ["RunFolder", "checksum", "environment", "plain"]

# All that a study ever writes; with overwrite=True these may go, and nothing else.
_OURS = (
    "config.json",
    "metrics.jsonl",
    "results.json",
    "learning_curves.png",
    "learning_curves.svg",
)


class RunFolder:
    """Writes the files of one run; a reader, or a crash, never meets half of one.

    Args:
        path: the folder; made if it is not there.
        overwrite: whether the files of an earlier run may be replaced. Other files stay.

    Attributes:
        files: what was written, in order.

    Raises:
        ConfigError: if the path is no folder, or one with files in it and ``overwrite`` is off.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self.files: list[Path] = []
        self.check(self.path, overwrite=overwrite)
        self.path.mkdir(parents=True, exist_ok=True)
        for name in _OURS:  # so that the files of two runs never stand side by side
            (self.path / name).unlink(missing_ok=True)

    @staticmethod
    def check(path: str | os.PathLike[str], *, overwrite: bool) -> None:
        """Refuse a folder that cannot be used, without touching it.

        Args:
            path: the folder.
            overwrite: whether the files of an earlier run may be replaced.

        Raises:
            ConfigError: if the path is no folder, or one with files in it and ``overwrite`` is off.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise ConfigError(f"out: '{path}' is a file, not a folder. Choose another.")
        held = sorted(entry.name for entry in path.iterdir()) if path.exists() else []
        if held and not overwrite:
            shown = ", ".join(held[:3]) + (", ..." if len(held) > 3 else "")
            raise ConfigError(
                f"out: folder '{path}' is not empty (it holds {shown}). Choose another, remove it, "
                "or pass --overwrite (overwrite=True): it replaces the files of an earlier run and "
                "leaves all others alone."
            )

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file, whole or not at all.

        Args:
            name: of the file.
            content: anything that :func:`plain` understands.
        """
        text = json.dumps(plain(content), indent=2, allow_nan=False)
        with self.replacing(name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    def append_line(self, name: str, content: Any) -> None:
        """Append one line of JSON in a single write.

        Args:
            name: of the file.
            content: anything that :func:`plain` understands.
        """
        path = self.path / name
        line = json.dumps(plain(content), allow_nan=False) + "\n"
        with path.open("ab", buffering=0) as file:
            file.write(line.encode())
        self._note(path)

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """A temporary path beside the file, which takes the file's place if all goes well.

        Args:
            name: of the file.

        Yields:
            Where to write.
        """
        path = self.path / name
        # The suffix stays last: it tells matplotlib the format.
        temporary = self.path / f".{os.getpid()}.{name}"
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._note(path)

    def _note(self, path: Path) -> None:
        if path not in self.files:
            self.files.append(path)


def plain(value: Any) -> Any:
    """What JSON can hold of a value: records as objects, what is not finite as null.

    Args:
        value: records, mappings, sequences, numbers, texts; anything else is given as its ``repr``.

    Returns:
        Dictionaries, lists, numbers, texts, booleans and None.

    Example:
        >>> plain({"a": (1, float("nan")), "b": torch.nn.ReLU})
        {'a': [1, None], 'b': "<class 'torch.nn.modules.activation.ReLU'>"}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value) if isinstance(value, Path) else repr(value)


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

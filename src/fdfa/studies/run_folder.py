"""The folder of a run: every file in it is whole, and none of it is anyone else's."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fdfa.errors import ConfigError
from fdfa.studies.json_values import plain

__all__ = ["RunFolder"]

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
            content: anything that :func:`~fdfa.studies.json_values.plain` understands.
        """
        text = json.dumps(plain(content), indent=2, allow_nan=False)
        with self.replacing(name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    def append_line(self, name: str, content: Any) -> None:
        """Append one line of JSON in a single write.

        Args:
            name: of the file.
            content: anything that :func:`~fdfa.studies.json_values.plain` understands.
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

"""The folder of a run: every file in it is whole, and none of it is anyone else's."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fdfa.errors import ConfigError, briefly
from fdfa.studies.json_values import plain
from fdfa.training.checkpoint import remove_checkpoints
from fdfa.training.lock import NAME as LOCK
from fdfa.training.lock import run_lock

__all__ = ["RunFolder"]

# All that a study ever writes; with overwrite=True these may go, and nothing else.
_OURS = (
    "config.json",
    "metrics.jsonl",
    "timings.jsonl",
    "steps.jsonl",
    "diagnosis.jsonl",
    "costs.json",
    "results.json",
    "model.safetensors",
    "learning_curves.png",
    "learning_curves.svg",
    "diagnosis.json",
    *(
        f"diagnosis_{picture}.{ending}"
        for picture in ("angles", "credit_errors", "feedback_errors", "kernels", "representations")
        for ending in ("png", "svg")
    ),
    "units.json",
    "report.md",
    "reproduction.png",
    "reproduction.svg",
)
_KINDS = ("train", "compare", "reproduce")
# The name that `replacing` gives to a file until it is whole.
_UNFINISHED = re.compile(r"\.\d+\.(" + "|".join(re.escape(name) for name in _OURS) + ")")


class RunFolder:
    """Writes the files of one run; a reader, or a crash, never meets half of one.

    Args:
        path: the folder.

    Attributes:
        checkpoints: folder of the run's checkpoints.
        tensorboard: folder of its event files.
        files: what was written, in order.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.files: list[Path] = []

    @classmethod
    @contextlib.contextmanager
    def fresh(cls, path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[RunFolder]:
        """A folder for a new run, cleared of an earlier one and held against other processes.

        Args:
            path: the folder; made if it is not there.
            overwrite: whether the files of an earlier run may be removed. Other files stay.

        Yields:
            The folder.

        Raises:
            ConfigError: if the path is no folder, or one with files in it and ``overwrite`` is off.
            CheckpointError: if another process trains in it.
        """
        cls.check(path, overwrite=overwrite)
        folder = cls(path)
        with folder.held():
            folder.clear()
            yield folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder against other processes while a run writes into it.

        Raises:
            CheckpointError: if another process trains in it.
        """
        with run_lock(self.path):
            for place in (self.path, *(run.path for run in self.runs())):
                _remove_unfinished(place)
            yield

    @classmethod
    def check(cls, path: str | os.PathLike[str], *, overwrite: bool) -> None:
        """Refuse a folder that cannot be used, without touching it.

        Args:
            path: the folder.
            overwrite: whether the files of an earlier run may be replaced.

        Raises:
            ConfigError: if the path is no folder, or one with files in it and ``overwrite`` is off.
        """
        path = Path(path)
        for place in (path, *path.parents):
            if place.exists() and not place.is_dir():
                raise ConfigError(f"out: '{place}' is a file, not a folder. Choose another.")
        held = cls(path).held_names()
        alien = [name for name in held if name in _OURS] if cls(path).study() is None else []
        if overwrite and alien:
            raise ConfigError(
                f"out: folder '{path}' holds {', '.join(alien)}, which no run of fdfa wrote. "
                "Choose another folder, or move these files away."
            )
        if not held or overwrite:
            return
        shown = ", ".join(held[:3]) + (", ..." if len(held) > 3 else "")
        goes_on = ""
        if "config.json" in held:
            goes_on = f"go on with the run in it (fdfa resume {path}), "
        raise ConfigError(
            f"out: folder '{path}' is not empty (it holds {shown}). Choose another, remove it, "
            f"{goes_on}or pass --overwrite (overwrite=True): it replaces the files of an earlier "
            "run and leaves all others alone."
        )

    def held_names(self) -> list[str]:
        """What lies in the folder.

        Returns:
            Names, without what processes leave behind: the lock stays when its holder ends, a file
            that is not whole when it is killed.
        """
        names = sorted(os.listdir(self.path)) if self.path.exists() else []
        return [name for name in names if name != LOCK and not _UNFINISHED.fullmatch(name)]

    def clear(self) -> None:
        """Remove what a study wrote, so that the files of two runs never stand side by side.

        A folder whose ``config.json`` is not a study's is left as it is.
        """
        if self.study() is None:
            return
        for run in self.runs():
            run.clear()
            _remove_if_empty(run.path)
        _remove_if_empty(self.path / "runs")
        remove_checkpoints(self.checkpoints)
        if self.tensorboard.is_dir() and not self.tensorboard.is_symlink():
            for events in self.tensorboard.glob("events.out.tfevents.*"):
                events.unlink()
            _remove_if_empty(self.tensorboard)
        # The configuration goes last: it is what says that the others are ours.
        for name in reversed(_OURS):
            (self.path / name).unlink(missing_ok=True)

    def study(self) -> str | None:
        """What wrote the folder, by its ``config.json``.

        Returns:
            ``"train"``, ``"compare"`` or ``"reproduce"``; None if there is no such file, or it is
            someone else's.
        """
        try:
            content = self.read_json("config.json")
        except ConfigError:
            return None
        kinds = [kind for kind in _KINDS if isinstance(content, dict) and kind in content]
        return kinds[0] if len(kinds) == 1 and "environment" in content else None

    def runs(self) -> list[RunFolder]:
        """Folders of the single runs of a comparison or a reproduction.

        Returns:
            Those that are there, by name; none in a folder of a single run.
        """
        above = self.path / "runs"
        if self.study() not in ("compare", "reproduce") or not above.is_dir() or above.is_symlink():
            return []
        inside = [RunFolder(entry) for entry in sorted(above.iterdir()) if not entry.is_symlink()]
        return [run for run in inside if run.study() == "train"]

    def run(self, name: str) -> RunFolder:
        """Folder of a single run of a comparison.

        Args:
            name: of the run.

        Returns:
            The folder, made if it is not there.
        """
        folder = RunFolder(self.path / "runs" / name)
        folder.path.mkdir(parents=True, exist_ok=True)
        return folder

    def read_json(self, name: str) -> Any:
        """Read a JSON file.

        Args:
            name: of the file.

        Returns:
            Its content; None if there is no such file.

        Raises:
            ConfigError: if it cannot be read, or is not JSON.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{path} cannot be read ({briefly(error)}). Put the file back as it was, or start "
                "a new run."
            ) from error

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file, whole or not at all.

        Args:
            name: of the file.
            content: anything that :func:`~fdfa.studies.json_values.plain` understands.
        """
        text = json.dumps(plain(content), indent=2, allow_nan=False)
        with self.replacing(name) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

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
        temporary.unlink(missing_ok=True)  # of a killed process that had this one's number
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self.note(name)

    def note(self, *names: str) -> None:
        """Count files among those that were written, if they are there.

        Args:
            *names: of the files.
        """
        for name in names:
            path = self.path / name
            if path.exists() and path not in self.files:
                self.files.append(path)


def _remove_unfinished(folder: Path) -> None:
    """What a killed process left of files that were to be whole."""
    for name in os.listdir(folder):
        if _UNFINISHED.fullmatch(name):
            (folder / name).unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # someone else's file is in it: it stays
        folder.rmdir()

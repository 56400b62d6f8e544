"""Where the files of a data set lie on this machine, and where they go when they are downloaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fdfa.errors import DataError, briefly

__all__ = ["cache_folder", "find", "places", "target"]


def places(names: Sequence[str], *, directory: str | os.PathLike[str] | None) -> list[Path]:
    """The folders in which a data set is looked for, in this order.

    A folder of one of the set's names in ``directory``, ``directory`` itself, then a folder of
    one of its names in ``$FDFA_DATA`` and in the cache.

    Args:
        names: of the data set's folder; may contain slashes.
        directory: what the user named; None for nothing.

    Returns:
        Folders; none of them need exist.

    Raises:
        DataError: if the user has no home folder, where the cache would be.

    Example:
        >>> [str(place) for place in places(["mnist"], directory="given")][:2]
        ['given/mnist', 'given']
    """
    found = []
    if directory is not None:
        given = _path(directory)
        found += [*(given / name for name in names), given]
    if root := os.environ.get("FDFA_DATA"):
        found += [_path(root) / name for name in names]
    return found + [cache_folder() / name for name in names]


def find(folders: Sequence[Path], traces: Sequence[str]) -> Path | None:
    """The first folder that holds any file of a data set: two folders are never mixed.

    Args:
        folders: where to look, in this order; also a single file.
        traces: patterns of what such a folder holds, or of the file's name.

    Returns:
        The folder or file, or None.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     _ = (Path(name) / "train.bin").write_bytes(b"")
        ...     find([Path("/nowhere"), Path(name)], ["train.*"]) == Path(name)
        True
    """
    for place in folders:
        if place.is_file():
            held = any(place.match(pattern) for pattern in traces)
        else:
            held = any(True for pattern in traces for _ in place.glob(pattern))
        if held:
            return place
    return None


def target(names: Sequence[str], *, directory: str | os.PathLike[str] | None) -> Path:
    """Where a data set goes when it is downloaded.

    Args:
        names: of its folder, the one for new folders in front.
        directory: what the user named; None for the cache.

    Returns:
        A folder inside ``directory``, or ``directory`` itself if it is named like the data set.

    Raises:
        DataError: if the user has no home folder, where the cache would be.

    Example:
        >>> str(target(["mnist"], directory="data")), str(target(["mnist"], directory="data/mnist"))
        ('data/mnist', 'data/mnist')
    """
    root = cache_folder() if directory is None else _path(directory)
    return root if directory is not None and root.name in names else root / names[0]


def cache_folder() -> Path:
    """Where downloads go unless the user says otherwise.

    Returns:
        ``$FDFA_CACHE``, or ``fdfa`` in the system's folder for caches: ``$XDG_CACHE_HOME`` or
        ``~/.cache``; on macOS ``~/Library/Caches``; on Windows ``%LOCALAPPDATA%``.

    Raises:
        DataError: if the user has no home folder.

    Example:
        >>> isinstance(cache_folder(), Path)
        True
    """
    if own := os.environ.get("FDFA_CACHE"):
        return _path(own)
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        root = "~/Library/Caches"
    else:
        root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _path(root) / "fdfa"


def _path(text: str | os.PathLike[str]) -> Path:
    """A path with its ``~`` replaced."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"the folder {os.fspath(text)!r} cannot be found: {briefly(error)}. Set "
            "FDFA_CACHE to a folder for downloads, or name folders without ~."
        ) from error

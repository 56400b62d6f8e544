"""Files and folders that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "Seal",
    "make_folder",
    "new_folder",
    "remove_folder",
    "remove_leftovers",
    "write_file",
]

# Hidden, and of no name that a reader looks for.
_WRITING, _REMOVING = ".writing-", ".removing-"


class Seal(NamedTuple):
    """What a file must be: its length in bytes, and the SHA-256 of these in hexadecimal digits."""

    size: int
    sha256: str


def write_file(path: Path, pieces: Iterable[bytes | memoryview]) -> Seal:
    """Write a new file, hashed on the way; on return it is on the disk, not only in its cache.

    Args:
        path: of the file, which must not be there yet.
        pieces: its bytes, in order; each is asked for when those before it are written.

    Returns:
        Length and hash of what was to be written: a disk that held something else is found out.

    Raises:
        OSError: if the disk is full, the folder not writable, and the like.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     seal = write_file(Path(folder, "new"), [b"to be ", memoryview(b"whole")])
        ...     Path(folder, "new").read_bytes(), seal.size
        (b'to be whole', 11)
    """
    size, digest = 0, hashlib.sha256()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        for piece in pieces:
            size += len(piece)
            digest.update(piece)
            rest = memoryview(piece)
            while rest:  # a write may be short: at a signal, or of more than 2 GiB
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Seal(size, digest.hexdigest())


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, unless they are there; on return they are on the disk.

    Args:
        path: of the folder.

    Raises:
        OSError: if one cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_folder(Path(folder, "run", "checkpoints"))
        ...     os.listdir(Path(folder, "run"))
        ['checkpoints']
    """
    for missing in reversed([each for each in (path, *path.parents) if not each.is_dir()]):
        missing.mkdir(exist_ok=True)
        _sync_folder(missing.parent)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A hidden folder to fill, which appears under its name only when all is written.

    Files go to the disk first (:func:`write_file`), then the folder, then its name: a power cut
    between any two of them leaves the folder whole or absent. An exception leaves nothing behind; a
    killed process leaves the hidden folder to :func:`remove_leftovers`.

    Args:
        path: where the folder shall appear; nothing may be there.

    Yields:
        The hidden folder, beside it.

    Raises:
        OSError: if it cannot be made or renamed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with new_folder(Path(folder, "step-1")) as hidden:
        ...         seal = write_file(hidden / "values", [b"1"])
        ...         before = Path(folder, "step-1").exists()
        ...     before, os.listdir(folder)
        (False, ['step-1'])
    """
    hidden = _hidden(_WRITING, path)
    os.mkdir(hidden)
    try:
        yield hidden
        _sync_folder(hidden)
        os.rename(hidden, path)
    except BaseException:
        _delete(hidden)
        raise
    _sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that it is never seen half removed.

    Args:
        path: of the folder.

    Raises:
        OSError: if it cannot be renamed. What then cannot be deleted is hidden and does no harm.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "old").mkdir()
        ...     remove_folder(Path(folder, "old"))
        ...     os.listdir(folder)
        []
    """
    hidden = _hidden(_REMOVING, path)
    os.rename(path, hidden)
    _delete(hidden)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left half written or half removed.

    Args:
        folder: in which nobody else writes at the moment.

    Raises:
        OSError: if the folder cannot be listed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, ".writing-step-1-5b0f7c3a").mkdir()
        ...     remove_leftovers(Path(folder))
        ...     os.listdir(folder)
        []
    """
    for name in os.listdir(folder):
        if name.startswith((_WRITING, _REMOVING)):
            _delete(folder / name)


def _hidden(prefix: str, path: Path) -> Path:
    """A name beside the path that nothing has."""
    return path.with_name(f"{prefix}{path.name}-{secrets.token_hex(4)}")


def _delete(hidden: Path) -> None:
    """Delete what nobody reads any more; what cannot be deleted now, a later writer tries again."""
    # Of Python 3.11's `rmtree` an error escapes all the same: when a folder cannot be closed.
    with contextlib.suppress(OSError):
        shutil.rmtree(hidden, ignore_errors=True)


def _sync_folder(path: Path) -> None:
    """Bring to the disk which names a folder holds."""
    if os.name == "nt":  # Windows opens no folders and keeps names without being asked
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems sync no folders at all: no reason not to train there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)

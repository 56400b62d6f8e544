"""One process at a time in a folder: a lock that the kernel takes back when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from fdfa.errors import CheckpointError, briefly

__all__ = ["run_lock"]

NAME = ".lock"
# What file systems answer that know no locks (Lustre mounted with noflock, some of FUSE).
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

if sys.platform == "win32":
    import msvcrt

    # Far behind the holder's number: Windows lets nobody read what is locked.
    _PLACE = 1 << 20

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _PLACE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _PLACE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextlib.contextmanager
def run_lock(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a folder for oneself; who comes second is told so at once instead of waiting.

    The lock lies on the file ``.lock`` in the folder, which stays behind, unlocked: a file that
    goes away could be locked by one process and made again by the next. The kernel releases it with
    the process, also after ``kill -9``, so there are no stale locks; but a child that was forked
    meanwhile keeps it until it ends too. It is advisory: it keeps out only who asks for it. On a
    file system without locks a ``UserWarning`` says that nothing is guarded.

    Args:
        folder: what to hold; made if it is not there.

    Yields:
        Nothing; the folder is held inside the ``with`` block.

    Raises:
        CheckpointError: if another process (or another block of this one) holds the folder, or the
            lock file cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, run_lock(folder):
        ...     try:
        ...         with run_lock(folder):
        ...             print("never reached")
        ...     except CheckpointError as error:
        ...         print("another process" in str(error))
        True
    """
    folder = Path(folder)
    descriptor, owner = _open(folder), os.getpid()
    try:
        _acquire(descriptor, folder)
        yield
    finally:
        _release(descriptor, owner)


def _open(folder: Path) -> int:
    """The lock file, made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise CheckpointError(
            f"'{folder}' cannot be held for this process: {briefly(error)}. "
            "Make the folder writable or choose another."
        ) from error


def _acquire(descriptor: int, folder: Path) -> None:
    """Take the lock and leave a note of who holds it."""
    try:
        _lock(descriptor)
    except (BlockingIOError, PermissionError) as error:  # the latter is how Windows says it
        holder = os.read(descriptor, 100).decode(errors="replace").strip()
        raise CheckpointError(
            f"another process is training in this folder: '{folder}' is held by process "
            f"{holder or '(unknown)'}. Wait until it ends, stop it, or choose another folder."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise CheckpointError(
                f"'{folder / NAME}' cannot be locked: {briefly(error)}. Choose another folder."
            ) from error
        warnings.warn(
            f"'{folder}' lies on a file system without locks: nothing keeps a second process from "
            "training in it. See to it that none does.",
            stacklevel=4,
        )
    with contextlib.suppress(OSError):  # a courtesy, which a full disk must not turn into a failure
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())


def _release(descriptor: int, owner: int) -> None:
    """Give the lock back, from forked children too; one that gets here leaves it to its parent."""
    if os.getpid() == owner:
        with contextlib.suppress(OSError):
            _unlock(descriptor)
    os.close(descriptor)

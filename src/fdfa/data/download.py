"""Official files out of the net: resumed where they broke off, checked before they get their name.

urllib3 does the transport: it is strict about lengths and needs no other package. No library that
was tried does the rest: pooch 1.9.0 starts again at zero; pypdl 1.5.7 writes under the final name,
hangs on a server that falls silent and takes whatever one sends that never ends; the ``http_get``
of huggingface_hub 2.4.0 knows no bound and no checksum, and comes with ten more packages.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import filelock
import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError

from fdfa.data.official import LOCK, OfficialFile, Progress, missing
from fdfa.data.unpack import unpack
from fdfa.errors import DataError, briefly

__all__ = ["download"]

PIECE = 2**18
CONNECT_SECONDS = 10.0
SILENT_SECONDS = 30.0
WAIT_SECONDS = 1.0
# How often a connection may break before the next mirror's turn; each time some bytes must come.
BREAKS = 50


class _UnsuitableError(Exception):
    """A mirror whose answer cannot be the file."""


def download(
    files: Sequence[OfficialFile],
    folder: Path,
    *,
    unpacked: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Brings into a folder those of the files that it lacks.

    A file is written beside its place, compared with its checksum, and only then given its name.
    What came before a broken connection, Ctrl-C or a kill is kept and gone on from, if the server
    can do that. A mirror that fails, falls silent or sends something else is left for the next.
    Of several processes one downloads, and the others wait.

    Args:
        files: what has to be there.
        folder: where; made if need be.
        unpacked: the folder inside into which the one archive has to be unpacked; None for none.
        progress: called with a file's name, the bytes that are there, and its size in bytes.

    Raises:
        DataError: if every mirror fails, or the disk refuses.
    """

    def report(name: str, done: int, total: int) -> None:
        if progress is not None:
            progress(name, done, total)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(files, folder, report):
            wanted = missing(files, folder)
            _check_space(wanted, folder)
            for file in wanted:
                _download_one(file, folder, report)
            if unpacked is not None and not (folder / unpacked).exists():
                unpack(files[0], folder / files[0].name, folder / unpacked, report)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be downloaded into: {briefly(error)}. Choose another "
            "folder, or make room in this one."
        ) from error


@contextlib.contextmanager
def _alone(files: Sequence[OfficialFile], folder: Path, report: Progress) -> Iterator[None]:
    """Waits for other processes that download into the folder, showing what they have got."""
    lock = filelock.FileLock(folder / LOCK)
    while True:
        try:
            lock.acquire(timeout=WAIT_SECONDS)
            break
        except filelock.Timeout:
            for file in files:
                report(file.name, _bytes_there(file, folder), file.packed.size)
    try:
        yield
    finally:
        lock.release()


def _check_space(files: Sequence[OfficialFile], folder: Path) -> None:
    """Asks before an hour of download whether it will fit."""
    needed = sum(file.packed.size - _bytes_there(file, folder) for file in files)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder} has {free:,} bytes left, and the download needs {needed:,}. Choose another "
            "folder, or make room in this one."
        )


def _download_one(file: OfficialFile, folder: Path, report: Progress) -> None:
    """Gets a file from the first mirror that has it."""
    part = _part(file, folder)
    failures = []
    for url in file.mirrors:
        try:
            if _whole_from(url, file, part, report):
                _publish(part, folder / file.name)
                return
            failures.append(f"{url} sends a file of another checksum")
        except _UnsuitableError as error:
            failures.append(f"{url} {error}")
        except HTTPError as error:
            failures.append(f"{url} fails: {_reason(error)}")
    kept = " What has come so far is kept, and gone on from next time." if _size(part) else ""
    raise DataError(
        "\n  ".join([f"{file.name} cannot be downloaded into {folder}:", *failures])
        + f"\nCheck the network (behind a proxy: HTTPS_PROXY and HTTP_PROXY) and try again, or put "
        f"the file there yourself.{kept}"
    )


def _whole_from(url: str, file: OfficialFile, part: Path, report: Progress) -> bool:
    """Completes the part from one mirror; False if what then lies there is not the file."""
    while True:
        earlier = _size(part) > 0
        _complete(url, file, part, report)
        if file.is_whole(part):
            return True
        part.unlink()
        if not earlier:
            return False
        # The fault may lie in what was there before: this mirror gets a chance of its own.


def _complete(url: str, file: OfficialFile, part: Path, report: Progress) -> None:
    """Receives until all bytes are there, going on wherever the connection breaks."""
    if _size(part) > file.packed.size:
        part.unlink()
    for attempt in range(BREAKS + 1):
        before = _size(part)
        if before == file.packed.size:
            return
        try:
            _receive(url, file, part, report)
        except HTTPError:
            if attempt == BREAKS or _size(part) <= before:
                raise


def _receive(url: str, file: OfficialFile, part: Path, report: Progress) -> None:
    """Adds what one answer brings to the part, never more than the file may have."""
    size = file.packed.size
    offset = _size(part)
    headers = {"User-Agent": f"fdfa/{version('fdfa')}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with (
        _pool(url) as pool,
        contextlib.closing(
            pool.request("GET", url, headers=headers, preload_content=False)
        ) as answer,
    ):
        start = done = _first_byte(answer, offset=offset, size=size)
        with part.open("ab", buffering=0) as output:
            output.truncate(start)
            report(file.name, done, size)
            # Not decoded: servers call a .gz file an encoding of what is inside.
            while piece := answer.read1(PIECE, decode_content=False):
                if done + len(piece) > size:
                    output.truncate(start)
                    raise _UnsuitableError(f"goes on after the {size:,} bytes of the file")
                output.write(piece)
                done += len(piece)
                report(file.name, done, size)
            if done < size:
                output.truncate(start)
                raise _UnsuitableError(f"ends after {done:,} of {size:,} bytes")


def _first_byte(answer: urllib3.BaseHTTPResponse, *, offset: int, size: int) -> int:
    """With which byte of the file an answer begins: the one asked for, or the first of all."""
    if answer.status == 206:
        told = answer.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", told)
        if found is None or int(found[1]) != offset or found[2] not in {str(size), "*"}:
            raise _UnsuitableError(
                f"sends {told!r} when asked for the bytes from {offset} of {size}"
            )
        return offset
    if answer.status != 200:
        raise _UnsuitableError(f"answers {answer.status} {answer.reason or ''}".rstrip())
    length = answer.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != size:
        raise _UnsuitableError(f"has {int(length):,} bytes for us where the file has {size:,}")
    return 0


def _pool(url: str) -> urllib3.PoolManager:
    """The way to a server: through the proxy, where the environment names one."""
    # Nothing is tried twice here: the callers go on where the bytes ended.
    retries = urllib3.Retry(connect=0, read=0, status=0, other=0, redirect=5)
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=SILENT_SECONDS)
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, retries=retries, timeout=timeout)
    return urllib3.PoolManager(retries=retries, timeout=timeout)


def _publish(part: Path, place: Path) -> None:
    """Gives a file its name, so that not even a power cut leaves half of it there."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(place)
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(place.parent, os.O_RDONLY)
    try:
        # Some network file systems sync no folders at all; the file is whole all the same.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: HTTPError) -> str:
    """What urllib3 says, without the name of its own object in front."""
    cause = (error.reason if isinstance(error, MaxRetryError) else None) or error
    text = str(cause.args[0]) if cause.args else type(cause).__name__
    return text.rpartition("): ")[2] or text


def _part(file: OfficialFile, folder: Path) -> Path:
    return folder / f"{file.name}.part"


def _bytes_there(file: OfficialFile, folder: Path) -> int:
    """How much of a file has come, by whichever process."""
    return file.packed.size if not missing([file], folder) else _size(_part(file, folder))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

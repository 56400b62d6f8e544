"""Data sets by name: not found, not downloaded, not unpacked; a server on this machine is asked."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fdfa.data
from fdfa.data import registry
from fdfa.data.download import download
from fdfa.data.official import OfficialFile
from fdfa.errors import ConfigError, DataError
from tests.data.mirror_server import Mirror, fingerprint, mirror
from tests.data.writers import write
from tests.errors.provoke import Case, Here

__all__ = ["DATA_DOWNLOAD_CASES"]

CONTENT = bytes(range(256)) * 100


@contextlib.contextmanager
def _server(here: Here, content: bytes = CONTENT) -> Iterator[Mirror]:
    """A server, asked directly, and given up soon."""
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        here.patch.delenv(name, raising=False)
    here.patch.setattr("fdfa.data.download.BREAKS", 1)
    with mirror(content) as server:
        yield server


def _mirrors(name: str, *faults: str, part: bytes = b"") -> Case:
    """All mirrors fail, each in its way, after a part came earlier."""

    def run(here: Here) -> None:
        with _server(here) as server:
            server.breaks = 10**6
            if part:
                write(here.folder, {"file.part": part})
            download([_official(server, *faults)], here.folder)

    return Case(f"download: {name}", DataError, run)


def _official(server: Mirror, *faults: str, name: str = "file") -> OfficialFile:
    return OfficialFile(
        name=name,
        packed=fingerprint(server.content),
        mirrors=tuple(server.url(fault, name) for fault in faults),
    )


def _into_a_file(here: Here) -> None:
    write(here.folder, {"taken": b""})
    with _server(here) as server:
        download([_official(server, "good")], here.folder / "taken" / "set")


def _full_disk(here: Here) -> None:
    free = SimpleNamespace(free=20_000)
    here.patch.setattr("fdfa.data.download.shutil.disk_usage", lambda folder: free)
    with _server(here) as server:
        download([_official(server, "good")], here.folder)


def _unreadable_part(here: Here) -> None:
    """The whole file came, and cannot be read again."""
    good = Path.open

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if path.suffix == ".part" and mode == "rb":
            raise PermissionError(13, "Permission denied", str(path))
        return good(path, mode, *args, **options)

    with _server(here) as server:
        here.patch.setattr(Path, "open", opened)
        download([_official(server, "good")], here.folder)


def _archive(name: str, content: bytes, *, changed: bool = False) -> Case:
    """An archive that is there, and has to be unpacked."""

    def run(here: Here) -> None:
        file = OfficialFile(name="set.zip", packed=fingerprint(content))
        write(here.folder, {"set.zip": content[:-1] + b"x" if changed else content})
        download([file], here.folder, unpacked="set")

    return Case(f"unpack: {name}", DataError, run)


def _zip(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"content")
    return stream.getvalue()


def _nowhere(here: Here, **options: Any) -> None:
    """Neither in a folder that is named, nor in the environment's, nor in the cache."""
    here.patch.setenv("FDFA_DATA", str(here.folder / "sets"))
    here.patch.setenv("FDFA_CACHE", str(here.folder / "cache"))
    fdfa.data.load(**options)


def _half_there(here: Here) -> None:
    write(here.folder, {"train-images-idx3-ubyte.gz": b""})
    _nowhere(here, name="mnist", directory=here.folder)


def _packed(here: Here) -> None:
    write(here.folder, {"tiny-imagenet-200.zip": b""})
    _nowhere(here, name="tiny-imagenet", directory=here.folder)


def _homeless(here: Here) -> None:
    def expanded(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("FDFA_DATA", "FDFA_CACHE", "XDG_CACHE_HOME"):
        here.patch.delenv(name, raising=False)
    here.patch.setattr(Path, "expanduser", expanded)
    fdfa.data.load("mnist")


NAMES = [
    Case("unknown data set", ConfigError, lambda here: fdfa.data.load("mnits")),
    Case(
        "unknown option of a data set",
        ConfigError,
        lambda here: fdfa.data.load("emnist", splits="letters"),
    ),
    Case("nothing to download", ConfigError, lambda here: registry.get("tensors")),
    Case(
        "a set that is nowhere and may not be downloaded",
        DataError,
        lambda here: _nowhere(here, name="mnist", download=False, directory=here.folder),
    ),
    Case(
        "a set of one's own that is nowhere", DataError, lambda here: _nowhere(here, name="tensors")
    ),
    Case("a set that is half there", DataError, _half_there),
    Case("a set that is not unpacked", DataError, _packed),
    Case("a user without a home", DataError, _homeless),
]
DOWNLOADS = [
    _mirrors("a server that does not have it, and one that sends another", "absent", "wrong"),
    _mirrors("a page of another length", "page"),
    _mirrors("too little", "short"),
    _mirrors("too much", "endless"),
    _mirrors("another part", "shifted", part=CONTENT[:1000]),
    _mirrors("connections that break, with a part kept", "cut"),
    Case("download: into a file", DataError, _into_a_file),
    Case("download: onto a full disk", DataError, _full_disk),
    Case("download: not read again", DataError, _unreadable_part),
    _archive("another archive", _zip("set/a"), changed=True),
    _archive("no archive", b"no zip at all"),
    _archive("another folder in it", _zip("other/a")),
]

DATA_DOWNLOAD_CASES = [*NAMES, *DOWNLOADS]

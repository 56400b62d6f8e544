"""The official files of the data sets (``official.toml``), and whether a file is one of them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import tomllib
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from fdfa.data.reading import PIECE, Stream, existing, opened, refuse, take
from fdfa.errors import briefly

__all__ = ["LOCK", "Fingerprint", "OfficialFile", "Progress", "missing", "official_files"]

# Lies in every folder into which was downloaded: what is missing there may still come.
LOCK = ".download.lock"

# Told of a file's name, of how many of its bytes are there, and of how many there have to be.
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Size and checksum: what tells some bytes from all others.

    Args:
        size: in bytes.
        checksum: ``sha256:`` or ``md5:``, then hexadecimal digits.

    Example:
        >>> import io
        >>> abc = Fingerprint(3, "md5:900150983cd24fb0d6963f7d28e17f72")
        >>> abc.matches(io.BytesIO(b"abc")), abc.matches(io.BytesIO(b"abcd"))
        (True, False)
    """

    size: int
    checksum: str

    def matches(self, stream: Stream) -> bool:
        """Reads a stream to its end, but never far beyond the expected size.

        Args:
            stream: where from.

        Returns:
            Whether it holds just the expected bytes.
        """
        algorithm, _, expected = self.checksum.partition(":")
        # Machines in FIPS mode refuse MD5 unless told that no secret hangs on it.
        digest = hashlib.new(algorithm, usedforsecurity=False)
        length = 0
        while length <= self.size and (piece := take(stream, PIECE)):
            digest.update(piece)
            length += len(piece)
        return length == self.size and digest.hexdigest() == expected


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """A file as those who made the data set give it out.

    Args:
        name: without folders.
        packed: fingerprint of the file itself.
        content: fingerprint of what a gzipped file holds; None where a copy that was unpacked or
            packed again cannot be told.
        mirrors: addresses of the file, the one to try first in front.

    Example:
        >>> file = official_files("mnist")[0]
        >>> file.name, file.packed.size
        ('train-images-idx3-ubyte.gz', 9912422)
    """

    name: str
    packed: Fingerprint
    content: Fingerprint | None = None
    mirrors: tuple[str, ...] = ()

    def is_whole(self, path: Path) -> bool:
        """Whether a file is this one, byte for byte.

        Args:
            path: the file.

        Returns:
            False if anything differs.

        Raises:
            DataError: if it cannot be read.
        """
        try:
            with path.open("rb") as stream:
                return self.packed.matches(stream)
        except OSError as error:
            refuse(path, f"cannot be read: {briefly(error)}", cause=error)

    def has_same_content(self, path: Path) -> bool:
        """Whether a file holds what this one holds, be it unpacked or packed in another way.

        Args:
            path: the file.

        Returns:
            False if the content differs, or is not known.

        Raises:
            DataError: if it cannot be read or unpacked.
        """
        if self.content is None:
            return False
        with opened(path) as stream:
            return self.content.matches(stream)


@functools.cache
def official_files(name: str) -> tuple[OfficialFile, ...]:
    """The official files of a data set.

    Args:
        name: of the data set.

    Returns:
        The files; none for a data set that cannot be downloaded.

    Example:
        >>> [file.name for file in official_files("cifar10")]
        ['cifar-10-binary.tar.gz']
    """
    manifest = tomllib.loads(files("fdfa.data").joinpath("official.toml").read_text("utf-8"))
    known = manifest.get(name, {"files": []})
    return tuple(
        OfficialFile(
            name=file["name"],
            packed=Fingerprint(file["size"], file["checksum"]),
            content=Fingerprint(**file["content"]) if "content" in file else None,
            mirrors=tuple(f"{folder}{file['name']}" for folder in known["mirrors"]),
        )
        for file in known["files"]
    )


def missing(files: Sequence[OfficialFile], folder: Path) -> list[OfficialFile]:
    """The files that a folder lacks, gzipped as well as unpacked.

    Args:
        files: what should be there.
        folder: where.

    Returns:
        Those that are not.

    Example:
        >>> len(missing(official_files("mnist"), Path("/nowhere")))
        4
    """
    return [file for file in files if existing(folder, file.name.removesuffix(".gz")) is None]

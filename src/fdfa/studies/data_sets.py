"""What a command line tells of data sets: which there are, where they lie, if they are whole."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

from fdfa.data import registry
from fdfa.data.catalogue import DataSource
from fdfa.data.official import OfficialFile, Progress
from fdfa.data.reading import existing
from fdfa.errors import DataError

__all__ = ["CheckedFile", "Fetched", "Listed", "Verified", "get", "list_data_sets", "verify"]


@dataclasses.dataclass(frozen=True)
class Listed:
    """A data set and where it is.

    Attributes:
        source: what is known of it.
        size: bytes to download; 0 if nothing can be.
        folder: where it was found; None if nowhere, and for what the package carries.
    """

    source: DataSource
    size: int
    folder: Path | None


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What a download brought.

    Attributes:
        name: of the data set.
        folder: where its files are.
        files: the names of those that were downloaded; none if all were there.
    """

    name: str
    folder: Path
    files: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CheckedFile:
    """An official file and what there is of it.

    Attributes:
        name: as it is given out.
        path: where it is; None where it is missing.
        size: in bytes; None where it is missing.
        state: ``"official"`` byte for byte, ``"repacked"`` if its content is official but it was
            unpacked or gzipped again, ``"differs"`` or ``"missing"``.
    """

    name: str
    path: Path | None
    size: int | None
    state: Literal["official", "repacked", "differs", "missing"]


@dataclasses.dataclass(frozen=True)
class Verified:
    """What a data set was found to be.

    Attributes:
        name: of the data set.
        folder: where its files are; None for what the package carries.
        files: each official file.
        problem: why it cannot be read; None if it can.
        shape: of one input; None if it cannot be read.
        classes: how many; None if it cannot be read.
        examples: for training, before validation is cut out, and for the test; None if it cannot
            be read.
    """

    name: str
    folder: Path | None
    files: tuple[CheckedFile, ...]
    problem: str | None = None
    shape: tuple[int, ...] | None = None
    classes: int | None = None
    examples: tuple[int, int] | None = None

    @property
    def sound(self) -> bool:
        """Whether it can be read, and no file differs from the official one.

        Official files may be missing where the data set lies there in another form.
        """
        return self.problem is None and all(file.state != "differs" for file in self.files)


def list_data_sets(*, directory: str | os.PathLike[str] | None = None) -> tuple[Listed, ...]:
    """All data sets, and which of them are on this machine.

    Args:
        directory: looked into before ``FDFA_DATA`` and the cache.

    Returns:
        One record each.

    Raises:
        DataError: if the user has no home folder, where the cache would be.

    Example:
        >>> digits = list_data_sets()[0]
        >>> digits.source.name, digits.size
        ('digits', 0)
    """
    return tuple(
        Listed(
            source=source,
            size=sum(file.packed.size for file in source.files),
            folder=registry.located(source, directory=directory),
        )
        for source in map(registry.describe, registry.names())
    )


def get(
    name: str,
    *,
    directory: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Downloads what is missing of a data set.

    Args:
        name: of the data set.
        directory: where it is looked for first, and where it goes; None for the cache.
        progress: called with a file's name, the bytes that are there, and its size.

    Returns:
        What was downloaded, and where to.

    Raises:
        ConfigError: if the name is unknown, or there is nothing to download.
        DataError: if the download fails.

    Example:
        >>> get("digits")
        Traceback (most recent call last):
        fdfa.errors.ConfigError: data set 'digits' has no files to download: ...
    """
    came: dict[str, None] = {}

    def note(file: str, done: int, total: int) -> None:
        came[file] = None
        if progress is not None:
            progress(file, done, total)

    folder = registry.get(name, directory=directory, progress=note)
    return Fetched(name=name, folder=folder, files=tuple(came))


def verify(
    name: str, *, directory: str | os.PathLike[str] | None = None, **options: Any
) -> Verified:
    """Compares a data set's files with the official ones, and reads all of it.

    Args:
        name: of the data set.
        directory: where it is looked for first.
        **options: of the data set.

    Returns:
        What was found. A file that differs or cannot be read is told there.

    Raises:
        ConfigError: if the name or an option is unknown.
        DataError: if the data set is nowhere.

    Example:
        >>> digits = verify("digits")
        >>> digits.sound, digits.examples, digits.shape
        (True, (1497, 300), (1, 8, 8))
    """
    source = registry.describe(name)
    folder = registry.located(source, directory=directory)
    files = () if folder is None else tuple(_checked(file, folder) for file in source.files)
    try:
        data = registry.load(name, directory=directory, validation=0, download=False, **options)
    except DataError as error:
        if folder is None:
            raise
        return Verified(name=name, folder=folder, files=files, problem=str(error))
    return Verified(
        name=name,
        folder=folder,
        files=files,
        shape=data.shape,
        classes=data.classes,
        examples=(len(data.train), len(data.test)),
    )


def _checked(file: OfficialFile, folder: Path) -> CheckedFile:
    """Finds a file in the form that would be read, and reads it whole."""
    path = existing(folder, file.name.removesuffix(".gz"))
    if path is None:
        return CheckedFile(file.name, None, None, "missing")
    state: Literal["official", "repacked", "differs"] = "differs"
    # What cannot even be unpacked differs; why, the reader tells.
    with contextlib.suppress(DataError):
        if file.is_whole(path):
            state = "official"
        elif file.has_same_content(path):
            state = "repacked"
    return CheckedFile(file.name, path, path.stat().st_size, state)

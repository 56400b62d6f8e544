"""Data sets by name: found on this machine, or downloaded, and read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fdfa.data.catalogue import CATALOGUE, DataSource
from fdfa.data.dataset import Dataset
from fdfa.data.locate import find, places, target
from fdfa.data.official import LOCK, Progress, missing
from fdfa.errors import ConfigError, DataError, unknown_name

__all__ = ["describe", "get", "load", "located", "names"]


def names() -> tuple[str, ...]:
    """Lists the data sets that ``load`` knows.

    Returns:
        The names, the one that needs no files first.

    Example:
        >>> names()[:3]
        ('digits', 'mnist', 'fashion-mnist')
    """
    return tuple(source.name for source in CATALOGUE)


def describe(name: str) -> DataSource:
    """What there is to know of a data set before reading it.

    Args:
        name: one of ``names()``.

    Returns:
        Its record.

    Raises:
        ConfigError: if the name is unknown.

    Example:
        >>> mnist = describe("mnist")
        >>> mnist.examples, mnist.validation, mnist.licence
        ((60000, 10000), 5000, 'CC BY-SA 3.0')
    """
    for source in CATALOGUE:
        if source.name == name:
            return source
    raise ConfigError(unknown_name("data set", name, names()))


def load(
    name: str,
    *,
    directory: str | os.PathLike[str] | None = None,
    validation: int | None = None,
    download: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> Dataset:
    """Loads a data set by name: inputs as they are stored, labels, and a fixed split.

    Its files are looked for in a folder of its name in ``directory``, in ``directory`` itself, in
    ``$FDFA_DATA/name``, then in the cache folder. If they are nowhere, the official ones are
    downloaded: into ``directory/name``, or without a directory into the cache folder.

    Args:
        name: one of ``names()``.
        directory: folder of the files, or the folder above. Not needed for ``digits``.
        validation: how many training examples to set apart for validation, chosen with a fixed
            seed; None for the data set's own number.
        download: whether files may be downloaded.
        progress: during a download called with a file's name, the bytes that are there, and its
            size.
        **options: of the data set, such as ``split`` of ``emnist``; see ``describe(name)``.

    Returns:
        The data set, on the CPU.

    Raises:
        ConfigError: if the name, an option or its value is unknown, or ``validation`` out of range.
        DataError: if a file is missing, damaged, or not what it has to be, or a download fails.

    Example:
        >>> digits = load("digits", validation=100)
        >>> digits.train.inputs.shape, digits.train.labels.dtype
        (torch.Size([1397, 1, 8, 8]), torch.int64)
    """
    source = describe(name)
    valid = list(source.options())
    for option in options:
        if option not in valid:
            raise ConfigError(f"data set {name!r}: {unknown_name('option', option, valid)}")
    if validation is None:
        validation = source.validation
    if not source.traces:
        return source.loader(validation=validation, **options)
    folder = located(source, directory=directory)
    if folder is None or _unfinished(source, folder):
        _check_download(source, folder, directory=directory, allowed=download)
        folder = get(name, directory=directory, progress=progress)
    return source.loader(folder, validation=validation, **options)


def located(source: DataSource, *, directory: str | os.PathLike[str] | None = None) -> Path | None:
    """Where the files of a data set are, or some of them.

    Args:
        source: the data set.
        directory: as for :func:`load`.

    Returns:
        The first folder with any of its files, or None.

    Raises:
        DataError: if the user has no home folder, where the cache would be.

    Example:
        >>> located(describe("digits")) is None  # needs no folder
        True
    """
    return find(places(source.folder_names, directory=directory), source.traces)


def get(
    name: str,
    *,
    directory: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Downloads what is missing of a data set, and unpacks what is not read out of its archive.

    Args:
        name: of a data set that has official files.
        directory: as for :func:`load`.
        progress: as for :func:`load`.

    Returns:
        The folder with its files.

    Raises:
        ConfigError: if the name is unknown, or there is nothing to download.
        DataError: if the download fails.

    Example:
        >>> get("digits")
        Traceback (most recent call last):
        fdfa.errors.ConfigError: data set 'digits' has no files to download: ...
    """
    source = describe(name)
    if not source.files:
        why = "it comes with fdfa. Use it as it is"
        if source.traces:
            why = (
                "it is your own. Put its files into a folder and name it with --data-dir (in "
                "Python: directory=)"
            )
        raise ConfigError(f"data set {name!r} has no files to download: {why}.")
    folder = located(source, directory=directory)
    if folder is not None and not _unfinished(source, folder):
        return folder
    # Not at the top: the library behind it takes a twentieth of a second to import.
    from fdfa.data.download import download

    folder = folder or target(source.folder_names, directory=directory)
    download(source.files, folder, unpacked=source.unpacked, progress=progress)
    return folder


def _unfinished(source: DataSource, folder: Path) -> str:
    """What a folder with some official files lacks, as a predicate; empty if nothing."""
    lacking = missing(source.files, folder)
    # All of them: the data set lies there in another form, or out of its archive.
    if 0 < len(lacking) < len(source.files):
        return f"lacks {', '.join(file.name for file in lacking)}"
    if source.unpacked and not lacking and not (folder / source.unpacked).exists():
        return f"holds {source.files[0].name}, which has to be unpacked"
    return ""


def _check_download(
    source: DataSource,
    folder: Path | None,
    *,
    directory: str | os.PathLike[str] | None,
    allowed: bool,
) -> None:
    """Refuses what a download cannot, may not, or should not mend."""
    if folder is None:
        # A folder that is not there may be a slip of the pen: only `get` makes it.
        if (
            allowed
            and source.files
            and (directory is None or Path(directory).expanduser().is_dir())
        ):
            return
        searched = ", ".join(map(str, places(source.folder_names, directory=directory)))
        raise DataError(f"data set {source.name!r} is in none of {searched}. {_remedy(source)}")
    # A folder that was downloaded into was left half full; any other is the user's own.
    if not (allowed and (folder / LOCK).exists()):
        unfinished = _unfinished(source, folder)
        raise DataError(f"data set {source.name!r}: {folder} {unfinished}. {_remedy(source)}")


def _remedy(source: DataSource) -> str:
    """What to do about missing files."""
    if source.files:
        first = f"Run `fdfa data get {source.name}`, which mends that, or put "
        what = ", ".join(file.name for file in source.files)
    else:
        first, what = "Put ", "its files"
    return (
        f"{first}{what} into one folder and name it with --data-dir (in Python: directory=), or "
        f"call it {source.name} and set FDFA_DATA to the folder above."
    )

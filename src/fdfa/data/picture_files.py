"""Which pictures a folder holds, and the class of each: by its folders or by a list beside them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fdfa.data.reading import opened, refuse, take
from fdfa.errors import briefly

__all__ = ["Listing", "annotated_pictures", "class_folders", "pictures_by_class"]

PICTURES: Final = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".pbm"}
# What lies about in folders of pictures and is none. Anything else might be a picture that we would
# silently leave out.
PASSED_OVER: Final = {".txt", ".csv", ".json", ".xml", ".md", ".db", ".ini"}
NESTED = "images"  # where Tiny ImageNet keeps the pictures of a class
LONGEST_LINE = 1024  # bytes of a list of classes, on average
REMEDY = "Correct the folder, or unpack the data set again."


@dataclasses.dataclass(frozen=True)
class Listing:
    """Pictures in a fixed order.

    Attributes:
        root: the folder that the names start from.
        names: of the files, folders included.
        sizes: of the files in bytes.
        labels: the number of each picture's class.
    """

    root: Path
    names: list[str]
    sizes: list[int]
    labels: list[int]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)


def class_folders(folder: Path) -> list[str]:
    """The classes of a part of a data set.

    Args:
        folder: holds a folder for each class.

    Returns:
        Their names, sorted.

    Raises:
        DataError: if the folder cannot be read, or holds pictures outside the classes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "dog").mkdir()
        ...     (Path(folder) / "cat").mkdir()
        ...     class_folders(Path(folder))
        ['cat', 'dog']
    """
    folders, files = _entries(folder)
    if files:
        refuse(folder / files[0][0], "lies outside the folders of the classes", remedy=REMEDY)
    return folders


def pictures_by_class(folder: Path, classes: list[str]) -> Listing:
    """The pictures of a part of a data set that keeps each class in a folder.

    Args:
        folder: holds the folders.
        classes: the names of all classes, in the order of their numbers.

    Returns:
        The pictures, class after class in the order of their names.

    Raises:
        DataError: if a folder cannot be read, holds no pictures or something else, or is of a class
            that is not among ``classes``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / "cat" / "images").mkdir(parents=True)
        ...     _ = (Path(folder) / "cat" / "images" / "tom.png").write_bytes(b"123")
        ...     listing = pictures_by_class(Path(folder), ["cat"])
        >>> listing.names, listing.sizes, listing.labels
        (['cat/images/tom.png'], [3], [0])
    """
    listing = Listing(folder, [], [], [])
    numbers = {name: number for number, name in enumerate(classes)}
    for name in class_folders(folder):
        if name not in numbers:
            refuse(
                folder / name,
                "is of a class that the training part does not have",
                remedy=f"Move it into one that it has ({', '.join(classes[:5])}"
                f"{' ...' * (len(classes) > 5)}), or give train a folder of that name.",
            )
        before = len(listing)
        for file, size in _pictures_of_class(folder, name):
            listing.names.append(file)
            listing.sizes.append(size)
            listing.labels.append(numbers[name])
        if len(listing) == before:
            refuse(folder / name, "holds no pictures", remedy=REMEDY)
    return listing


def annotated_pictures(folder: Path, annotations: Path, classes: list[str]) -> Listing:
    r"""The pictures of a folder whose classes stand in a list, as in Tiny ImageNet's ``val``.

    Args:
        folder: holds the pictures.
        annotations: the list, a line for each picture: its name, a tab, its class; what follows
            another tab is not read.
        classes: the names of all classes, in the order of their numbers.

    Returns:
        The pictures in the order of their names.

    Raises:
        DataError: if the list or the folder cannot be read, or they do not agree.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "val_0.JPEG").write_bytes(b"123")
        ...     _ = (Path(folder) / "list.txt").write_text("val_0.JPEG\tdog\t0\t0\t62\t62\n")
        ...     annotated_pictures(Path(folder), Path(folder) / "list.txt", ["cat", "dog"]).labels
        [1]
    """
    folders, files = _entries(folder)
    if folders or not files:
        refuse(folder, "has to hold pictures and no folders", remedy=REMEDY)
    labels = _annotations(annotations, classes, most=LONGEST_LINE * len(files))
    for name, _ in files:
        if name not in labels:
            refuse(annotations, f"does not tell the class of {name}", remedy=REMEDY)
    if len(labels) > len(files):
        missing = next(iter(labels.keys() - {name for name, _ in files}))
        refuse(annotations, f"tells the class of {missing}, which {folder} lacks", remedy=REMEDY)
    names = [name for name, _ in files]
    return Listing(folder, names, [size for _, size in files], [labels[name] for name in names])


def _annotations(path: Path, classes: list[str], *, most: int) -> dict[str, int]:
    """Number of the class by name of the picture."""
    with opened(path, unpack=False, remedy=REMEDY) as stream:
        content = take(stream, most + 1)
    if len(content) > most:
        refuse(path, f"is longer than {most:,} bytes", remedy=REMEDY)
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        refuse(path, f"is no text: {briefly(error)}", remedy=REMEDY, cause=error)
    numbers = {name: number for number, name in enumerate(classes)}
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name, *rest = line.split("\t")
        if not rest or rest[0] not in numbers or name in labels:
            reason = f"names {''.join(rest[:1])!r} in line {number}, which is no class of train"
            if name in labels:
                reason = f"names a picture again in line {number}"
            refuse(path, reason, remedy=REMEDY)
        labels[name] = numbers[rest[0]]
    return labels


def _pictures_of_class(folder: Path, name: str) -> Iterator[tuple[str, int]]:
    """Names from the folder above on, and sizes; what is nested comes first."""
    nested, files = _entries(folder / name)
    if nested not in ([], [NESTED]):
        refuse(folder / name / nested[0], "is a folder where pictures are expected", remedy=REMEDY)
    if nested:
        deeper, inside = _entries(folder / name / NESTED)
        if deeper:
            refuse(folder / name / NESTED / deeper[0], "is a folder too many", remedy=REMEDY)
        yield from ((f"{name}/{NESTED}/{file}", size) for file, size in inside)
    yield from ((f"{name}/{file}", size) for file, size in files)


def _entries(folder: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """Folders, and pictures with their sizes, each sorted by name."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                suffix = Path(entry.name).suffix.lower()
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif suffix in PICTURES and entry.is_file():
                    files.append((entry.name, entry.stat().st_size))
                elif suffix not in PASSED_OVER:
                    kinds = ", ".join(sorted(PICTURES))
                    refuse(
                        Path(entry.path),
                        f"is of no kind that is read ({kinds})",
                        remedy="Convert or remove it.",
                    )
    except OSError as error:
        refuse(folder, f"cannot be read: {briefly(error)}", remedy=REMEDY, cause=error)
    return sorted(folders), sorted(files)

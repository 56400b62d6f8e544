"""One error a case: how it is provoked, the text that comes, where in the source it was made."""

from __future__ import annotations

import dataclasses
import functools
import re
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fdfa.errors import FDFAError
from tests.errors.sites import PACKAGE

__all__ = ["Case", "Here", "Provoked", "masked", "passed_lines", "provoked"]


@dataclasses.dataclass(frozen=True)
class Here:
    """Where a case plays.

    Attributes:
        folder: empty, and gone afterwards.
        patch: undone afterwards.
    """

    folder: Path
    patch: pytest.MonkeyPatch


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to be refused: ``run`` must raise just ``error``."""

    name: str
    error: type[Exception]
    run: Callable[[Here], object]


@dataclasses.dataclass(frozen=True)
class Provoked:
    """What came of a case.

    Attributes:
        text: of the error, masked.
        lines: of the library that the error, and those behind it, came through.
    """

    text: str
    lines: frozenset[tuple[str, int]]


@functools.cache
def provoked(case: Case) -> Provoked:
    """Run a case once a process, whichever tests ask for it."""
    with (
        tempfile.TemporaryDirectory() as name,
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of a file left open in a frame that the error holds
        folder = Path(name) / "here"
        folder.mkdir()
        error = None
        try:
            case.run(Here(folder, patch))
        except Exception as raised:
            error = raised
    if error is None or type(error) is not case.error:
        raise AssertionError(f"{case.name}: {error!r} came, not {case.error.__name__}") from error
    return Provoked(masked(error, folder), passed_lines(error))


def passed_lines(error: BaseException) -> frozenset[tuple[str, int]]:
    """File and line of every frame in the library that this error, and those behind it, left."""
    return frozenset(
        (Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix(), line)
        for each in _chain(error)
        for frame, line in traceback.walk_tb(each.__traceback__)
        if Path(frame.f_code.co_filename).is_relative_to(PACKAGE)
    )


def masked(error: BaseException, folder: Path) -> str:
    """The text of an error without what is not ours, or differs between machines.

    - Words of torch, Python and the system that we quote become ``<OSError>`` and the like: they
      belong to their release. They are known by the exceptions behind ours.
    - The case's folder becomes ``HERE``, the installed package ``PACKAGE``.
    - Numbers of processes, ports and releases become words in capitals.

    Args:
        error: that was raised.
        folder: of the case.

    Returns:
        What stands in the snapshot.
    """
    text = str(error)
    for behind in list(_chain(error))[1:]:
        if not isinstance(behind, FDFAError) and not _raised_by_us(behind):
            for words in _quoted(str(behind)):
                text = text.replace(words, f"<{type(behind).__name__}>")
    text = text.replace(str(folder), "HERE").replace(str(PACKAGE), "PACKAGE")
    for pattern, word in (
        (r"(?<=held by process )\d+", "NUMBER"),
        (r"(?<=://127\.0\.0\.1:)\d+", "PORT"),
        (r"(?<=/file fails: ).*", "WORDS"),  # of urllib3, which stand behind no error of ours
        (r"(?<=torch )\d+\.\d+[^ ]*(?= sees)", "RELEASE"),
        (r"(?<=sees )\d+(?= CUDA)", "SOME"),
    ):
        text = re.sub(pattern, word, text)
    return text


def _quoted(words: str) -> Iterator[str]:
    """The forms in which the library quotes someone else: whole, a line, the first 80 characters.

    Without the full stop at the end: two in a row are ours to avoid, and shall be seen.
    """
    first, _, rest = words.partition("\n")
    two = " ".join(f"{first} {rest.partition(chr(10))[0]}".split())
    for form in (words, two, " ".join(first.split()), words[:80]):
        if len(form := form.strip(". \n")) > 2:
            yield form


def _raised_by_us(error: BaseException) -> bool:
    """Whether the last frame is the library's: its words are ours, whatever its type."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    frame, line = frames[-1]
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(PACKAGE):
        return False
    return path.read_text(encoding="utf-8").splitlines()[line - 1].lstrip().startswith("raise ")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those during or because of which it was raised."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__

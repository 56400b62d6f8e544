"""Damages valid files at random, and says what may come of reading them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import strategies as st

from fdfa.errors import DataError

Read = TypeVar("Read")


def or_refused(read: Callable[[], Read]) -> Read | None:
    """What was read, or None where our own error says why and what to do; all else fails a test."""
    try:
        return read()
    except DataError as error:
        refused = str(error)
    assert ". " in refused, "no remedy"
    return None


def damaged(*contents: bytes, most: int = 4) -> st.SearchStrategy[bytes]:
    """One of the contents with some bytes changed, put in, left out, or cut off."""
    edit = st.tuples(
        st.sampled_from(["change", "insert", "delete", "cut", "double"]),
        st.integers(0, 2**16),
        st.binary(min_size=1, max_size=8),
    )
    return st.builds(_edited, st.sampled_from(contents), st.lists(edit, min_size=1, max_size=most))


def _edited(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    changed = bytearray(content)
    for kind, position, material in edits:
        at = position % (len(changed) + 1)
        if kind == "change":
            changed[at : at + len(material)] = material[: len(changed) - at]
        elif kind == "insert":
            changed[at:at] = material
        elif kind == "delete":
            del changed[at : at + len(material)]
        elif kind == "cut":
            del changed[at:]
        else:
            changed[at:at] = changed[at : at + 64]
    return bytes(changed)

"""Reads the one kind of pickle that CIFAR comes in, and executes nothing.

Python 2 wrote these files: protocol 2, a dict of strings, lists of small numbers and strings, and a
numpy array of bytes. ``pickle`` would import and call whatever a file names. This machine knows the
opcodes that such a file consists of and three names, which it takes as marks of an array; anything
else is refused, and nothing that a file holds is ever copied before all of it was found good.
"""

from __future__ import annotations

import dataclasses
import enum
import pickletools
import warnings
from typing import Any, Final

from fdfa.data.reading import refuse
from fdfa.errors import briefly

__all__ = ["PickledArray", "read_pickle"]


class Mark(enum.Enum):
    """What stands on the stack where ``pickle`` would have something of numpy's."""

    RECONSTRUCT = "numpy.core.multiarray _reconstruct"
    NDARRAY = "numpy ndarray"
    DTYPE = "numpy dtype"
    BYTES = "the dtype of bytes"


@dataclasses.dataclass
class PickledArray:
    """An array of bytes as a pickle describes it.

    Attributes:
        shape: whatever the pickle says; to be checked.
        content: one character a byte, in C order.
    """

    shape: object = ()
    content: str = ""


NAMES: Final = {mark.value: mark for mark in (Mark.RECONSTRUCT, Mark.NDARRAY, Mark.DTYPE)}
LONGEST_SHOWN = 80  # characters of what a file says in the text of an error
# The two calls that numpy wrote: for the dtype of bytes, and for an array that is still empty.
NEW_DTYPE: Final = (Mark.DTYPE, ("u1", 0, 1))
NEW_ARRAY: Final = (Mark.RECONSTRUCT, (Mark.NDARRAY, (0,), "b"))


class RefusedError(Exception):
    """What is wrong with a pickle; goes on after the file's name."""


def read_pickle(content: bytes, *, place: str, steps: int) -> Any:
    r"""Reads a pickle.

    Args:
        content: all of it.
        place: the file, for the text of an error.
        steps: how many opcodes it may consist of, which bounds time and memory.

    Returns:
        What it holds, of dict, list, tuple, str, int, bool, None and ``PickledArray``.

    Raises:
        DataError: if this is no such pickle, is damaged, or asks for anything else.

    Example:
        >>> read_pickle(b"\x80\x02}U\x06labels]K\x03as.", place="test", steps=20)
        {'labels': [3]}
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of escapes in a hostile name
            return _Machine().run(content, steps=steps)
    except RefusedError as refused:
        refuse(place, str(refused), cause=refused)
    except (ValueError, IndexError, KeyError) as error:
        # Of what genops decodes with, an empty stack, what was never put into the memo.
        refuse(place, f"is no whole pickle: {briefly(error)}", cause=error)


class _Machine:
    """Stack and memo, and what each opcode does to them."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each mark
        self._memo: dict[int, Any] = {}

    def run(self, content: bytes, *, steps: int) -> Any:
        """Executes a pickle and gives the one thing that it leaves."""
        for step, (opcode, argument, position) in enumerate(pickletools.genops(content)):
            if step == steps:
                raise RefusedError(f"is refused: its pickle takes more than {steps:,} steps")
            if opcode.name != "STOP":
                self._execute(opcode.name, argument)
            elif position != len(content) - 1:
                raise RefusedError("goes on after the end of its pickle")
        if self._below or len(self._stack) != 1:
            raise RefusedError("is no whole pickle: it leaves more, or less, than one thing")
        return self._stack[0]

    def _execute(self, name: str, argument: Any) -> None:
        """Executes one opcode."""
        match name:
            case "PROTO":
                pass
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINSTRING" | "SHORT_BINSTRING":
                self._stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self._stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                self._stack.append({"D": dict, "L": list, "T": tuple}[name[6]]())
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._stack[-1]
            case "BINGET" | "LONG_BINGET":
                self._stack.append(self._memo[argument])
            case "MARK":
                self._below.append(self._stack)
                self._stack = []
            case "TUPLE":
                items = tuple(self._items())  # which changes the stack itself
                self._stack.append(items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._stack.append(tuple(self._popped(int(name[-1]))))
            case "APPEND":
                self._extend(self._popped(1))
            case "APPENDS":
                self._extend(self._items())
            case "SETITEM":
                self._set(self._popped(2))
            case "SETITEMS":
                self._set(self._items())
            case "GLOBAL":
                self._stack.append(_named(argument))
            case "REDUCE":
                self._stack.append(_called(*self._popped(2)))
            case "BUILD":
                (state,) = self._popped(1)
                _build(self._stack[-1], state)
            case _:
                raise RefusedError(f"is refused: its pickle holds the opcode {name}")

    def _popped(self, count: int) -> list[Any]:
        """The last things on the stack."""
        if len(self._stack) < count:
            raise IndexError("the stack is empty")
        things = self._stack[-count:]
        del self._stack[-count:]
        return things

    def _items(self) -> list[Any]:
        """All things since the last mark, which goes too."""
        items, self._stack = self._stack, self._below.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        """Puts items at the end of the list on the stack."""
        if not isinstance(self._stack[-1], list):
            raise RefusedError("is refused: its pickle appends to what is no list")
        self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        """Puts keys and values into the dict on the stack."""
        keys = items[::2]
        if not isinstance(self._stack[-1], dict) or len(items) % 2:
            raise RefusedError("is refused: its pickle sets items of what is no dict")
        if not all(isinstance(key, str) for key in keys):
            raise RefusedError("is refused: its pickle holds a key that is no string")
        self._stack[-1].update(zip(keys, items[1::2], strict=True))


def _named(name: str) -> Mark:
    """What a global name stands for."""
    if name not in NAMES:
        shown = name[:LONGEST_SHOWN].replace(" ", ".")
        raise RefusedError(f"is refused: its pickle asks for {shown!r}")
    return NAMES[name]


def _called(function: object, arguments: object) -> Mark | PickledArray:
    """What a call would give; only two calls are known."""
    if (function, arguments) == NEW_DTYPE:
        return Mark.BYTES
    if (function, arguments) == NEW_ARRAY:
        return PickledArray()
    raise RefusedError("is refused: its pickle makes a call other than for an array of bytes")


def _build(thing: object, state: object) -> None:
    """Sets the state of an array or a dtype."""
    if thing is Mark.BYTES:
        return  # whatever is said of the order in a number of one byte
    if isinstance(thing, PickledArray) and isinstance(state, tuple) and len(state) == 5:
        version, shape, dtype, fortran, content = state
        if (version, dtype, fortran) == (1, Mark.BYTES, False) and isinstance(content, str):
            thing.shape, thing.content = shape, content
            return
    raise RefusedError("is refused: its pickle describes something other than an array of bytes")

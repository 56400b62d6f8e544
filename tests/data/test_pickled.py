"""The pickle machine against ``pickle`` itself, which reads the same bytes and far more."""

from __future__ import annotations

import os
import pickle
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdfa.data.pickled import PickledArray, read_pickle
from fdfa.errors import DataError
from tests.data.fuzz import damaged, or_refused
from tests.data.writers import cifar_batch, labels, pictures, python2_pickle

IMAGES, LABELS = pictures(3), labels(3, classes=10)
BATCH = cifar_batch(IMAGES, labels=LABELS)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31 - 1)
    | st.text(st.characters(codec="ascii"))
)
NESTED = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text("abc"), inner)
    ),
)


def read(content: bytes, *, steps: int = 10_000) -> object:
    return read_pickle(content, place="batch", steps=steps)


@given(thing=NESTED)
def test_reads_what_pickle_wrote(thing: object) -> None:
    assert read(python2_pickle(thing)) == thing


def test_what_is_shared_stays_shared() -> None:
    inner = ["a"]
    first, second = read(python2_pickle([inner, inner]))
    assert first is second


def test_a_list_inside_itself() -> None:
    loop: list[object] = []
    loop.append(loop)
    found = read(python2_pickle(loop))
    assert found[0] is found


def test_an_array_of_bytes() -> None:
    found = read(BATCH)
    assert pickle.loads(BATCH, encoding="latin-1").keys() == found.keys()
    assert isinstance(found["data"], PickledArray)
    assert found["data"].shape == (3, 3072)
    assert found["data"].content.encode("latin-1") == IMAGES.tobytes()


class Hostile:
    """What pickle would execute."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self._path}",)


def test_a_hostile_pickle_is_never_executed(tmp_path: Path) -> None:
    content = python2_pickle({"data": Hostile(tmp_path / "owned")})
    with pytest.raises(DataError, match=r"batch is refused: its pickle asks for 'posix\.system'"):
        read(content)
    assert not list(tmp_path.iterdir())
    pickle.loads(content)  # the oracle: it was not harmless
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        (zlib.compress, r"asks for 'zlib\.compress'"),
        (OrderedDict(a=1), r"asks for 'collections\.OrderedDict'"),
        (np.float32(1), r"asks for 'numpy\._?core\.multiarray\.scalar'"),
        (np.zeros(3, np.float32), "a call other than for an array of bytes"),
        (np.array([None]), "a call other than for an array of bytes"),
        (np.asfortranarray(IMAGES[0, 0]), "describes something other than an array of bytes"),
        (1.5, "the opcode BINFLOAT"),
        ({1: 2}, "a key that is no string"),
        ({1, 2}, r"asks for '__builtin__\.set'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_refused_by_name(thing: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(python2_pickle(thing))


@pytest.mark.parametrize("protocol", [0, 1, 3, 4, 5])
def test_other_protocols(protocol: int) -> None:
    with pytest.raises(DataError, match="the opcode"):
        read(pickle.dumps({"a": b"b", "c": [1]}, protocol=protocol))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is no whole pickle: pickle exhausted before seeing STOP"),
        (BATCH[:-1], "exhausted before seeing STOP"),
        (BATCH[:1000], "is no whole pickle"),
        (BATCH + b"x", "goes on after the end"),
        (b".", "leaves more, or less, than one thing"),
        (b"NN.", "leaves more, or less"),
        (b"(N.", "leaves more, or less"),
        (b"R.", "the stack is empty"),
        (b"NR.", "the stack is empty"),
        (b"q\0.", "is no whole pickle"),
        (b"h\7.", "is no whole pickle"),
        (b"e.", "is no whole pickle"),
        (b"(e.", "is no whole pickle"),
        (b"N(e.", "appends to what is no list"),
        (b"}(Ne.", "appends to what is no list"),
        (b"](NNu.", "sets items of what is no dict"),
        (b"}(Nu.", "sets items of what is no dict"),
        (b"}]Ns.", "a key that is no string"),
        (b"NNR.", "a call other than"),
        (b"cnumpy\ndtype\nNb.", "describes something other"),
        (b"cnumpy\ndtype\n)R.", "a call other than"),
        (b"cnumpy\nload\n.", "asks for 'numpy.load'"),
        (b"c" + b"a" * 10_000 + b"\nb\n.", "asks for 'a{80}'"),
        (b"\x80\x02\xff.", "is no whole pickle"),
        (b"T\xff\xff\xff\x7fabc.", "is no whole pickle"),
        (b"T\xff\xff\xff\xffabc.", "is no whole pickle"),
        (b"I" + b"1" * 5000 + b"\n.", "is no whole pickle"),
    ],
)
def test_bad_pickles(content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read(content)
    assert len(str(caught.value)) < 400


def test_steps_are_counted() -> None:
    content = b"]" + b"Na" * 10 + b"."
    assert read(content, steps=22) == [None] * 10
    with pytest.raises(DataError, match="takes more than 21 steps"):
        read(content, steps=21)


def test_things_inside_things_do_not_overflow_the_stack() -> None:
    assert read(b")" + b"\x85" * 100_000 + b".", steps=200_000)
    with pytest.raises(DataError, match="a call other than"):
        read(b"cnumpy\ndtype\n)" + b"\x85" * 100_000 + b"R.", steps=200_000)
    with pytest.raises(DataError, match="a key that is no string"):
        read(b"})" + b"\x85" * 100_000 + b"Ns.", steps=200_000)


OPCODES = [bytes([code]) for code in range(256)]


@given(content=st.lists(st.sampled_from(OPCODES), max_size=30).map(b"".join))
def test_fuzz_any_bytes(content: bytes) -> None:
    or_refused(lambda: read(content))


# Behind the opcodes that are known, more than any byte in ten thousand gets far.
KNOWN = [
    b"(",
    b")",
    b"]",
    b"}",
    b"N",
    b"K\1",
    b"U\1a",
    b"t",
    b"\x85",
    b"\x86",
    b"e",
    b"a",
    b"s",
    b"u",
]
NUMPY = [b"q\0", b"h\0", b"R", b"b", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n"]
NUMPY += [b"cnumpy.core.multiarray\n_reconstruct\n"]


@given(parts=st.lists(st.sampled_from(KNOWN + NUMPY), max_size=40))
def test_fuzz_known_opcodes(parts: list[bytes]) -> None:
    or_refused(lambda: read(b"".join(parts) + b"."))


@given(content=damaged(BATCH[:400] + BATCH[9600:], python2_pickle({"a": [1, "b", (None, True)]})))
def test_fuzz_a_damaged_batch(content: bytes) -> None:
    or_refused(lambda: read(content))

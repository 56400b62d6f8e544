"""The ``.npy`` reader against numpy, which writes the files and reads them too."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fdfa.data import npy
from fdfa.data.npy import read_npy
from fdfa.data.reading import take
from fdfa.errors import DataError
from tests.data.fuzz import damaged, or_refused

KINDS = ["b1", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


def saved(array: np.ndarray, *, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def read(folder: Path, content: bytes) -> torch.Tensor:
    (folder / "array.npy").write_bytes(content)
    return read_npy(folder / "array.npy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("npy")


@given(
    kind=st.sampled_from(KINDS),
    byte_order=st.sampled_from("<>="),
    memory_order=st.sampled_from("CF"),
    shape=st.lists(st.integers(1, 4), max_size=4).map(tuple),
    seed=st.integers(0, 99),
)
def test_reads_what_numpy_saves(
    folder: Path, kind: str, byte_order: str, memory_order: str, shape: tuple[int, ...], seed: int
) -> None:
    dtype = np.dtype(byte_order + kind)
    draw = np.random.default_rng(seed)
    array = draw.integers(0, 2 if kind == "b1" else 256, shape).astype(dtype)
    array = np.asarray(array * draw.random(shape) if kind[0] == "f" else array, dtype)
    found = read(folder, saved(np.asarray(array, order=memory_order)))
    expected = array.astype(dtype.newbyteorder("="))
    assert found.shape == shape
    assert found.is_contiguous()
    assert found.numpy().dtype == expected.dtype
    assert found.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_versions(tmp_path: Path, version: tuple[int, int]) -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert read(tmp_path, saved(array, version=version)).tolist() == array.tolist()


def test_numbers_that_are_not_finite_are_the_caller_s_matter(tmp_path: Path) -> None:
    found = read(tmp_path, saved(np.array([np.nan, -np.inf])))
    assert found.isnan().tolist() == [True, False]


def file(header: str, content: bytes = b"\1\2", *, version: bytes = b"\1\0") -> bytes:
    text = header.encode("latin-1")
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + content


GOOD = "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize(
    "header",
    [
        GOOD,
        GOOD + "\n",
        GOOD.replace(", }", "}"),
        "{'shape':(2,),'fortran_order':False,'descr':'|u1'}",
        "{ 'fortran_order' : True , 'shape' : ( 2 , ) , 'descr' : '<u1' , } \n",
        GOOD.replace("(2,)", "(1, 2)"),
        GOOD.replace("(2,)", "(1,2,)"),
    ],
)
def test_headers_that_others_write(tmp_path: Path, header: str) -> None:
    assert read(tmp_path, file(header)).flatten().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not a .npy file: it begins with b''"),
        (b"PK\3\4" + bytes(40), "is not a .npy file"),
        (b"\x93NUMPX" + file(GOOD)[6:], "is not a .npy file"),
        (file(GOOD, version=b"\4\0"), "has the unknown version 04.00"),
        (file(GOOD, version=b"\1\1"), "has the unknown version 01.01"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff", "claims a header of 4,294,967,295 bytes"),
        (b"\x93NUMPY\1\0\xff\xff", "claims a header of 65,535 bytes"),
        (file(GOOD)[:30], "is cut off in its header"),
        (file(GOOD, b"\1"), "holds 1 bytes where its header promises 2"),
        (file(GOOD, b"\1\2\3"), "holds 3 bytes where its header promises 2"),
        (
            file(GOOD.replace("2,", "999999999999999999,")),
            "header promises 999,999,999,999,999,999",
        ),
        (file(GOOD.replace("2,", "9" * 20 + ",")), "a shape that cannot be read"),
        (file(GOOD.replace("(2,)", "(2)")), "a shape that cannot be read"),
        (file(GOOD.replace("(2,)", "(2,,)")), "a shape that cannot be read"),
        (file(GOOD.replace("(2,)", "(2 3,)")), "a shape that cannot be read"),
        (file(GOOD.replace("(2,)", "(-2,)")), "a header that cannot be read"),
        (file(GOOD.replace("(2,)", "(2L,)")), "a header that cannot be read"),
        (file(GOOD.replace("(2,)", "(0,)"), b""), r"has the shape \(0,\): no dimension may be 0"),
        (file(GOOD.replace("(2,)", f"({'1,' * 33})"), b"1"), "no more than 32 are read"),
        (file(GOOD.replace("'|u1'", "'|O'")), "holds '|O' where bool, integer or floating"),
        (file(GOOD.replace("'|u1'", "'<c8'")), "holds '<c8' where"),
        (file(GOOD.replace("'|u1'", "'<M8[ns]'")), "holds '<M8.*' where"),
        (file(GOOD.replace("'|u1'", "'u1'")), "holds 'u1' where"),
        (file(GOOD.replace("'|u1'", "[('a', '|u1')]")), "a header that cannot be read"),
        (file(GOOD.replace("'|u1'", "'|b1'")), "holds bool values other than 0 and 1"),
        (file(GOOD.replace("False", "0")), "a header that cannot be read"),
        (file(GOOD.replace("'shape': (2,), ", "")), "a header that cannot be read"),
        (file(GOOD.replace("descr", "shape")), "a header that cannot be read"),
        (file(GOOD.replace(", }", ", 'a': 1}")), "a header that cannot be read"),
        (file(GOOD + "x"), "a header that cannot be read"),
        (file("x" + GOOD), "a header that cannot be read"),
        (file(GOOD[:-1]), "a header that cannot be read"),
        (file("__import__('os').system('true')"), "a header that cannot be read"),
        (file("(" * 2000), "a header that cannot be read"),
        (saved(np.array([1, "a"], object)), "holds '|O'"),
        (saved(np.array(["a"])), "holds '<U1'"),
        (saved(np.zeros(1, [("a", "u1")])), "a header that cannot be read"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=rf"array\.npy .*{reason}"):
        read(tmp_path, content)


def test_a_file_that_is_packed_is_not_unpacked(tmp_path: Path) -> None:
    import gzip

    with pytest.raises(DataError, match=r"is not a \.npy file"):
        read(tmp_path, gzip.compress(file(GOOD)))


def test_a_file_that_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy, "take", lambda stream, n: take(stream, n)[: 8 if n == 9 else n])
    with pytest.raises(DataError, match=r"array\.npy became shorter while it was read"):
        read(tmp_path, file(GOOD.replace("(2,)", "(9,)"), bytes(9)))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere.npy"):
        with pytest.raises(DataError, match=r"cannot be read: .* Save the array again"):
            read_npy(path)


def check(folder: Path, content: bytes) -> None:
    """What is read is what numpy reads."""
    found = or_refused(lambda: read(folder, content))
    if found is not None:
        expected = np.load(io.BytesIO(content), allow_pickle=False)
        assert (
            found.numpy().tobytes() == expected.astype(expected.dtype.newbyteorder("=")).tobytes()
        )


@given(content=st.binary(max_size=60) | st.binary(max_size=60).map(b"\x93NUMPY\1\0".__add__))
def test_fuzz_any_bytes(folder: Path, content: bytes) -> None:
    check(folder, content)


TOKENS = ["{", "}", "'descr'", ":", "'<f4'", "'|u1'", ",", "'fortran_order'", "True", "False"]
TOKENS += ["'shape'", "(", ")", "2", "1", " ", "\n", "'", "L", "0"]


@given(tokens=st.lists(st.sampled_from(TOKENS), max_size=25).map("".join))
def test_fuzz_headers(folder: Path, tokens: str) -> None:
    or_refused(lambda: read(folder, file(tokens)))


@given(content=damaged(file(GOOD), saved(np.arange(6, dtype=">i4").reshape(2, 3, order="F"))))
def test_fuzz_a_damaged_file(folder: Path, content: bytes) -> None:
    or_refused(lambda: read(folder, content))

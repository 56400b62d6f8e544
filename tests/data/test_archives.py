"""Tar and zip archives against ``tarfile`` and ``zipfile`` as writers."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdfa.data.archives import tar_files, zip_file
from fdfa.data.reading import take
from fdfa.errors import DataError
from tests.data.fuzz import damaged, or_refused
from tests.data.writers import tar

MEMBERS = {"set/": b"", "set/a.bin": b"a" * 700, "set/empty": b"", "set/b": bytes(512)}
TAR = tar(MEMBERS, packed=False)
LIMIT = 20_000


def untar(content: bytes, *, limit: int = LIMIT) -> dict[str, bytes]:
    stream = io.BytesIO(content)
    return {
        name: bytes(take(part, 10_000))
        for name, part in tar_files(stream, place=Path("a.tar"), limit=limit)
    }


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_tarfile_writes(form: int) -> None:
    files = {name: content for name, content in MEMBERS.items() if not name.endswith("/")}
    assert untar(tar(MEMBERS, packed=False, form=form)) == files


def test_a_long_folder_is_joined() -> None:
    name = "/".join(["folder" * 5] * 4) + "/file"
    assert untar(tar({name: b"x"}, packed=False)) == {name: b"x"}


def test_files_need_not_be_read() -> None:
    stream = io.BytesIO(TAR)
    names = [name for name, _ in tar_files(stream, place=Path("a.tar"), limit=LIMIT)]
    assert names == ["set/a.bin", "set/empty", "set/b"]


def test_extended_headers_and_links_are_passed_over() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        link = tarfile.TarInfo("set/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        member = tarfile.TarInfo("set/a")
        member.size, member.pax_headers = 1, {"comment": "c" * 3000}
        archive.addfile(member, io.BytesIO(b"x"))
    assert untar(stream.getvalue()) == {"set/a": b"x"}


def test_the_limit_is_to_the_byte() -> None:
    assert untar(TAR, limit=len(TAR) + 1)
    with pytest.raises(DataError, match=rf"a\.tar unpacks to more than the {len(TAR):,} bytes"):
        untar(TAR, limit=len(TAR))


def size_claimed(size: bytes) -> bytes:
    """An archive whose first file claims a size, with a good checksum."""
    header = bytearray(tar({"a": b"abc"}, packed=False)[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(2048)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cut off: it has no end mark"),
        (TAR[:100], "cut off"),
        (TAR[:1000], "cut off"),
        (TAR[:2560], "cut off: it has no end mark"),
        (b"x" * 512, "is not a tar archive, or damaged: a header cannot be read"),
        (b"1" * 512, "is not a tar archive, or damaged: the checksum"),
        (b"\x80" + TAR[1:], "is not a tar archive, or damaged"),
        (TAR[:513] + b"x" + TAR[514:], "is not a tar archive, or damaged: the checksum"),
        (size_claimed(b"77777777777\0"), "cut off|more than"),
        (size_claimed(b"\x80" + bytes(10) + b"\3"), "a header cannot be read"),
        (size_claimed(b"-0000000001\0"), "a header cannot be read"),
    ],
)
def test_bad_archives(content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        untar(content)


@given(content=st.binary(max_size=2000) | damaged(TAR))
def test_fuzz_tar(content: bytes) -> None:
    or_refused(lambda: untar(content))


def zipped(members: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def unzip(folder: Path, content: bytes, name: str = "gzip/a") -> bytes:
    (folder / "a.zip").write_bytes(content)
    with zip_file(folder / "a.zip", name) as stream:
        return bytes(take(stream, 10_000))


ZIP = zipped({"gzip/a": b"abc" * 100, "gzip/b": b"other"})


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_what_zipfile_writes(tmp_path: Path, compression: int) -> None:
    content = zipped({"gzip/a": b"abc" * 100, "gzip/b": b"other"}, compression=compression)
    assert unzip(tmp_path, content) == b"abc" * 100
    assert unzip(tmp_path, content, "gzip/b") == b"other"


def directory_claimed(size: int) -> bytes:
    """A list of contents of a claimed size, in a zip of 64 bits, which zipfile believes first."""
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, size, 1)
    return bytes(size) + end + locator + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, 9, 0, 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"a\.zip cannot be read"),
        (b"PK\5\6" + bytes(30), r"a\.zip"),
        (ZIP[:-30], "cannot be read: "),
        (ZIP[:38] + b"\xff\xff" + ZIP[40:], "cannot be read"),
        (zipped({"a": b"abc"}), "has to hold the file gzip/a once"),
        (zipped({"gzip/a": b"a"}, compression=zipfile.ZIP_BZIP2), "neither stored nor deflated"),
        (zipped({"gzip/a": b"a"}, compression=zipfile.ZIP_LZMA), "neither stored nor deflated"),
        (directory_claimed(2**20 + 1), "its list of contents is said to take 1,048,577 bytes"),
    ],
)
def test_bad_zips(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        unzip(tmp_path, content)


def test_a_name_that_is_there_twice(tmp_path: Path) -> None:
    content = zipped({"gzip/a": b"1", "gzip/b": b"2"}).replace(b"gzip/b", b"gzip/a")
    with pytest.raises(DataError, match="has to hold the file gzip/a once"):
        unzip(tmp_path, content)


def test_an_encrypted_zip(tmp_path: Path) -> None:
    content = bytearray(ZIP)
    content[6] |= 1
    content[ZIP.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(DataError, match="encrypted"):
        unzip(tmp_path, bytes(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(content=st.binary(max_size=100) | damaged(ZIP, zipped({"gzip/a": b"abc" * 100})))
def test_fuzz_zip(folder: Path, content: bytes) -> None:
    or_refused(lambda: unzip(folder, content))

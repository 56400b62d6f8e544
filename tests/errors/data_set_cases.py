"""The data sets with official files: missing, damaged, hostile, or a lie."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fdfa.data
from fdfa.data.cifar import load_cifar10, load_cifar100
from fdfa.data.emnist import load_emnist
from fdfa.data.mnist import load_fashion_mnist, load_mnist
from fdfa.data.svhn import load_svhn
from fdfa.errors import ConfigError, DataError
from tests.data.cifar_files import BATCH, COUNTS, binary10, python10, unpacked
from tests.data.idx_files import idx, write_mnist
from tests.data.writers import (
    MAT_HEADER,
    mat,
    mat_array,
    mat_element,
    mat_packed,
    pictures,
    python2_pickle,
    tar,
    write,
)
from tests.errors.provoke import Case, Here

__all__ = ["DATA_SET_CASES"]

Change = Callable[[bytes], bytes]


def _mnist(name: str, file: str, change: Change) -> Case:
    """One of the four files is changed."""

    def run(here: Here) -> None:
        write_mnist(here.folder)
        path = here.folder / file
        path.write_bytes(change(path.read_bytes()))
        load_mnist(here.folder, validation=0, examples=(12, 5))

    return Case(f"mnist: {name}", DataError, run)


def _mnist_without(here: Here) -> None:
    write_mnist(here.folder)
    (here.folder / LABELS).unlink()
    (here.folder / "t10k-images-idx3-ubyte").unlink()
    load_fashion_mnist(here.folder, validation=0, examples=(12, 5))


def _labels_of_another(here: Here) -> None:
    """Known by their checksum."""
    write_mnist(here.folder)
    here.patch.setattr("fdfa.data.mnist.sha256", lambda labels: "1feba77c54802fa5")
    load_fashion_mnist(here.folder, validation=0, examples=(12, 5))


def _folder_for_a_file(here: Here) -> None:
    write_mnist(here.folder)
    (here.folder / LABELS).unlink()
    (here.folder / LABELS).mkdir()
    load_mnist(here.folder, validation=0, examples=(12, 5))


LABELS, IMAGES = "train-labels-idx1-ubyte", "train-images-idx3-ubyte"
MNIST = [
    Case("fashion-mnist: files are missing", DataError, _mnist_without),
    Case("fashion-mnist: labels of another set", DataError, _labels_of_another),
    Case("mnist: a folder in place of a file", DataError, _folder_for_a_file),
    _mnist("cut off in the type", LABELS, lambda content: content[:3]),
    _mnist("cut off in the sizes", IMAGES, lambda content: content[:10]),
    _mnist("no such file", LABELS, lambda content: b"\x89PNG\r\n\x1a\n"),
    _mnist("other numbers", LABELS, lambda content: content[:2] + b"\x0d" + content[3:]),
    _mnist("numbers of an unknown type", LABELS, lambda content: b"\0\0\7" + content[3:]),
    _mnist("labels for pictures", IMAGES, lambda content: idx(np.zeros(12, np.uint8))),
    _mnist("other sizes", LABELS, lambda content: idx(np.zeros(9, np.uint8))),
    _mnist("a value too few", LABELS, lambda content: content[:-1]),
    _mnist("a byte too many", LABELS, lambda content: content + b"x"),
    _mnist("a label that is none", LABELS, lambda content: content[:-1] + b"\x0a"),
    _mnist("a damaged archive", LABELS, lambda content: gzip.compress(content)[:-9]),
]


def _emnist(name: str, archive: bytes | None = None, *, error: type[Exception] = DataError) -> Case:
    def run(here: Here) -> None:
        if archive is not None:
            (here.folder / "gzip.zip").write_bytes(archive)
        split = "leters" if error is ConfigError else "letters"
        load_emnist(here.folder, validation=0, split=split, examples=(3, 2))

    return Case(f"emnist: {name}", error, run)


def _zip(*names: str, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name in names:
            archive.writestr(name, b"content")
    return stream.getvalue()


def _contents_of_size(size: int) -> bytes:
    """A zip, of 64 bits, that claims a list of contents of this size."""
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, size, 1)
    return bytes(size) + end + locator + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1, 1, 9, 0, 0)


MEMBER = "gzip/emnist-letters-train-labels-idx1-ubyte.gz"
EMNIST = [
    _emnist("an unknown split", error=ConfigError),
    _emnist("nothing there"),
    _emnist("no zip", b"no zip at all"),
    _emnist("a list of contents that is too long", _contents_of_size(2**20 + 1)),
    _emnist("a file is missing", _zip("gzip/other")),
    _emnist("a file packed in another way", _zip(MEMBER, compression=zipfile.ZIP_BZIP2)),
    _emnist("a file that is not gzipped", _zip(MEMBER)),
]


def _cifar(name: str, files: Callable[[], dict[str, bytes]]) -> Case:
    return Case(
        f"cifar10: {name}",
        DataError,
        lambda here: load_cifar10(write(here.folder, files()), validation=0, examples=COUNTS),
    )


def _archive(name: str, change: Change = bytes, *, members: dict[str, bytes] | None = None) -> Case:
    """The archive of the binary form: unpacked, changed, and packed again."""
    folder = "cifar-10-batches-bin"
    held = unpacked(binary10() if members is None else members, folder, "")
    held[f"{folder}/readme.html"] = bytes(2000)
    return _cifar(
        f"archive: {name}",
        lambda: {"cifar-10-binary.tar.gz": gzip.compress(change(tar(held, packed=False)), 1)},
    )


def _with_a_member_twice(content: bytes) -> bytes:
    stream = io.BytesIO(content)
    with tarfile.open(fileobj=stream, mode="a") as archive:
        archive.addfile(tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin"), io.BytesIO())
    return stream.getvalue()


def _python(name: str, batch: bytes | dict[str, object]) -> Case:
    """One batch of the python form is another."""

    def files() -> dict[str, bytes]:
        good = {"data": pictures(BATCH).reshape(BATCH, 3072), "labels": [1] * BATCH}
        content = batch if isinstance(batch, bytes) else python2_pickle({**good, **batch})
        return python10() | {"data_batch_3": content}

    return _cifar(f"pickle: {name}", files)


def _larger_than_it_is() -> dict[str, bytes]:
    good, content = python10()["data_batch_1"], pictures(BATCH, seed=0).tobytes()
    head = b"T" + len(content).to_bytes(4, "little")
    return python10() | {
        "data_batch_1": good.replace(head + content, b"T\xe8\3\0\0" + content[:1000])
    }


CIFAR = [
    _cifar("nothing there", dict),
    _cifar("a batch is missing", lambda: {k: v for k, v in binary10().items() if k[:4] == "data"}),
    _cifar("a batch is cut off", lambda: binary10() | {"data_batch_2.bin": b"x" * 3073}),
    Case(
        "cifar100: an unknown kind of label",
        ConfigError,
        lambda here: load_cifar100(here.folder, validation=0, labels="corse"),
    ),
    _archive("a batch twice", _with_a_member_twice),
    _archive("a batch is missing", members=dict(list(binary10().items())[:-1])),
    _archive("a batch cut off", lambda content: content[: content.rindex(b"cifar") - 1024]),
    _archive("cut off between two files", lambda content: content[: content.rindex(b"cifar")]),
    _archive("another file cut off", lambda content: content[: content.rindex(b"cifar") + 1024]),
    _archive("longer than it may be", lambda content: content + bytes(2**21)),
    _archive("a file longer than it may be", lambda content: _claiming(content, "77777777777")),
    _archive("no number in a header", lambda content: _claiming(content, "99999999999")),
    _archive("no tar at all", lambda content: b"no tar at all".ljust(1024, b"x")),
    _archive("another checksum", lambda content: b"X" + content[1:]),
    _python("longer than it may be", bytes(20_000)),
    _python("too many steps", b"N" * 2000),
    _python("something after its end", python2_pickle({}) + b"x"),
    _python("nothing in it", b"."),
    _python("cut off", python2_pickle({"labels": [1]})[:-1]),
    _python("an empty stack", b"a."),
    _python("an opcode that is not needed", b"J\1\0\0\0\x85Q."),
    _python("a list that is none", b"}K\1a."),
    _python("a dict that is none", b"]U\1aK\1s."),
    _python("a key that is no text", b"}K\1K\1s."),
    _python("a call of the system", b"cos\nsystem\n(U\x04truetR."),
    _python("another call", b"cnumpy\ndtype\n(U\x02f8K\0K\1tR."),
    _python("another array", b"cnumpy\ndtype\n(U\x02u1K\0K\1tRcnumpy\ndtype\nK\1b."),
    _python("no dict", python2_pickle([1])),
    _python("no array", {"data": [1]}),
    _python("an array of another shape", {"data": pictures(2).reshape(2, 3072)}),
    _cifar("pickle: an array larger than it is", _larger_than_it_is),
    _python("no list", {"labels": (1, 1, 1)}),
    _python("a label too few", {"labels": [1, 1]}),
    _python("a label that is no number", {"labels": [1, 1, "1"]}),
]


def _claiming(content: bytes, size: str) -> bytes:
    """The first member claims a size, with the right checksum."""
    header = bytearray(content[:512])
    header[124:136] = f"{size}\0".encode()
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content[512:]


Y = np.array([[1], [2], [3], [4], [5]], np.uint8)


def _svhn(name: str, content: bytes, *, examples: int = 5) -> Case:
    def run(here: Here) -> None:
        write(here.folder, {"train_32x32.mat": content, "test_32x32.mat": b""})
        load_svhn(here.folder, validation=0, examples=(examples, 5))

    return Case(f"svhn: {name}", DataError, run)


def _part(*parts: bytes) -> bytes:
    """An array of these parts, at the start of a file."""
    content = b"".join(parts)
    return MAT_HEADER + struct.pack("<II", 14, len(content)) + content


FLAGS = mat_element(6, struct.pack("<II", 9, 0))
DIMENSIONS = mat_element(5, struct.pack("<ii", 5, 1))
NAME, VALUES = mat_element(1, b"y"), mat_element(2, Y.tobytes())
SVHN = [
    Case("svhn: nothing there", DataError, lambda here: load_svhn(here.folder, validation=0)),
    _svhn("no such file", b"PK\3\4 a spreadsheet"),
    _svhn("cut off in the header", MAT_HEADER[:100]),
    _svhn("the other order of bytes", MAT_HEADER[:124] + b"\1\0MI"),
    _svhn("an array twice", mat(y=Y) + mat(y=Y)[128:]),
    _svhn("an array is missing", mat(y=Y)),
    _svhn("something behind an array", MAT_HEADER + mat_packed(mat_array("y", Y) + b"x")),
    _svhn("cut off between two arrays", mat(y=Y) + b"\x0e\0\0\0"),
    _svhn("no array", MAT_HEADER + struct.pack("<II", 9, 8) + bytes(8)),
    _svhn("another class", MAT_HEADER + mat_array("y", Y, kind=10)),
    _svhn("another array", mat(z=Y)),
    _svhn("dimensions of half a number", _part(FLAGS, mat_element(5, b"\5\0\0\0\1\0"), NAME)),
    _svhn("another shape", mat(y=Y[:3])),
    _svhn("fewer values than it claims", _part(FLAGS, DIMENSIONS, NAME, mat_element(2, b"\1\2"))),
    _svhn("parts in another order", _part(DIMENSIONS, FLAGS, NAME, VALUES)),
    _svhn("a part larger than it may be", _part(mat_element(6, bytes(16)), DIMENSIONS)),
    _svhn("a part that is cut off", _part(FLAGS)[:-4]),
    _svhn("a deflated array that is cut off", mat(y=Y)[:-12]),
    _svhn("a label that is none", mat(y=Y * 0, X=np.zeros((32, 32, 3, 5), np.uint8))),
]


def _digits(here: Here) -> None:
    """An installation whose file is another one."""
    (here.folder / "digits.safetensors").write_bytes(b"damaged")
    here.patch.setattr("fdfa.data.digits.files", lambda package: Path(here.folder))
    fdfa.data.load("digits")


DIGITS = [
    Case("digits: a damaged installation", DataError, _digits),
    Case(
        "digits: validation that is no number",
        ConfigError,
        lambda here: fdfa.data.load("digits", validation="200"),
    ),
    Case(
        "digits: validation of everything",
        ConfigError,
        lambda here: fdfa.data.load("digits", validation=1497),
    ),
]

DATA_SET_CASES = [*DIGITS, *MNIST, *EMNIST, *CIFAR, *SVHN]

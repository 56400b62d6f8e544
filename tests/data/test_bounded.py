"""Files of a few kilobytes that would fill the memory: each is refused, and takes next to none."""

from __future__ import annotations

import gzip
import io
import os
import resource
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fdfa.data.cifar import load_cifar10, load_cifar100
from fdfa.data.emnist import load_emnist
from fdfa.data.imagefolder import load_imagefolder
from fdfa.data.svhn import load_svhn
from fdfa.data.tensors import load_tensors
from fdfa.errors import DataError
from tests.data.idx_files import idx
from tests.data.picture_folders import encoded, picture
from tests.data.test_imagefolder_damaged import png
from tests.data.writers import MAT_HEADER, mat_element, write, zeros_gzipped

HUGE = 2**31
MIB = 2**20
FEW = (5, 1)
Load = Callable[[], object]


def emnist(folder: Path, **files: bytes) -> Load:
    count = np.zeros(FEW[0], np.uint8)
    write(folder, {"emnist-mnist-train-labels-idx1-ubyte": idx(count)})
    write(folder, {name.replace("_", "-"): content for name, content in files.items()})
    return partial(load_emnist, folder, validation=0, split="mnist", examples=FEW)


def packed_idx() -> bytes:
    header = idx(np.zeros((0, 28, 28), np.uint8), shape=(FEW[0], 28, 28))
    return gzip.compress(header) + zeros_gzipped(HUGE)


def idx_that_never_ends(folder: Path) -> Load:
    return emnist(folder, emnist_mnist_train_images_idx3_ubyte=packed_idx())


def zip_in_which_nothing_ends(folder: Path) -> Load:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("gzip/emnist-mnist-train-images-idx3-ubyte.gz", packed_idx())
    write(folder, {"gzip.zip": stream.getvalue()})
    return emnist(folder)


def a_sparse_file(folder: Path) -> Load:
    load = emnist(folder, emnist_mnist_train_images_idx3_ubyte=idx(np.zeros((5, 28, 28), np.uint8)))
    os.truncate(folder / "emnist-mnist-train-images-idx3-ubyte", HUGE)
    return load


def cifar_batch_that_never_ends(folder: Path) -> Load:
    write(folder, {"data_batch_1.bin.gz": zeros_gzipped(HUGE)})
    return partial(load_cifar10, folder, validation=0, examples=FEW)


def cifar_archive(folder: Path, header: bytes) -> Load:
    write(folder, {"cifar-10-binary.tar.gz": gzip.compress(header) + zeros_gzipped(HUGE)})
    return partial(load_cifar10, folder, validation=0, examples=FEW)


def tar_header(name: str, kind: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = HUGE, kind
    return member.tobuf(tarfile.USTAR_FORMAT)


def member_that_never_ends(folder: Path) -> Load:
    return cifar_archive(
        folder, tar_header("cifar-10-batches-bin/data_batch_1.bin", tarfile.REGTYPE)
    )


def member_that_nobody_wants(folder: Path) -> Load:
    return cifar_archive(folder, tar_header("readme.html", tarfile.REGTYPE))


def extended_header_that_never_ends(folder: Path) -> Load:
    return cifar_archive(folder, tar_header("x", tarfile.XHDTYPE))


def long_name_that_never_ends(folder: Path) -> Load:
    return cifar_archive(folder, tar_header("x", tarfile.GNUTYPE_LONGNAME))


def archive_that_goes_on_behind_its_end(folder: Path) -> Load:
    return cifar_archive(folder, b"")


def pickled_string_that_never_ends(folder: Path) -> Load:
    start = gzip.compress(b"\x80\x02}U\x04dataT" + struct.pack("<i", 2**31 - 1))
    write(folder, {"train.gz": start + zeros_gzipped(HUGE)})
    return partial(load_cifar100, folder, validation=0, examples=FEW)


def svhn(folder: Path, inside: bytes, *, zeros: int = HUGE) -> Load:
    packer = zlib.compressobj(1)
    start = packer.compress(inside) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    content = start + piece * (zeros // 2**24)
    element = struct.pack("<II", 15, len(content)) + content
    write(folder, {"train_32x32.mat": MAT_HEADER + element, "test_32x32.mat": b""})
    return partial(load_svhn, folder, validation=0, examples=FEW)


def array_start(dimensions: tuple[int, ...], name: bytes) -> bytes:
    inside = mat_element(6, struct.pack("<II", 9, 0))
    inside += mat_element(5, struct.pack(f"<{len(dimensions)}i", *dimensions), small=False)
    return inside + mat_element(1, name)


def array_that_never_ends(folder: Path) -> Load:
    inside = array_start((32, 32, 3, 5), b"X") + struct.pack("<II", 2, 32 * 32 * 3 * 5)
    return svhn(folder, struct.pack("<II", 14, HUGE) + inside)


def array_of_gigabytes(folder: Path) -> Load:
    inside = array_start((32, 32, 3, 700_000), b"X") + struct.pack("<II", 2, 2**31)
    return svhn(folder, struct.pack("<II", 14, HUGE) + inside)


def values_of_gigabytes(folder: Path) -> Load:
    inside = array_start((32, 32, 3, 5), b"X") + struct.pack("<II", 2, 2**31)
    return svhn(folder, struct.pack("<II", 14, HUGE) + inside)


def name_of_gigabytes(folder: Path) -> Load:
    inside = mat_element(6, struct.pack("<II", 9, 0))
    inside += mat_element(5, bytes(16), small=False) + struct.pack("<II", 1, 2**31)
    return svhn(folder, struct.pack("<II", 14, HUGE) + inside)


def npy(shape: str, size: int, folder: Path) -> Load:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
    write(folder, {"train_inputs.npy": content})
    os.truncate(folder / "train_inputs.npy", len(content) + size)
    return partial(load_tensors, folder, validation=0)


def npy_that_lies(folder: Path) -> Load:
    return npy(f"({2**40}, 3)", 10, folder)


def npy_with_more_than_it_says(folder: Path) -> Load:
    return npy("(3,)", HUGE, folder)


def npy_larger_than_the_memory(folder: Path) -> Load:
    return npy(f"({2**42}, 1)", 2**42, folder)


def safetensors_that_lies(folder: Path) -> Load:
    header = f'{{"train_inputs":{{"dtype":"U8","shape":[{HUGE}],"data_offsets":[0,{HUGE}]}}}}'
    content = struct.pack("<Q", len(header)) + header.encode()
    write(folder, {"own.safetensors": content + bytes(100)})
    return partial(load_tensors, folder, validation=0)


def safetensors_header_that_lies(folder: Path) -> Load:
    write(folder, {"own.safetensors": struct.pack("<Q", 2**62) + bytes(100)})
    return partial(load_tensors, folder, validation=0)


def black_picture(folder: Path, side: int) -> Load:
    # One bit a pixel in the file, one byte in memory.
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    content = png(side, side, rows=rows)
    write(folder, {f"{part}/a/0.png": content for part in ("train", "test")})
    return partial(load_imagefolder, folder, validation=0, size=8)


def picture_of_gigabytes(folder: Path) -> Load:
    return black_picture(folder, 30_000)


def picture_of_a_hundred_megabytes(folder: Path) -> Load:
    return black_picture(folder, 12_000)


def annotations_of_gigabytes(folder: Path) -> Load:
    write(folder, {f"{part}/0.png": encoded(picture(0)) for part in ("train/a", "val/images")})
    write(folder, {"val/val_annotations.txt": b""})
    os.truncate(folder / "val" / "val_annotations.txt", HUGE)
    return partial(load_imagefolder, folder, validation=0)


BOMBS: dict[Callable[[Path], Load], str] = {
    idx_that_never_ends: r"goes on after the 3,920 values",
    zip_in_which_nothing_ends: r"zip \(.*\) goes on after the 3,920",
    a_sparse_file: r"goes on after the 3,920 values",
    cifar_batch_that_never_ends: r"goes on after the 3,073 bytes",
    member_that_never_ends: r"goes on after the 3,073 bytes",
    member_that_nobody_wants: r"unpacks to more than",
    extended_header_that_never_ends: r"unpacks to more than",
    long_name_that_never_ends: r"unpacks to more than",
    archive_that_goes_on_behind_its_end: r"unpacks to more than",
    pickled_string_that_never_ends: r"goes on after the 20,096 bytes",
    array_that_never_ends: r"does not hold the 15,360 values",
    array_of_gigabytes: r"claims the shape",
    values_of_gigabytes: r"claims 2,147,483,648 bytes",
    name_of_gigabytes: r"claims 2,147,483,648 bytes",
    npy_that_lies: r"holds 10 bytes where its header promises 3,298,534,883,328",
    npy_with_more_than_it_says: r"holds 2,147,483,648 bytes where its header promises 3",
    npy_larger_than_the_memory: r"more than the .* bytes of memory",
    safetensors_that_lies: r"cannot be read",
    safetensors_header_that_lies: r"cannot be read: .* header too large",
    picture_of_gigabytes: r"exceeds limit",
    picture_of_a_hundred_megabytes: r"claims 12000 x 12000 pixels",
    annotations_of_gigabytes: r"is longer than 1,024 bytes",
}


@pytest.mark.parametrize(("bomb", "reason"), BOMBS.items())
def test_no_memory_is_taken(tmp_path: Path, bomb: Callable[[Path], Load], reason: str) -> None:
    load = bomb(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=reason):
            load()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_the_system_sees_none_either(tmp_path: Path, bomb: Callable[[Path], Load]) -> None:
    # In a process of its own, whose peak the system keeps: what Pillow and torch take counts too.
    code = (
        f"from tests.data.test_bounded import *; measure({bomb.__name__}, Path({str(tmp_path)!r}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert int(run.stdout) < 30 * MIB


def measure(bomb: Callable[[Path], Load], folder: Path) -> None:
    """Prints by how many bytes loading a bomb raises the peak of this process's memory."""
    load = bomb(folder)
    import PIL.Image  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        load()
    except DataError:
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)

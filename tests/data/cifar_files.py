"""CIFAR with a few pictures in every form in which it is given out."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fdfa.data.cifar import load_cifar10, load_cifar100
from fdfa.data.dataset import Dataset
from tests.data.writers import cifar_batch, labels, pictures, tar

BATCH, TEST = 3, 4
COUNTS = (5 * BATCH, TEST)
Files = dict[str, bytes]


def binary(images: np.ndarray, *columns: np.ndarray) -> bytes:
    return np.column_stack([*columns, images.reshape(len(images), 3072)]).tobytes()


def batches10() -> list[tuple[str, np.ndarray, np.ndarray]]:
    names = [f"data_batch_{batch}" for batch in range(1, 6)] + ["test_batch"]
    counts = [BATCH] * 5 + [TEST]
    return [
        (name, pictures(count, seed=seed), labels(count, classes=10, seed=seed))
        for seed, (name, count) in enumerate(zip(names, counts, strict=True))
    ]


def binary10() -> Files:
    return {f"{name}.bin": binary(images, numbers) for name, images, numbers in batches10()}


def python10() -> Files:
    return {name: cifar_batch(images, labels=numbers) for name, images, numbers in batches10()}


def batches100() -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    return [
        (
            name,
            pictures(count, seed=seed),
            labels(count, classes=20, seed=seed),
            labels(count, classes=100, seed=seed),
        )
        for seed, (name, count) in enumerate((("train", COUNTS[0]), ("test", TEST)))
    ]


def binary100() -> Files:
    return {f"{name}.bin": binary(images, *numbers) for name, images, *numbers in batches100()}


def python100() -> Files:
    return {
        name: cifar_batch(images, coarse_labels=coarse, fine_labels=fine)
        for name, images, coarse, fine in batches100()
    }


# What is written, its folder in an archive, and the archive's name.
LAYOUTS: dict[str, tuple[Callable[[], Files], str, str]] = {
    "binary 10": (binary10, "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    "python 10": (python10, "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    "binary 100": (binary100, "cifar-100-binary", "cifar-100-binary.tar.gz"),
    "python 100": (python100, "cifar-100-python", "cifar-100-python.tar.gz"),
}


def loose(files: Files, folder: str, archive: str) -> Files:
    return files


def packed(files: Files, folder: str, archive: str) -> Files:
    return {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}


def unpacked(files: Files, folder: str, archive: str) -> Files:
    return {f"{folder}/{name}": content for name, content in files.items()}


def archived(files: Files, folder: str, archive: str) -> Files:
    # Members of an archive come in any order, among others.
    members = {f"{folder}/": b"", f"{folder}/readme.html": b"<html>"}
    members |= {f"{folder}/{name}": content for name, content in reversed(files.items())}
    return {archive: tar(members, form=tarfile.GNU_FORMAT)}


PLACES = [loose, packed, unpacked, archived]


def load(folder: Path, layout: str, **options: object) -> Dataset:
    loader = load_cifar100 if "100" in layout else load_cifar10
    return loader(folder, **{"validation": 0, "examples": COUNTS} | options)

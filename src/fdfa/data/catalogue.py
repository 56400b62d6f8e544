"""Every data set that is known by name: one record each."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from fdfa.data.cifar import load_cifar10, load_cifar100
from fdfa.data.dataset import Dataset
from fdfa.data.digits import load_digits
from fdfa.data.emnist import load_emnist
from fdfa.data.imagefolder import load_imagefolder
from fdfa.data.mnist import load_fashion_mnist, load_mnist
from fdfa.data.official import OfficialFile, official_files
from fdfa.data.svhn import load_svhn
from fdfa.data.tensors import load_tensors
from fdfa.data.tiny_imagenet import FOLDER, load_tiny_imagenet

__all__ = ["CATALOGUE", "DataSource"]

# What a loader is told by `load`, and what only tests change; the rest are options.
_NOT_OPTIONS = frozenset({"folder", "validation", "examples"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource:
    """What there is to know of a data set before reading it.

    Attributes:
        name: for :func:`fdfa.data.load` and the command line; also of its folder.
        summary: one line.
        classes: how many, with options at their defaults; None where the files decide.
        shape: of one input; None where the files decide.
        examples: how many there are for training and for the test; None where the files decide.
        validation: how many training examples are set apart unless the caller says otherwise.
        licence: what is known of it.
        source: paper or site.
        loader: reads it out of a folder (the digits need none).
        traces: patterns of what lies in a folder that holds it; none for the digits.
        aliases: other names of its folder.
        unpacked: the folder that its archive has to be unpacked into; None where archives are read
            as they are.
    """

    name: str
    summary: str
    classes: int | None
    shape: tuple[int, ...] | None
    examples: tuple[int, int] | None
    validation: int
    licence: str
    source: str
    loader: Callable[..., Dataset]
    traces: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    unpacked: str | None = None

    @property
    def files(self) -> tuple[OfficialFile, ...]:
        """The official files; none where nothing can be downloaded."""
        return official_files(self.name)

    @property
    def folder_names(self) -> tuple[str, ...]:
        """How a folder with the files may be called, that of new folders in front."""
        return (self.name, *self.aliases)

    def options(self) -> dict[str, Any]:
        """What the loader takes besides folder and validation.

        Returns:
            Option to default.

        Example:
            >>> import fdfa.data
            >>> fdfa.data.describe("cifar100").options()
            {'labels': 'fine'}
        """
        parameters = inspect.signature(self.loader).parameters.values()
        return {p.name: p.default for p in parameters if p.name not in _NOT_OPTIONS}


_IDX_FILES = tuple(
    f"{part}-{kind}-ubyte{packed}"
    for part in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
    for packed in ("", ".gz")
)

CATALOGUE = (
    DataSource(
        name="digits",
        summary="handwritten digits of 8 x 8 pixels, shipped with fdfa",
        classes=10,
        shape=(1, 8, 8),
        examples=(1_497, 300),
        validation=200,
        licence="CC BY 4.0",
        source="Alpaydin & Kaynak 1998, UCI Machine Learning Repository",
        loader=load_digits,
    ),
    DataSource(
        name="mnist",
        summary="handwritten digits",
        classes=10,
        shape=(1, 28, 28),
        examples=(60_000, 10_000),
        validation=5_000,
        licence="CC BY-SA 3.0",
        source="LeCun, Bottou, Bengio & Haffner 1998",
        loader=load_mnist,
        traces=_IDX_FILES,
        aliases=("MNIST/raw",),
    ),
    DataSource(
        name="fashion-mnist",
        summary="clothes, shoes and bags",
        classes=10,
        shape=(1, 28, 28),
        examples=(60_000, 10_000),
        validation=5_000,
        licence="MIT",
        source="Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747",
        loader=load_fashion_mnist,
        traces=_IDX_FILES,
        aliases=("FashionMNIST/raw",),
    ),
    DataSource(
        name="emnist",
        summary="handwritten letters and digits, in six splits",
        classes=47,
        shape=(1, 28, 28),
        examples=(112_800, 18_800),
        validation=10_000,
        licence="not stated by its makers",
        source="Cohen, Afshar, Tapson & van Schaik 2017, arXiv:1702.05373",
        loader=load_emnist,
        traces=("gzip.zip", "emnist-*-ubyte", "emnist-*-ubyte.gz", "gzip/emnist-*-ubyte*"),
        aliases=("EMNIST/raw",),
    ),
    DataSource(
        name="cifar10",
        summary="animals and vehicles in colour",
        classes=10,
        shape=(3, 32, 32),
        examples=(50_000, 10_000),
        validation=5_000,
        licence="not stated by its makers",
        source="Krizhevsky 2009",
        loader=load_cifar10,
        traces=(
            "cifar-10-batches-bin",
            "cifar-10-batches-py",
            "cifar-10-binary.tar.gz",
            "cifar-10-python.tar.gz",
            "data_batch_[1-5]*",
        ),
        aliases=("cifar-10",),
    ),
    DataSource(
        name="cifar100",
        summary="a hundred kinds of things in colour, in twenty groups",
        classes=100,
        shape=(3, 32, 32),
        examples=(50_000, 10_000),
        validation=5_000,
        licence="not stated by its makers",
        source="Krizhevsky 2009",
        loader=load_cifar100,
        traces=(
            "cifar-100-binary",
            "cifar-100-python",
            "cifar-100-binary.tar.gz",
            "cifar-100-python.tar.gz",
            "train.bin",
            "test.bin",
            "meta",  # and not train and test, which any folder may hold
        ),
        aliases=("cifar-100",),
    ),
    DataSource(
        name="svhn",
        summary="digits of house numbers in street views, in colour",
        classes=10,
        shape=(3, 32, 32),
        examples=(73_257, 26_032),
        validation=5_000,
        licence="for non-commercial use only",
        source="Netzer, Wang, Coates, Bissacco, Wu & Ng 2011",
        loader=load_svhn,
        traces=("train_32x32.mat", "test_32x32.mat"),
        aliases=("SVHN",),
    ),
    DataSource(
        name="tiny-imagenet",
        summary="200 kinds of things and animals in colour",
        classes=200,
        shape=(3, 64, 64),
        examples=(100_000, 10_000),
        validation=5_000,
        licence="ImageNet's terms: for non-commercial research and teaching",
        source="Le & Yang 2015, Stanford CS231N",
        loader=load_tiny_imagenet,
        traces=(FOLDER, f"{FOLDER}.zip", "val/val_annotations.txt"),
        aliases=(FOLDER,),
        unpacked=FOLDER,
    ),
    DataSource(
        name="imagefolder",
        summary="pictures of your own, in train/CLASS/ and test/CLASS/",
        classes=None,
        shape=None,
        examples=None,
        validation=0,
        licence="yours",
        source="yours",
        loader=load_imagefolder,
        traces=("train",),
    ),
    DataSource(
        name="tensors",
        summary="arrays of your own, as .npy files or one .safetensors file",
        classes=None,
        shape=None,
        examples=None,
        validation=0,
        licence="yours",
        source="yours",
        loader=load_tensors,
        traces=("train_inputs.npy", "*.safetensors"),
    ),
)

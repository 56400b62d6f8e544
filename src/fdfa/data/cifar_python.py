"""A batch of CIFAR in its python form: a pickled dict of an array and lists, never unpickled."""

from __future__ import annotations

import torch
from torch import Tensor

from fdfa.data.pickled import PickledArray, read_pickle
from fdfa.data.reading import Stream, refuse, take

__all__ = ["read_python_batch"]

PICTURE = (3, 32, 32)
PIXELS = 3 * 32 * 32
# What a picture may take beside its pixels: two labels, its file's name. Official files: 33 bytes.
BESIDE = 128
# An official picture takes up to 4 steps of the pickle machine: two labels, its name, a memo of it.
STEPS = 8


def read_python_batch(
    stream: Stream, *, place: str, examples: int, key: str
) -> tuple[Tensor, Tensor]:
    r"""Reads a batch.

    Args:
        stream: its content.
        place: the file, for the text of an error.
        examples: how many pictures it has to hold.
        key: which list of labels to take: ``labels``, ``fine_labels`` or ``coarse_labels``.

    Returns:
        Pictures, uint8 of shape (N, 3, 32, 32), and labels, int64 of shape (N,).

    Raises:
        DataError: if it is cut off, goes on too long, is not such a pickle, or asks for anything
            but the dict, lists, numbers and the one array that it has to consist of.

    Example:
        >>> import io
        >>> hostile = io.BytesIO(b"cos\nsystem\n.")
        >>> read_python_batch(hostile, place="test", examples=1, key="labels")
        Traceback (most recent call last):
        fdfa.errors.DataError: test is refused: its pickle asks for 'os.system'. Remove ...
    """
    limit = examples * (PIXELS + BESIDE) + 4096
    content = bytes(take(stream, limit + 1))
    if len(content) > limit:
        refuse(place, f"goes on after the {limit:,} bytes that it may hold")
    batch = read_pickle(content, place=place, steps=STEPS * examples + 1000)
    del content  # as large as the array
    if not isinstance(batch, dict):
        refuse(place, "holds no dict")
    return _pictures(batch.get("data"), place, examples), _labels(batch, key, place, examples)


def _pictures(array: object, place: str, examples: int) -> Tensor:
    """The pixels, whose rows are the red, the green and the blue plane."""
    if not isinstance(array, PickledArray):
        refuse(place, "holds no array 'data'")
    if array.shape != (examples, PIXELS):
        refuse(place, f"holds 'data' of a shape other than {(examples, PIXELS)}")
    if len(array.content) != examples * PIXELS:
        refuse(place, f"holds {len(array.content):,} of {examples * PIXELS:,} bytes of 'data'")
    values = bytearray(array.content, "latin-1")
    return torch.frombuffer(values, dtype=torch.uint8).reshape(examples, *PICTURE)


def _labels(batch: dict[str, object], key: str, place: str, examples: int) -> Tensor:
    """A list of labels."""
    labels = batch.get(key)
    if not isinstance(labels, list):
        refuse(place, f"holds no list {key!r}")
    if len(labels) != examples:
        refuse(place, f"holds {len(labels):,} entries in {key!r} where {examples:,} are expected")
    # Two bytes at most: what torch cannot hold is no label either.
    if not all(type(label) is int and 0 <= label < 2**16 for label in labels):
        refuse(place, f"holds something in {key!r} that is no label")
    return torch.tensor(labels)

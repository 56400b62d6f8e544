"""A batch of CIFAR in its binary form: records of one or two label bytes and 3,072 of pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from fdfa.data.reading import Stream, take_all

__all__ = ["read_binary_batch"]

PICTURE = (3, 32, 32)
PIXELS = 3 * 32 * 32


def read_binary_batch(
    stream: Stream, *, place: str, examples: int, labels: int, column: int
) -> tuple[Tensor, Tensor]:
    """Reads a batch.

    Args:
        stream: its content.
        place: the file, for the text of an error.
        examples: how many records it has to hold.
        labels: how many label bytes a record begins with.
        column: which of them to take.

    Returns:
        Pictures, uint8 of shape (N, 3, 32, 32), and labels, uint8 of shape (N,).

    Raises:
        DataError: if it is cut off or goes on too long.

    Example:
        >>> import io
        >>> record = io.BytesIO(bytes([7]) + bytes(3072))
        >>> pictures, targets = read_binary_batch(
        ...     record, place="test_batch.bin", examples=1, labels=1, column=0
        ... )
        >>> pictures.shape, targets
        (torch.Size([1, 3, 32, 32]), tensor([7], dtype=torch.uint8))
    """
    content = take_all(stream, examples * (labels + PIXELS), place=place)
    records = torch.frombuffer(content, dtype=torch.uint8).reshape(examples, labels + PIXELS)
    # The copy lets go of the labels between the pictures.
    return records[:, labels:].reshape(examples, *PICTURE).contiguous(), records[:, column]

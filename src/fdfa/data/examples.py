"""Examples whole in memory: stored as they came, prepared batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fdfa.data.pixels import Augmentation, Normalization
from fdfa.errors import DataError

__all__ = ["Examples"]


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Inputs and class labels, whole in memory on one device.

    Pixels stay the bytes that they were in their file, a quarter of their size as floats; a batch
    becomes numbers when it is asked for.

    Args:
        inputs: (N, ...), uint8 pixels or floating-point numbers.
        labels: int64 of shape (N,).
        normalization: turns a batch of stored inputs into what a network reads; None leaves them.
        augmentation: changes each batch at random before that; None for the inputs as they are.

    Raises:
        DataError: if there are not as many inputs as labels.

    Example:
        >>> examples = Examples(torch.eye(3), torch.tensor([0, 1, 2]))
        >>> for inputs, labels in examples.batches(torch.tensor([2, 0]).split(1)):
        ...     print(inputs.tolist(), labels.tolist())
        [[0.0, 0.0, 1.0]] [2]
        [[1.0, 0.0, 0.0]] [0]
    """

    inputs: Tensor
    labels: Tensor
    normalization: Normalization | None = None
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        """Check that inputs and labels belong together."""
        if self.labels.dim() != 1 or self.inputs.shape[:1] != self.labels.shape:
            raise DataError(
                f"inputs of shape {tuple(self.inputs.shape)} and labels of shape "
                f"{tuple(self.labels.shape)} do not belong together. Give as many labels (N,) as "
                "inputs (N, ...)."
            )

    def __len__(self) -> int:
        """How many there are."""
        return len(self.labels)

    def batches(
        self, indices: Sequence[Tensor], *, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch after batch, each prepared when it is its turn.

        Args:
            indices: of the examples in each batch, int64 on the CPU.
            generator: on the CPU, drawn from by the augmentation and nothing else; None takes
                torch's own.

        Yields:
            Inputs (n, ...) and labels (n,), on the device of the examples.
        """
        for index in indices:
            place = index.to(self.labels.device)
            yield self._prepared(self.inputs[place], generator), self.labels[place]

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """The first examples, without augmentation: a fixed batch to look at.

        Args:
            count: how many; fewer where there are not so many.

        Returns:
            Inputs and labels.

        Example:
            >>> Examples(torch.eye(3), torch.tensor([0, 1, 2])).first(2)[1]
            tensor([0, 1])
        """
        inputs = self.inputs[:count]
        if self.normalization is not None:
            inputs = self.normalization(inputs)
        return inputs, self.labels[:count]

    def augmented(self, augmentation: Augmentation | None) -> Examples:
        """The same examples, changed at random in every batch.

        Args:
            augmentation: how; None for not at all.

        Returns:
            Examples that share these tensors.
        """
        return dataclasses.replace(self, augmentation=augmentation)

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on a device, if it has room: half of its free memory is left alone.

        Args:
            device: where to.

        Returns:
            Examples there; these ones where they do not fit.
        """
        device = torch.device(device)
        if device.type == "cuda" and self.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return self
        return dataclasses.replace(
            self, inputs=self.inputs.to(device), labels=self.labels.to(device)
        )

    @property
    def nbytes(self) -> int:
        """Memory that inputs and labels take."""
        return self.inputs.nbytes + self.labels.nbytes

    def content(self) -> Iterator[Tensor]:
        """What the examples consist of, for a checksum.

        Yields:
            Tensors.
        """
        yield self.inputs
        yield self.labels

    def _prepared(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.augmentation is not None:
            inputs = self.augmentation(inputs, generator)
        return inputs if self.normalization is None else self.normalization(inputs)

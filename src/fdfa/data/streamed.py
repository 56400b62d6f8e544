"""Examples that do not fit into memory: read batch by batch, by processes of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset

from fdfa.data.pixels import Augmentation, Normalization
from fdfa.errors import ConfigError, DataError

__all__ = ["StreamedExamples"]


@runtime_checkable
class SelfDescribing(Protocol):
    """A source that says what it consists of, such as names and sizes of files."""

    def content(self) -> Iterator[Tensor]:
        """Gives tensors on the CPU."""


@dataclasses.dataclass(frozen=True, eq=False)
class StreamedExamples:
    """Examples of any map-style ``torch.utils.data.Dataset``, read when their batch is due.

    Args:
        source: gives (input, label) by index and draws no random numbers; any dataset of your
            own will do.
        indices: int64 of shape (N,): which entries of ``source`` belong to this part.
        labels: int64 of shape (N,): their labels.
        normalization: turns a batch of stored inputs into what a network reads; None leaves them.
        augmentation: changes each batch at random before that; None for the inputs as they are.
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        DataError: if there are not as many labels as indices.
        ConfigError: if ``workers`` is negative.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> source = TensorDataset(torch.eye(3), torch.tensor([0, 1, 2]))
        >>> examples = StreamedExamples.of(source, torch.tensor([0, 1, 2]))
        >>> for inputs, labels in examples.batches(torch.tensor([2, 0]).split(1)):
        ...     print(inputs.tolist(), labels.tolist())
        [[0.0, 0.0, 1.0]] [2]
        [[1.0, 0.0, 0.0]] [0]
    """

    source: TorchDataset[tuple[Tensor, int]]
    indices: Tensor
    labels: Tensor
    normalization: Normalization | None = None
    augmentation: Augmentation | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        """Check that indices and labels belong together, and the number of workers."""
        if self.indices.dim() != 1 or self.indices.shape != self.labels.shape:
            raise DataError(
                f"indices of shape {tuple(self.indices.shape)} and labels of shape "
                f"{tuple(self.labels.shape)} do not belong together. Give as many labels (N,) as "
                "indices (N,)."
            )
        if isinstance(self.workers, bool) or self.workers < 0:
            raise ConfigError(f"workers={self.workers!r} is not possible. Give a number from 0.")

    @classmethod
    def of(
        cls, source: TorchDataset[tuple[Tensor, int]], labels: Tensor, *, workers: int = 0
    ) -> StreamedExamples:
        """All entries of a dataset.

        Args:
            source: gives (input, label) by index.
            labels: int64 of shape (N,).
            workers: processes that read ahead.

        Returns:
            The examples.

        Raises:
            ConfigError: if ``workers`` is negative.
        """
        return cls(source, torch.arange(len(labels)), labels, workers=workers)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.labels)

    def batches(
        self, indices: Sequence[Tensor], *, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch after batch; the next ones are read meanwhile.

        Args:
            indices: of the examples in each batch, int64 on the CPU.
            generator: drawn from by the augmentation and nothing else; None takes torch's own.

        Yields:
            Inputs (n, ...) and labels (n,), on the CPU.

        Raises:
            DataError: if an entry cannot be read, as its source says.
        """
        loader = DataLoader(
            _Batches(self.source),
            sampler=[self.indices[index].tolist() for index in indices],
            batch_size=None,  # an entry is a whole batch already
            num_workers=self.workers,
            generator=torch.Generator(),  # else it would move torch's own random numbers
        )
        # Augmented here and not by the readers: a batch must not depend on who read it.
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            inputs, labels = batch
            yield self._prepared(inputs, generator), labels

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """The first examples, without augmentation: a fixed batch to look at.

        Args:
            count: how many; fewer where there are not so many.

        Returns:
            Inputs and labels.
        """
        count = min(count, len(self))
        # No examples still have a shape, which any entry tells.
        entries = [self.source[index] for index in self.indices[:count].tolist() or [0]]
        inputs, labels = default_collate(entries)
        if self.normalization is not None:
            inputs = self.normalization(inputs)
        return inputs[:count], labels[:count]

    def augmented(self, augmentation: Augmentation | None) -> StreamedExamples:
        """The same examples, changed at random in every batch.

        Args:
            augmentation: how; None for not at all.

        Returns:
            Examples of the same source.
        """
        return dataclasses.replace(self, augmentation=augmentation)

    def to(self, device: torch.device | str) -> StreamedExamples:
        """These examples: each batch goes to the device when it is learned.

        Args:
            device: has no room for all of them.

        Returns:
            The same.
        """
        return self

    def content(self) -> Iterator[Tensor]:
        """What a checksum can be made of without reading everything: which entries, which labels.

        A source with a method ``content`` of its own adds what it says of itself.

        Yields:
            Tensors on the CPU.
        """
        yield self.indices
        yield self.labels
        if isinstance(self.source, SelfDescribing):
            yield from self.source.content()

    def _prepared(self, inputs: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.augmentation is not None:
            inputs = self.augmentation(inputs, generator)
        return inputs if self.normalization is None else self.normalization(inputs)


class _Batches(TorchDataset[tuple[Tensor, Tensor] | DataError]):
    """Reads whole batches.

    Our own error comes back as a value: raised in another process, it would be buried in the text
    of a traceback, and keep the processes waiting for ten seconds.
    """

    def __init__(self, source: TorchDataset[tuple[Tensor, int]]) -> None:
        self._source = source

    def __getitem__(self, indices: list[int]) -> tuple[Tensor, Tensor] | DataError:
        try:
            inputs, labels = default_collate([self._source[index] for index in indices])
        except DataError as error:
            return error
        return inputs, labels

"""Data sets as plain tensors: ``digits`` shipped inside, others read from their official files."""

from __future__ import annotations

from fdfa.data.catalogue import DataSource
from fdfa.data.dataset import Dataset
from fdfa.data.examples import Examples
from fdfa.data.pixels import Augmentation, Normalization
from fdfa.data.registry import describe, load, names
from fdfa.data.streamed import StreamedExamples

__all__ = [
    "Augmentation",
    "DataSource",
    "Dataset",
    "Examples",
    "Normalization",
    "StreamedExamples",
    "describe",
    "load",
    "names",
]

"""Data sets as plain tensors: ``digits`` shipped inside, others read from their official files."""

from __future__ import annotations

from fdfa.data.dataset import Dataset
from fdfa.data.registry import load, names

__all__ = ["Dataset", "load", "names"]

"""What a fault is; see ``break_it.py``."""

from __future__ import annotations

import dataclasses

__all__ = ["Fault"]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A mistake that someone could make."""

    name: str
    file: str  # below src/fdfa
    text: str  # stands there exactly once
    instead: str  # what the mistake puts in its place
    tests: tuple[str, ...]  # what should notice, as arguments of pytest

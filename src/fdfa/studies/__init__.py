"""Studies: what the command line runs, and a script can call."""

from __future__ import annotations

__all__: list[str] = []

"""Measures of how well a learning rule does against the exact gradient."""

from __future__ import annotations

from fdfa.diagnostics.alignment import alignment

__all__ = ["alignment"]

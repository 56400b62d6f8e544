"""Measures of how well a learning rule does against the exact gradient."""

from __future__ import annotations

from fdfa.diagnostics.alignment import alignment
from fdfa.diagnostics.estimates import Estimate
from fdfa.diagnostics.gradient_moments import GradientMoments

__all__ = ["Estimate", "GradientMoments", "alignment"]

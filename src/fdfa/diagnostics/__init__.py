"""Measures of how well a learning rule does against the exact gradient."""

from __future__ import annotations

from fdfa.diagnostics.alignment import GradientMatch, alignment, gradient_matches
from fdfa.diagnostics.diagnosis import Diagnosis, diagnose
from fdfa.diagnostics.estimates import Estimate
from fdfa.diagnostics.gradient_moments import GradientMoments
from fdfa.diagnostics.quality import ComponentQuality, GradientQuality
from fdfa.diagnostics.representations import (
    linear_cka,
    principal_components,
    tapped_activations,
)
from fdfa.diagnostics.watch import NumberLog, Observation, Watch

__all__ = [
    "ComponentQuality",
    "Diagnosis",
    "Estimate",
    "GradientMatch",
    "GradientMoments",
    "GradientQuality",
    "NumberLog",
    "Observation",
    "Watch",
    "alignment",
    "diagnose",
    "gradient_matches",
    "linear_cka",
    "principal_components",
    "tapped_activations",
]

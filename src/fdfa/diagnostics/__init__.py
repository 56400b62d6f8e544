"""Measures of how well a learning rule does against the exact gradient."""

from __future__ import annotations

from fdfa.diagnostics.alignment import GradientMatch, alignment, gradient_matches
from fdfa.diagnostics.credit import credit_errors, feedback_errors
from fdfa.diagnostics.credit_parts import CreditError, FeedbackError
from fdfa.diagnostics.diagnosis import Diagnosis, diagnose
from fdfa.diagnostics.estimates import Estimate
from fdfa.diagnostics.gradient_moments import GradientMoments
from fdfa.diagnostics.jacobians import jacobians
from fdfa.diagnostics.quality import ComponentQuality, GradientQuality
from fdfa.diagnostics.representations import (
    linear_cka,
    principal_components,
    tapped_activations,
)
from fdfa.diagnostics.watch import NumberLog, Observation, Watch

__all__ = [
    "ComponentQuality",
    "CreditError",
    "Diagnosis",
    "Estimate",
    "FeedbackError",
    "GradientMatch",
    "GradientMoments",
    "GradientQuality",
    "NumberLog",
    "Observation",
    "Watch",
    "alignment",
    "credit_errors",
    "diagnose",
    "feedback_errors",
    "gradient_matches",
    "jacobians",
    "linear_cka",
    "principal_components",
    "tapped_activations",
]

"""All faults that the tests must notice; see ``break_it.py``."""

from __future__ import annotations

from diagnosis_faults import DIAGNOSIS_FAULTS
from engine_faults import ENGINE_FAULTS
from method_faults import METHOD_FAULTS
from run_faults import RUN_FAULTS
from tangent_faults import TANGENT_FAULTS

__all__ = ["FAULTS"]

FAULTS = (*ENGINE_FAULTS, *TANGENT_FAULTS, *METHOD_FAULTS, *RUN_FAULTS, *DIAGNOSIS_FAULTS)

"""All cases, by the snapshot file that holds their texts, and where a new one belongs."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.errors.checkpoint_cases import CHECKPOINT_CASES
from tests.errors.cli_cases import CLI_CASES
from tests.errors.data_download_cases import DATA_DOWNLOAD_CASES
from tests.errors.data_own_cases import DATA_OWN_CASES
from tests.errors.data_set_cases import DATA_SET_CASES
from tests.errors.diagnose_cases import DIAGNOSE_CASES
from tests.errors.diagnostics_cases import DIAGNOSTICS_CASES
from tests.errors.engine_cases import ENGINE_CASES
from tests.errors.feedback_weight_cases import FEEDBACK_WEIGHT_CASES
from tests.errors.folder_cases import FOLDER_CASES
from tests.errors.local_cases import LOCAL_CASES
from tests.errors.models_cases import MODELS_CASES
from tests.errors.page_cases import PAGE_CASES
from tests.errors.perturbation_cases import PERTURBATION_CASES
from tests.errors.provoke import Case
from tests.errors.relay_cases import RELAY_CASES
from tests.errors.reproduce_cases import REPRODUCE_CASES
from tests.errors.resume_cases import RESUME_CASES
from tests.errors.studies_cases import STUDIES_CASES
from tests.errors.target_cases import TARGET_CASES
from tests.errors.training_cases import TRAINING_CASES

__all__ = ["AREAS", "SNAPSHOTS", "UPDATE", "home_of"]

SNAPSHOTS = Path(__file__).parents[1] / "snapshots" / "errors"
UPDATE = "FDFA_UPDATE_SNAPSHOTS=1 pytest -n0 tests/errors"

AREAS: Final[dict[str, list[Case]]] = {
    "data": [*DATA_SET_CASES, *DATA_OWN_CASES, *DATA_DOWNLOAD_CASES],
    "models": MODELS_CASES,
    "training": [*TRAINING_CASES, *RESUME_CASES, *CHECKPOINT_CASES],
    "studies": [
        *(*STUDIES_CASES, *DIAGNOSE_CASES, *FOLDER_CASES, *PAGE_CASES, *REPRODUCE_CASES),
    ],
    "cli": CLI_CASES,
    "diagnostics": DIAGNOSTICS_CASES,
    # beside those of tests/engine, whose texts stand in errors.json
    "engine": [
        *ENGINE_CASES,
        *FEEDBACK_WEIGHT_CASES,
        *PERTURBATION_CASES,
        *RELAY_CASES,
        *TARGET_CASES,
        *LOCAL_CASES,
    ],
}


# The beginnings of the source files' names, by the module that has their cases.
_HOMES: Final = {
    "data_own": "data/tensors data/npy data/pict data/image data/tiny data/examples data/streamed "
    "data/pixels",
    "data_download": "data/registry data/locate data/download data/unpack data/official",
    "data_set": "data/",
    "checkpoint": "training/atomic training/checkpoint training/contents training/lock "
    "training/manifest",
    "resume": "training/trainer_state training/agreement training/optimizer_state",
    "training": "training/",
    "models": "models/",
    "folder": "studies/run_folder studies/records studies/resume studies/saved_options",
    "page": "studies/page/",
    "reproduce": "studies/reproduce/declar studies/reproduce/planned studies/reproduce/work",
    "diagnose": "studies/diagnos studies/run_groups cli/diagnosing",
    "studies": "studies/",
    "cli": "cli/",
    "diagnostics": "diagnostics/",
    "feedback_weight": "engine/feedback_weight engine/layer_errors engine/weight_exchange "
    "engine/weight_trace engine/weight_uses methods/feedback_alignment methods/kolen "
    "methods/low_dim methods/sign_ methods/weight_mirror",
    "perturbation": "engine/answers engine/coefficient engine/differences engine/directions "
    "engine/feedback_update "
    "engine/forward_derivatives engine/tangent engine/weight_p methods/fg_a "
    "methods/forward_gradient methods/multi_tangent methods/opzo methods/pseudo methods/spsa",
    "relay": "engine/relay_routes engine/relayed_credit",
    "target": "engine/layer_ engine/modulation engine/relay engine/repetition engine/targets "
    "methods/drtp methods/ifa methods/pepita",
    "local": "engine/heads engine/local methods/l_bp methods/lg_fg_a",
}


def home_of(file: str) -> str:
    """The module with the cases of a source file."""
    for home, starts in _HOMES.items():
        if file.startswith(tuple(starts.split())):
            return f"tests/errors/{home}_cases.py"
    return "tests/errors/engine_cases.py (or tests/engine/error_cases.py)"

"""What a learner's state dict holds beside tensors, and what to say where one does not fit."""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from typing import Any

from fdfa.errors import CheckpointError

__all__ = ["parse_extra_state", "refuse_conflicts"]


def parse_extra_state(state: Any) -> dict[str, Any]:
    """What a learner wrote beside its tensors.

    Args:
        state: JSON bytes as a tensor.

    Returns:
        Method, names of the method's own entries, seed, steps.

    Raises:
        CheckpointError: if it is anything else.
    """
    try:
        return _parsed(state)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "the entry '_extra_state' is not what fdfa writes (JSON bytes with method, seed, steps"
            " and the names of the method's entries). The state dict is damaged or not of an fdfa"
            " learner. Load what learner.state_dict() gave, or the weights alone:"
            " learner.model.load_state_dict()."
        ) from error


def _parsed(state: Any) -> dict[str, Any]:
    values = json.loads(bytes(state.tolist()))
    method, own = str(values["method"]), [str(name) for name in values["own"]]
    seed, steps = (operator.index(values[key]) for key in ("seed", "steps"))
    if seed < 0 or steps < 0:
        raise ValueError("negative")
    return {"method": method, "own": own, "seed": seed, "steps": steps}


def refuse_conflicts(problems: Sequence[str]) -> None:
    """Say all that does not fit, if anything does not.

    Args:
        problems: one text each.

    Raises:
        CheckpointError: if there is one.
    """
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems[:12])
        more = f"\n  ... and {len(problems) - 12} more" if len(problems) > 12 else ""
        raise CheckpointError(
            "this state dict does not fit this learner; nothing was loaded into it:\n"
            f"{shown}{more}\nLoad it into the method and model that saved it, or give the weights"
            " alone to learner.model.load_state_dict()."
        )

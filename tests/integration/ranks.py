"""Two processes that run named checks together, each check in a process group of its own."""

from __future__ import annotations

import datetime
import importlib
import json
import pathlib
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

__all__ = ["RANKS", "check", "gathered", "run_checks", "same_on_all_ranks"]

RANKS = 2
_CHECKS: dict[str, Callable[[int], None]] = {}
_SLOW: set[str] = set()  # names of checks that are left to the slow tests


def check(
    *arguments: Any, slow: Sequence[Any] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers ``function(rank)``, or ``function(rank, argument)`` for each; some as slow."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        _SLOW.update(f"{function.__name__}[{argument}]" for argument in slow)
        for argument in (*arguments, *slow):
            _CHECKS[f"{function.__name__}[{argument}]"] = lambda rank, a=argument: function(rank, a)
        if not arguments:
            _CHECKS[function.__name__] = function
        return function

    return register


def run_checks(
    modules: Sequence[str], folder: pathlib.Path, *, slow: bool
) -> dict[str, list[str | None]]:
    """Runs the checks of these modules, the slow ones or the others.

    Returns:
        Each one's traceback by rank, None where it passed.
    """
    mp.spawn(_run_rank, args=(modules, str(folder), slow), nprocs=RANKS)
    found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(RANKS)]
    return {name: [outcomes[name] for outcomes in found] for name in found[0]}


def _run_rank(rank: int, modules: Sequence[str], folder: str, slow: bool) -> None:
    for module in modules:
        importlib.import_module(module)  # which registers its checks in this process
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
    outcomes: dict[str, str | None] = {}
    chosen = {name: check for name, check in _CHECKS.items() if (name in _SLOW) == slow}
    for number, (name, function) in enumerate(chosen.items()):
        # A group of its own for each check: one that fails on one rank cannot disturb the next.
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/meeting{number}",
            rank=rank,
            world_size=RANKS,
            timeout=datetime.timedelta(seconds=10),
        )
        try:
            torch.manual_seed(0)
            function(rank)
            outcomes[name] = None
        except (Exception, pytest.fail.Exception):  # the latter is no Exception to Python
            outcomes[name] = traceback.format_exc()
        finally:
            dist.destroy_process_group()
    (pathlib.Path(folder) / f"rank{rank}.json").write_text(json.dumps(outcomes))


def gathered(value: Any) -> list[Any]:
    """The values of all ranks, in order."""
    values: list[Any] = [None] * RANKS
    dist.all_gather_object(values, value)
    return values


def same_on_all_ranks(tensors: dict[str, torch.Tensor]) -> None:
    """Raises unless these tensors are equal to the last bit on all ranks."""
    first, *others = gathered({key: value.detach().cpu() for key, value in tensors.items()})
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)

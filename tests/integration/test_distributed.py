"""Two gloo processes under ``DistributedDataParallel(learner)``."""

from __future__ import annotations

import pathlib

import pytest

from tests.integration.ranks import run_checks


@pytest.mark.distributed
@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes(slow: bool, tmp_path: pathlib.Path, subtests: pytest.Subtests) -> None:
    """One pair of processes for all checks, since to start it costs seconds."""
    modules = ("learning_checks", "wrapper_checks", "training_checks")
    outcomes = run_checks(
        [f"tests.integration.{module}" for module in modules], tmp_path, slow=slow
    )
    assert outcomes
    for name, by_rank in outcomes.items():
        with subtests.test(name):
            for rank, failure in enumerate(by_rank):
                assert failure is None, f"rank {rank}:\n{failure}"

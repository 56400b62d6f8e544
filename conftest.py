"""What every test and every doctest of the project shares."""

from __future__ import annotations

import collections
import gc
import signal

import pytest
import torch
from hypothesis import settings

import fdfa

# The two cores belong to two pytest workers, so that no deadline means anything; the same examples
# on every run, since a failure that comes and goes is worth less than one that stays.
settings.register_profile("fdfa", deadline=None, derandomize=True)
settings.load_profile("fdfa")

# To trace the lines of `src` nearly doubles the time of a test. Further parameters of one test find
# hardly another line, so that they run untraced, and what is measured is a lower bound.
_PARAMETERS_TRACED = 3


def pytest_configure() -> None:
    """One thread a process: sums come out in one order, and two workers share two cores."""
    torch.set_num_threads(1)
    # A shell that starts this in the background has it ignore Ctrl-C, and all that it starts too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what needs a CUDA device where there is none; says what coverage looks at."""
    traced: collections.Counter[str] = collections.Counter()
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        test = item.nodeid.partition("[")[0]
        traced[test] += 1
        if traced[test] > _PARAMETERS_TRACED:
            item.add_marker("no_cover")  # of pytest-cov


def pytest_collection_finish() -> None:
    """Thousands of tests and all of torch are not looked through again at every collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Starts every test from the same random state."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed keeps a stack trace a call, for CUDA


@pytest.fixture(autouse=True)
def _names_in_examples(doctest_namespace: dict[str, object]) -> None:
    """Docstrings need not import what every reader of them has imported."""
    doctest_namespace.update(fdfa=fdfa, torch=torch)

"""The contract's tests run over the registry: all that a test does is name one of four arguments.

``case``: every method in every case; ``steady_case``: those whose passes over one batch all give
the same gradients; ``first_case``: every method in its first case, where the
cases of a method cannot differ; ``info``: every method's record.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.methods import CASES, FAST_CASES, METHODS, Case, marked


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spreads the registry over the tests, so that none can forget a method."""
    # Thousands of slow cases would be made only to be deselected: seconds in every worker.
    fast_only = metafunc.config.getoption("markexpr") == "not slow"
    cases = FAST_CASES if fast_only else CASES
    chosen = {
        "case": cases,
        "steady_case": [case for case in cases if not case.varying],
        "first_case": [case for case in cases if case.id == case.info.cases[0][0]],
    }
    for name in chosen.keys() & set(metafunc.fixturenames):
        parameters = [_excused(metafunc, case) for case in chosen[name]]
        metafunc.parametrize(name, parameters, ids=str)
    if "info" in metafunc.fixturenames:
        metafunc.parametrize("info", METHODS, ids=lambda info: info.name)


def _excused(metafunc: pytest.Metafunc, case: Case) -> Any:
    """A clause that cannot hold for a rule must fail for it: no excuse outlives its reason."""
    reason = case.excuse(metafunc.function.__name__)
    marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
    return marked(case, *marks)

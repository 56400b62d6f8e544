"""The contract's tests run over the registry: all that a test does is name one of four arguments.

``case``: every method in every case; ``steady_case``: those whose passes over one batch all give
the same gradients; ``first_case``: every method in its first case, where the
cases of a method cannot differ; ``info``: every method's record.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.methods import CASES, METHODS, Case, marked


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Spreads the registry over the tests, so that none can forget a method."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", [_excused(metafunc, case) for case in CASES], ids=str)
    if "steady_case" in metafunc.fixturenames:
        steady = [_excused(metafunc, case) for case in CASES if not case.varying]
        metafunc.parametrize("steady_case", steady, ids=str)
    if "first_case" in metafunc.fixturenames:
        first = [next(case for case in CASES if case.info is info) for info in METHODS]
        metafunc.parametrize("first_case", [_excused(metafunc, case) for case in first], ids=str)
    if "info" in metafunc.fixturenames:
        metafunc.parametrize("info", METHODS, ids=lambda info: info.name)


def _excused(metafunc: pytest.Metafunc, case: Case) -> Any:
    """A clause that cannot hold for a rule must fail for it: no excuse outlives its reason."""
    reason = case.excuse(metafunc.function.__name__)
    marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
    return marked(case, *marks)

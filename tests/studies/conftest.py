"""What several files of tests of the studies share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fdfa.studies.compare import compare
from fdfa.studies.results import Comparison
from fdfa.studies.train import train
from tests.studies.comparisons import SMALL, Diary
from tests.studies.config_files import UNUSUAL, Json


@pytest.fixture(scope="module")
def few_rounds() -> Iterator[None]:
    """Times of a step mean nothing in the tests that use this."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fdfa.studies.speed._ENOUGH_SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def finished(
    few_rounds: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Comparison, Path, Diary]:
    """A comparison, its folder, and what its observer heard."""
    out, diary = tmp_path_factory.mktemp("compare") / "run", Diary()
    return compare(SMALL, out=out, observer=diary), out, diary


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all that is unusual."""
    out = tmp_path_factory.mktemp("config") / "run"
    assert train(UNUSUAL, out=out).run.failure is None
    return out


@pytest.fixture(scope="module")
def written(run: Path) -> dict[str, Json]:
    content: dict[str, Json] = json.loads((run / "config.json").read_text())
    return content

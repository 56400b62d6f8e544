"""The texts of public errors are part of the interface: to change one is a reviewed diff.

``FDFA_UPDATE_SNAPSHOTS=1 pytest -n0 tests/engine/test_error_texts.py`` writes the file anew.
"""

from __future__ import annotations

import json
import os
import pathlib
import re

import pytest

from tests.engine.error_cases import MODEL_ERRORS, ErrorCase
from tests.engine.option_error_cases import OPTION_ERRORS

CASES = [*MODEL_ERRORS, *OPTION_ERRORS]
SNAPSHOT = pathlib.Path(__file__).parents[1] / "snapshots" / "errors.json"


def text_of(case: ErrorCase) -> str:
    with pytest.raises(case.error) as caught:
        case.run()
    # torch's own words, in parentheses, belong to its release and not to us
    return re.sub(r"derivative \(.*?\)\. Pass", "derivative (...). Pass", str(caught.value))


def test_texts_are_those_of_the_snapshot() -> None:
    found = {case.name: text_of(case) for case in CASES}
    if os.environ.get("FDFA_UPDATE_SNAPSHOTS") == "1":
        SNAPSHOT.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    assert found == json.loads(SNAPSHOT.read_text())


def test_every_case_has_a_name_of_its_own() -> None:
    """Two cases under one name would hide one text from the snapshot."""
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_texts_are_sentences(name: str) -> None:
    """A sentence that ends, without stray addresses and blanks."""
    text = json.loads(SNAPSHOT.read_text())[name]
    assert text[-1] in ".!)"
    assert "0x" not in text
    assert "  " not in text.replace("\n  ", "\n")

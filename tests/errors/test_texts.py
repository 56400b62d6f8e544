"""Every error text is part of the interface: to change one is a reviewed diff of a snapshot.

``FDFA_UPDATE_SNAPSHOTS=1 pytest -n0 tests/errors`` writes the files anew.
"""

from __future__ import annotations

import json
import os

import pytest

from tests.errors.areas import AREAS, SNAPSHOTS, UPDATE
from tests.errors.provoke import provoked


@pytest.mark.parametrize("area", AREAS)
def test_texts_are_those_of_the_snapshot(area: str) -> None:
    found = {case.name: provoked(case).text for case in AREAS[area]}
    file = SNAPSHOTS / f"{area}.json"
    if os.environ.get("FDFA_UPDATE_SNAPSHOTS") == "1":
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    changed = [
        f"{name}\n    - {kept.get(name)}\n    + {found.get(name)}"
        for name in {**kept, **found}
        if kept.get(name) != found.get(name)
    ]
    if changed:
        pytest.fail(
            f"{len(changed)} texts are not those of {file.name}:\n  "
            + "\n  ".join(changed)
            # review them, then
            + f"\nIf they are meant so: {UPDATE}",
            pytrace=False,
        )


@pytest.mark.parametrize("area", AREAS)
def test_every_case_has_a_name_of_its_own(area: str) -> None:
    """Two cases under one name would hide one text from the snapshot."""
    names = [case.name for case in AREAS[area]]
    assert not {name for name in names if names.count(name) > 1}


def test_there_is_no_other_snapshot() -> None:
    assert {file.stem for file in SNAPSHOTS.glob("*.json")} == set(AREAS)

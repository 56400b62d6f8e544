"""Registry, pages, oracle table and records of the tests speak of the same methods."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fdfa
from tests.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "methods"
ROW = re.compile(r"^\| \[`(.+)`\]\(methods/(.+)\.md\) \| (.+) \| (.+) \|$", re.MULTILINE)
ORACLES = ROW.findall((ROOT / "docs" / "oracles.md").read_text(encoding="utf-8"))


def test_all_name_the_same_methods() -> None:
    registry = list(fdfa.methods())
    assert [info.name for info in METHODS] == registry
    assert [name for name, *_ in ORACLES] == registry
    assert {page.stem for page in PAGES.glob("*.md")} - {"index"} == set(registry)


@pytest.mark.parametrize(("name", "page", "oracle", "files"), ORACLES)
def test_oracles_are_where_the_table_says(name: str, page: str, oracle: str, files: str) -> None:
    assert page == name
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| oracles? \| {re.escape(oracle)} \|$", text, re.MULTILINE)
    found = re.findall("`(.+?)`", files)
    assert found
    estimator = fdfa.methods()[name].estimator
    words = (f'"{name}"', f'"{estimator.method}"', estimator.__name__)
    for file in found:
        tests = (ROOT / file).read_text(encoding="utf-8")
        assert file.startswith("tests/contract/") or any(word in tests for word in words), file


@pytest.mark.parametrize("name", fdfa.methods())
def test_every_page_is_whole(name: str) -> None:
    """Equation or rule, cost, state, memory, oracles, a measured curve."""
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    for row in ("matrix products a layer and step", "extra state", "memory"):
        assert re.search(rf"^\| {row} \| .+ \|$", text, re.MULTILINE), row
    assert f"(curves/{name}.svg)" in text
    assert (PAGES / "curves" / f"{name}.svg").is_file()

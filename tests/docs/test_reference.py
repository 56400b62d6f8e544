"""The reference explains every public name; Sphinx, in `make docs`, checks it once more."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator

import fdfa
from tests.docs.pages import DOCS, ROOT
from tests.docs.public_names import namespaces, unexplained, value_of

DIRECTIVE = re.compile(r"^\.\. auto(\w+):: ([\w.]+)$", re.MULTILINE)


def explained() -> Iterator[str]:
    """Dotted names that Sphinx will explain, going by the directives in ``docs/reference/``."""
    for page in sorted((DOCS / "reference").glob("*.md")):
        for kind, name in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            if kind == "module":
                yield from _explained_by_module(name)
            if "." in name:
                yield name


def _explained_by_module(name: str) -> Iterator[str]:
    """Sphinx takes from ``__all__`` what has a docstring, which data have not."""
    module = importlib.import_module(name)
    for member in module.__all__:
        value = getattr(module, member)
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__doc__:
            yield f"{name}.{member}"


def test_every_public_name_is_explained() -> None:
    missing = unexplained(explained())
    assert not missing, f"name them in docs/reference/, as the other names are: {missing}"


def test_what_is_explained_exists() -> None:
    for name in explained():
        assert value_of(name) is not None


def test_a_name_that_is_not_explained_is_noticed() -> None:
    rest = [name for name in explained() if value_of(name) is not fdfa.FDFA]
    assert unexplained(rest) == ["fdfa.FDFA", "fdfa.methods.FDFA"]


def test_the_namespaces_are_found() -> None:
    found = {module.__name__ for module in namespaces()}
    assert {"fdfa", "fdfa.data", "fdfa.errors", "fdfa.methods", "fdfa.training"} <= found


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []

"""A page read back by Python's own parser: its tables, and the texts around them."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path
from typing import Any

__all__ = ["Entry", "Parsed", "figures_of", "parsed"]

Attributes = list[tuple[str, str | None]]


class Entry(str):
    """The text of a cell, with the number behind it."""

    value: float | None = None


class Parsed(html.parser.HTMLParser):
    """Tables by id, each a list of rows by head; and every text that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[dict[str, Entry]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._table = ""
        self._heads: list[str] = []
        self._row: list[Entry] = []
        self._cell: list[str] | None = None
        self._value: float | None = None
        self._silent = False

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self._silent = tag in ("script", "style")
        if tag == "table":
            self._table = found["id"] or ""
            self.tables[self._table], self._heads = [], []
        elif tag == "tr":
            self._row = []
        elif tag in ("th", "td"):
            self._cell = []
            value = found.get("data-value")
            self._value = None if value is None else float(value)

    def handle_endtag(self, tag: str) -> None:
        self._silent = False
        if tag in ("th", "td") and self._cell is not None:
            entry = Entry("".join(self._cell))
            entry.value, self._cell = self._value, None
            self._row.append(entry)
        elif tag == "tr" and not self._heads:
            self._heads = list(map(str, self._row))
        elif tag == "tr":
            self.tables[self._table].append(dict(zip(self._heads, self._row, strict=True)))

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)
        if not self._silent:
            self.text += data


def parsed(page: Path) -> Parsed:
    """The page, all of it."""
    parser = Parsed()
    parser.feed(page.read_text(encoding="utf-8"))
    parser.close()
    return parser


def figures_of(page: Path) -> dict[str, Any]:
    """What the page's script is told to draw."""
    found = re.search(r'id="figures">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1])["figures"])

"""The pages that users read, and the code blocks and commands in them."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

__all__ = ["DOCS", "ROOT", "Block", "Command", "blocks", "commands", "pages", "script_name"]

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^(`{3,}|~{3,})\s*(\S*)")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: what stands behind the opening fence.
        line: number of its first line in the page, counted from 0.
        text: what is in it.
    """

    language: str
    line: int
    text: str


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line of a page.

    Attributes:
        words: as a shell splits them.
        output: the lines shown below it; empty if none are.
    """

    words: list[str]
    output: str


def pages() -> list[Path]:
    """``README.md`` and what `make docs` makes pages of."""
    found = [page for page in sorted(DOCS.rglob("*.md")) if DOCS / "_build" not in page.parents]
    return [ROOT / "README.md", *found]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        number += 1
        if opening is None:
            continue
        first = number
        while not re.match(rf"{opening[1]}\s*$", lines[number]):
            number += 1
        text = "".join(f"{line}\n" for line in lines[first:number])
        found.append(Block(opening[2], first, text))
        number += 1
    return found


def commands(block: Block) -> list[Command]:
    """The commands in a ``sh`` block, or behind the ``$`` in a ``console`` block."""
    if block.language not in ("sh", "console"):
        return []
    text = block.text.replace("\\\n", " ")
    if block.language == "sh":
        found = [(line, "") for line in text.splitlines()]
    else:
        _, *parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
        found = [(line, output) for line, _, output in (part.partition("\n") for part in parts)]
    split = [Command(shlex.split(line, comments=True), output) for line, output in found]
    return [command for command in split if command.words]


def script_name(block: Block) -> str | None:
    """The file that a block is, if its first line says so: ``# train.py``, ``# study.toml``."""
    named = re.match(r"# (\w+\.(?:py|toml))\n", block.text)
    return named[1] if named and block.language in ("python", "toml") else None

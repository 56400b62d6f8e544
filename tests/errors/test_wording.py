"""Each text says what is wrong, with its name, why, and what to do: as far as a program can see."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator

import pytest

from tests.errors.areas import AREAS, SNAPSHOTS

# What a remedy begins with.
VERBS = """
    add ask bring call change check checkpoint choose compute convert correct count cut divide
    flatten free freeze give go install keep leave load look lower make materialise mend move name
    pass put remove replace resume return run save see set shorten split start take tap teach
    train turn unpack use valid wait wrap write
"""
REMEDY = re.compile(
    rf"(?:^|[.:;!?)]\s+|\b(?:and|or)\s+)(?:{'|'.join(VERBS.split())})\b"
    r"|\bDid you mean '|\bThere are no \w+ to choose from|\b(?:must be|takes) .*, not ",
    re.IGNORECASE,
)
# Parts that stand apart: sentences, or halves round a colon.
PARTS = re.compile(r"(?<=[.!?:;)])\s+(?=\S)")
# A value, a file, an option, an attribute, a shape.
# A value, a file, an option, an attribute, a shape, a class, or the only one of its kind.
NAMED = re.compile(
    r"'[^']+'|`[^`]+`|\b[a-z_]+=|--\w|HERE|PACKAGE|\d|\(N\b|\w+\(\.\.\.\)|^\w+:|^[A-Z]\w+|"
    r"\b(?:_[A-Z]|[A-Z]+[a-z]*[A-Z]|[a-z]+_)\w*|"
    r"^(?:the|there are no) (?:model|checkpoint|examples)\b"
)
FORBIDDEN = {
    "an address": re.compile(r"\b0x[0-9a-fA-F]{4,}"),
    "double blanks": re.compile(r"(?<!\n)  "),
    "a blank at the end of a line": re.compile(r"[ \t]+(?:\n|$)"),
    "None in the place of a name": re.compile(r"(?<!=)\bNone\b(?! for )"),
    "one of several": re.compile(r"(?<![\d,.'=-])\b1 (?!is\b|has\b)[a-z]+s\b(?!\()"),
    "two full stops": re.compile(r"(?<!\.)\.\.(?!\.)|\.{4}|(?<!\.)\. ?\)\.|\. \."),
    "a blank before a full stop": re.compile(r"\w [.,;:](?:\s|$)"),
    "the name of our own object": re.compile(r"<[a-z_.]+ object"),
}
LONGEST = 600  # characters of a line: there may be a line for each of several problems

# What is wrong at present, by the text's name: it must go from here when the source is mended.
KNOWN: dict[str, str] = {}


@functools.cache
def texts() -> dict[str, str]:
    """All texts by area and name; those of ``tests/engine`` have an area of their own."""
    files = {area: SNAPSHOTS / f"{area}.json" for area in AREAS}
    files["errors"] = SNAPSHOTS.with_suffix(".json")
    return {
        f"{area}/{name}": text
        for area, file in files.items()
        for name, text in json.loads(file.read_text(encoding="utf-8")).items()
    }


def faults(text: str) -> Iterator[str]:
    """What is wrong with a text."""
    if text[-1] not in ".!)":
        yield "does not end as a sentence"
    if not REMEDY.search(text):
        yield "has no remedy"
    if len(PARTS.split(text)) < 2:
        yield "has one part alone"
    if not NAMED.search(text):
        yield "names no value, file or option"
    if max(map(len, text.splitlines())) > LONGEST:
        yield "is too long"
    for fault, pattern in FORBIDDEN.items():
        if found := pattern.search(text):
            yield f"has {fault}: {found[0]!r}"


def test_texts_have_their_three_parts() -> None:
    bad = {
        name: found
        for name, text in texts().items()
        if (found := list(faults(text))) and name not in KNOWN
    }
    if bad:
        lines = [f"{name}: {', '.join(found)}\n    {texts()[name]}" for name, found in bad.items()]
        pytest.fail(f"{len(bad)} texts:\n  " + "\n  ".join(lines), pytrace=False)


def test_what_is_known_to_be_wrong_still_is() -> None:
    """Else it must go from the list, so that it stays mended."""
    mended = [name for name in KNOWN if not list(faults(texts().get(name, "good: use 'it'.")))]
    assert not mended, "these are mended: take them out of KNOWN in tests/errors/test_wording.py"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.rstrip("."),
        lambda text: text.partition(". ")[0] + ".",
        lambda text: text.replace("'layr1'", "that"),
        lambda text: text.replace("layr1", "<fdfa.Tap object at 0x7f3c2a>"),
        lambda text: text.replace(" tap", "  tap"),
        lambda text: text.replace("'layr1'", "None"),
        lambda text: text.replace("unknown tap", "1 taps are unknown:"),
        lambda text: text.replace("'layr1'.", "'layr1' .."),
        lambda text: text + " layer" * 200,
    ],
)
def test_a_text_that_is_spoilt_is_noticed(spoil: Callable[[str], str]) -> None:
    good = "unknown tap 'layr1'. Use one of the others."
    assert not list(faults(good))
    assert list(faults(spoil(good)))

"""No error without a case: whatever raises in the source is provoked, or the reason stands here."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence

import pytest

from tests.engine.error_cases import MODEL_ERRORS
from tests.engine.option_error_cases import OPTION_ERRORS
from tests.errors.areas import AREAS, UPDATE, home_of
from tests.errors.provoke import masked, passed_lines, provoked
from tests.errors.sites import PACKAGE, Site, collected_texts, lost_makers, raise_sites

# File, function, a word of the statement, and why no test of this machine gets there.
NOT_HERE = [
    (
        "engine/feedback_weight_estimator.py",
        "_no_credit",
        "fault of fdfa",
        "a guard: there is no tap that could ask for a credit",
    ),
    (
        "engine/weight_uses.py",
        "_no_backward",
        "fault of fdfa",
        "a guard: a traced pass is never handed out, so nobody can differentiate it",
    ),
    (
        "engine/tangents.py",
        "TangentCarrier.__exit__",
        "handed over",
        "a guard against torch itself calling modules in another way; nothing known gets there",
    ),
]


@functools.cache
def _found() -> tuple[frozenset[tuple[str, int]], list[str]]:
    """Lines that errors came through, and all texts; those of the engine's own tests included."""
    lines: set[tuple[str, int]] = set()
    texts = []
    for cases in AREAS.values():
        for case in cases:
            lines |= provoked(case).lines
            texts.append(provoked(case).text)
    for case in (*MODEL_ERRORS, *OPTION_ERRORS):
        with contextlib.suppress(case.error):
            try:
                case.run()
            except case.error as error:
                lines |= passed_lines(error)
                texts.append(masked(error, PACKAGE))
                raise
    return frozenset(lines), texts


def _provoked(site: Site) -> bool:
    lines, texts = _found()
    if site.pattern is not None:
        return any(site.pattern.search(text) for text in texts)
    return any((site.file, line) in lines for line in range(site.first, site.last + 1))


def _excused(site: Site) -> bool:
    return any(
        (site.file, site.function) == (file, function) and word in site.source
        for file, function, word, _ in NOT_HERE
    )


def _told(sites: Sequence[Site]) -> str:
    lines = [f"  {site}\n    add a case to {home_of(site.file)}" for site in sites]
    return "\n".join(
        [
            f"{len(sites)} error text(s) of the library are provoked by no case:",
            *lines,
            f"Then write the snapshots anew: {UPDATE}",
            "Where one cannot be provoked here (CUDA, Windows, ...), say why in NOT_HERE of "
            "tests/errors/test_every_raise.py.",
        ]
    )


def test_every_error_is_provoked() -> None:
    missing = [
        site
        for site in (*raise_sites(), *collected_texts())
        if not _provoked(site) and not _excused(site)
    ]
    if missing:
        pytest.fail(_told(missing), pytrace=False)


@pytest.mark.parametrize(("file", "function", "word", "reason"), NOT_HERE)
def test_no_excuse_outlives_its_reason(file: str, function: str, word: str, reason: str) -> None:
    """An excuse for what is gone, or is provoked by now, must go."""
    excused = [
        site
        for site in raise_sites()
        if (site.file, site.function) == (file, function) and word in site.source
    ]
    assert excused, "there is no such statement any more: take it out of NOT_HERE"
    assert not all(map(_provoked, excused)), "a case provokes it: take it out of NOT_HERE"


def test_the_search_finds_what_it_has_to() -> None:
    """A search that found nothing would pass everything: each way to raise is looked for once."""
    found = {(site.file, site.function) for site in raise_sites()}
    assert {
        ("errors.py", "UnsupportedModelError.__init__"),  # raise, plainly
        ("data/reading.py", "opened"),  # by a function that only raises
        ("data/npy.py", "_shape"),  # by one of another module
        ("data/archives.py", "tar_files"),  # by one whose last word is such a call
        ("data/streamed.py", "StreamedExamples.batches"),  # an error that came as a value
        ("training/optimizer_state.py", "capture_optimizer"),
    } <= found
    assert len(found) > 150
    assert len(collected_texts()) > 30
    assert not lost_makers(), "these functions are gone: take them out of _MAKERS in sites.py"

"""One browser and one page for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fdfa.studies.page import write_page
from fdfa.training import TrainingSettings
from tests.page.browser import CHROMIUM, MISSING, Browser, Tab
from tests.page.folders import comparison, curve, run

Opened = Callable[..., Tab]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium, started once."""
    if CHROMIUM is None:
        pytest.skip(MISSING)
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a bit of everything: seeds, a gap, a failure, a name that is hostile."""
    place = tmp_path_factory.mktemp("runs")
    tests = {"backpropagation": [0.75, 0.8, 0.7], "dfa": [0.5, 0.6, 0.4], "fdfa": [0.7, 0.85, 0.75]}
    folders = [
        comparison(place / "all", tests),
        run(place / "gap", "spsa", lines=curve(0.25, None, 0.5)),
        run(
            place / "<img src=x onerror=console.error('escaped')>",
            "fdfa",
            lines=curve(0.1),
            test=None,
            failure="the loss is nan",
            training=TrainingSettings(epochs=9),
            options={"noise": "<i>a</i> & 'b' %{x}"},
        ),
    ]
    write_page(folders, out=place / "page.html")
    return place / "page.html"


@pytest.fixture(scope="session")
def shared_tab(browser: Browser, page: Path) -> Tab:
    """The page, opened once."""
    return Tab(browser, page)


@pytest.fixture
def tab(shared_tab: Tab) -> Iterator[Tab]:
    """The page as it was opened: light, 1,200 pixels wide, all curves shown.

    After each test, nothing may have been said on the console.
    """
    shared_tab.resize(1200)
    shared_tab.paint(dark=False)
    shared_tab.ask("""document.querySelector('[data-all="yes"]').click()""")
    yield shared_tab
    assert shared_tab.complaints() == []


@pytest.fixture
def anew(browser: Browser) -> Iterator[Opened]:
    """Opens pages in tabs of their own, which are closed afterwards."""
    tabs: list[Tab] = []

    def show(path: Path, *, width: int = 1200, dark: bool = False) -> Tab:
        tabs.append(Tab(browser, path, width=width, dark=dark))
        return tabs[-1]

    yield show
    for each in tabs:
        each.close()

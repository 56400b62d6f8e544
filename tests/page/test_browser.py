"""The page as a reader has it, in Chromium without a window.

``apt-get install --no-install-recommends chromium`` brings it; where there is none, these tests are
skipped. All of them share one process, which `tests/page/browser.py` drives.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

import fdfa
from fdfa.studies.page import write_page
from tests.page.browser import Tab
from tests.page.conftest import Opened
from tests.page.folders import comparison, curve, run
from tests.page.parsed import figures_of

# Names of the curves that can be seen in each figure, by what the library has really drawn.
DRAWN = """
Object.fromEntries([...document.querySelectorAll(".plot")].map(place => [
  place.dataset.figure,
  [...place.querySelectorAll(".legendtext")].map(entry => entry.textContent),
]))
"""
CURVES = '[data-figure="training-loss"] .scatterlayer .js-line'
LINES = f"document.querySelectorAll('{CURVES}').length"
SETTLED = "new Promise(done => requestAnimationFrame(() => setTimeout(done, 80)))"
FOCUS = """
(() => {
  const at = document.activeElement;
  return [at.tagName, at.textContent.trim(), getComputedStyle(at).outlineStyle];
})()
"""


def column(tab: Tab, table: str, head: str) -> list[str]:
    """Texts of a column, from above."""
    return list(
        tab.ask(f"""(() => {{
          const table = document.getElementById("{table}");
          const heads = [...table.tHead.rows[0].cells];
          const place = heads.findIndex(head => head.textContent === "{head}");
          return [...table.tBodies[0].rows].map(row => row.cells[place].textContent);
        }})()""")
    )


def head(table: str, name: str) -> str:
    """JavaScript for the head of a column."""
    return (
        f'[...document.querySelectorAll("#{table} thead th")].find(h => h.textContent === "{name}")'
    )


def test_it_renders_and_fetches_nothing(tab: Tab, page: Path) -> None:
    drawn = tab.ask(DRAWN)
    figures = figures_of(page)
    assert set(drawn) == set(figures)
    assert len(drawn) == 8
    assert tab.complaints() == []
    for key, names in drawn.items():
        assert len(names) == sum(trace.get("showlegend", True) for trace in figures[key]["data"])
    assert tab.requests() == [page.as_uri()]
    # Curves, not empty axes: each has a line from one side of its figure to the other.
    extents = tab.ask(f"""[...document.querySelectorAll('{CURVES}')]
        .map(line => line.getBBox().width / line.closest(".plot").clientWidth)""")
    assert len(extents) == 5
    assert all(width > 0.5 for width in extents[:4])


def test_a_hostile_name_is_shown_as_it_is(tab: Tab) -> None:
    folders = column(tab, "runs", "folder")
    assert folders[-1].endswith("<img src=x onerror=console.error('escaped')>")
    assert tab.ask("document.images.length") == 0
    hostile = "fdfa (epochs=9, noise=<i>a</i> & 'b' %{x})"
    assert hostile in column(tab, "scores", "method")
    assert hostile in tab.ask(DRAWN)["training-loss"]


def test_the_table_sorts(tab: Tab) -> None:
    name = "test accuracy (%)"
    as_given = column(tab, "scores", "method")
    click = f"{head('scores', name)}.querySelector('button').click()"
    tab.ask(click)
    assert tab.ask(f"{head('scores', name)}.ariaSort") == "ascending"
    rising = column(tab, "scores", name)
    numbers = [float(text.partition(" ")[0]) for text in rising[:-1]]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 3
    assert rising[-1] == "-"  # what is missing is at the end, whichever way
    tab.ask(click)
    assert tab.ask(f"{head('scores', name)}.ariaSort") == "descending"
    falling = column(tab, "scores", name)
    assert [text.partition(" ")[0] for text in falling[:-1]] == [
        text.partition(" ")[0] for text in rising[-2::-1]
    ]
    assert falling[-1] == "-"
    tab.ask(f"{head('scores', 'method')}.querySelector('button').click()")
    assert column(tab, "scores", "method") == sorted(as_given)
    assert tab.ask("document.querySelectorAll('#scores [aria-sort]').length") == 1


def test_numbers_sort_as_numbers_whatever_their_text(tab: Tab) -> None:
    """-25.00 before -3.33 before +0.00, by what lies behind the text."""
    tab.ask(f"{head('scores', 'difference (points)')}.querySelector('button').click()")
    texts = column(tab, "scores", "difference (points)")
    numbers = [0.0 if text == "baseline" else float(text.partition(" ")[0]) for text in texts[:-1]]
    assert numbers == sorted(numbers)
    assert min(numbers) < 0 < max(numbers)


def test_a_curve_can_be_switched_off(tab: Tab) -> None:
    before, lines = tab.ask(DRAWN), tab.ask(LINES)
    tab.ask("""document.querySelectorAll("#shown input")[1].click()""")
    after = tab.ask(DRAWN)
    for key, names in before.items():
        assert after[key] == [name for name in names if name != "dfa"], key
    assert tab.ask(LINES) == lines - 1
    tab.ask("""document.querySelector('[data-all="no"]').click()""")
    assert not any(tab.ask(DRAWN).values())
    assert tab.ask(LINES) == 0
    tab.ask("""document.querySelector('[data-all="yes"]').click()""")
    assert (tab.ask(DRAWN), tab.ask(LINES)) == (before, lines)


def test_by_keyboard_alone(tab: Tab) -> None:
    """Links, heads of tables, frames, switches, folds: all are met by Tab, and answer."""
    tab.ask("document.activeElement.blur()")
    met: list[list[str]] = []
    while not met or met[-1][0] != "BODY":  # behind the last one, the browser itself is next
        tab.press("Tab")
        met.append(tab.ask(FOCUS))
        assert len(met) < 150
    assert {outline for _, _, outline in met[:-1]} == {"solid"}
    kinds = [kind for kind, _, _ in met]
    assert kinds.count("INPUT") == 5
    assert kinds.count("SUMMARY") == 8 + 2
    for name in ("All", "None", "p (Holm)", "setting", "status"):
        assert ["BUTTON", name, "solid"] in met, name
    assert ["A", "Curves", "solid"] in met
    tab.ask(f"{head('scores', 'test loss (nats)')}.querySelector('button').focus()")
    tab.press("Enter")
    assert tab.ask(f"{head('scores', 'test loss (nats)')}.ariaSort") == "ascending"
    tab.press(" ")
    assert tab.ask(f"{head('scores', 'test loss (nats)')}.ariaSort") == "descending"
    tab.ask('document.querySelector("#shown input").focus()')
    tab.press(" ")
    assert "backpropagation" not in tab.ask(DRAWN)["time"]
    tab.ask('document.querySelector("figure summary").focus()')
    tab.press("Enter")
    assert tab.ask('document.querySelector("figure details").open') is True
    tab.resize(400)
    tab.ask('document.querySelector("#scores").parentElement.focus()')
    tab.press("ArrowRight", times=3)
    scrolled = "new Promise(d => setTimeout(() => d(document.activeElement.scrollLeft), 300))"
    assert tab.ask(scrolled) > 0


@pytest.mark.parametrize("width", [400, pytest.param(1200, marks=pytest.mark.slow)])
def test_nothing_sticks_out(width: int, tab: Tab) -> None:
    """The page never scrolls sideways, figures fill their column, texts are large enough."""
    tab.resize(width)
    tab.ask(SETTLED)
    assert tab.ask("document.documentElement.scrollWidth") <= width
    boxes = tab.ask("""[...document.querySelectorAll(".plot, .frame, h1, p, fieldset, figure")]
        .map(e => e.getBoundingClientRect()).filter(b => b.width).map(b => [b.left, b.right])""")
    assert all(left >= 0 and right <= width for left, right in boxes)
    plots = tab.ask("""[...document.querySelectorAll(".plot .main-svg:first-child")]
        .map(svg => [svg.getBoundingClientRect().width, svg.closest("figure").clientWidth])""")
    assert len(plots) == 8
    assert all(abs(own - column) <= 1 for own, column in plots)
    # What is cut off by its own figure cannot be read.
    outside = tab.ask("""[...document.querySelectorAll(".plot text")].filter(text => {
        const own = text.getBoundingClientRect();
        const plot = text.closest(".plot").getBoundingClientRect();
        return own.width && (own.left < plot.left - 1 || own.right > plot.right + 1
          || own.top < plot.top - 1 || own.bottom > plot.bottom + 1);
      }).map(text => text.textContent)""")
    assert outside == []
    sizes = tab.ask("""[...document.querySelectorAll("td, p, button, label, .plot text")]
        .map(e => parseFloat(getComputedStyle(e).fontSize))""")
    assert min(sizes) >= 12
    touched = tab.ask("""[...document.querySelectorAll("button, summary, label, nav a")]
        .filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect().height)""")
    assert min(touched) >= 24  # WCAG 2.2, 2.5.8


def test_a_long_name_and_a_flat_curve(anew: Opened, tmp_path: Path) -> None:
    """A title without spaces is broken; an axis between two round numbers still has a scale."""
    lines = curve(0.25, 0.5)
    for number, line in enumerate(lines):
        line["train"]["loss"] = 2.4 - 0.1 * number
    model = f"mine.{'deep' * 40}:factory"
    write_page([run(tmp_path / "run", lines=lines, model=model)], out=tmp_path / "page.html")
    tab = anew(tmp_path / "page.html", width=400)
    assert tab.ask("document.documentElement.scrollWidth") == 400
    scale = tab.ask("""[...document.querySelectorAll('[data-figure="training-loss"] .ytick text')]
        .map(tick => Number(tick.textContent))""")
    assert len([tick for tick in scale if 2.25 < tick < 2.45]) >= 2


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [float(each) / 255 for each in re.findall(r"[\d.]+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return math.fsum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, two: str) -> float:
    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_can_be_read(dark: bool, tab: Tab) -> None:
    tab.paint(dark=dark)
    tab.ask(SETTLED)
    ground = tab.ask("getComputedStyle(document.body).backgroundColor")
    assert (luminance(ground) < 0.05) is dark
    shown = tab.ask("""[...document.querySelectorAll("p, td, th, a, summary, label, .plot text")]
        .map(e => { const style = getComputedStyle(e);
                    return e.closest("svg") ? style.fill : style.color; })""")
    assert min(contrast(ground, colour) for colour in set(shown)) >= 4.5
    lines = tab.ask("""[...document.querySelectorAll(".scatterlayer .js-line")]
        .map(line => getComputedStyle(line).stroke)""")
    assert len(set(lines)) == 5
    # Okabe & Ito's purple, orange and sky blue are pale; dashes and marks tell them apart as well.
    assert min(contrast(ground, colour) for colour in set(lines)) >= 2
    dashes = tab.ask(f"""[...document.querySelectorAll('{CURVES}')]
        .map(line => line.style.strokeDasharray)""")
    assert len(set(dashes)) == 5
    # When the reader changes his mind, the page follows without being opened anew.
    tab.paint(dark=not dark)
    tab.ask(SETTLED)
    other = tab.ask("getComputedStyle(document.querySelector('.scatterlayer .js-line')).stroke")
    assert contrast(other, lines[0]) == pytest.approx(21, rel=1e-3)


def test_when_something_is_wrong_it_is_heard(anew: Opened, page: Path, tmp_path: Path) -> None:
    """Else a silent console would prove nothing; and the page's policy stops what would load."""
    text = page.read_text(encoding="utf-8")
    head = text[: text.index("</head>")]
    wrong = "<script>console.error('heard'); setTimeout(() => { throw Error('thrown') })</script>"
    (tmp_path / "wrong.html").write_text(f"{head}{wrong}<img src='https://example.org/x.png'>")
    said = " ".join(anew(tmp_path / "wrong.html").complaints())
    assert "heard" in said
    assert "thrown" in said
    assert "Content Security Policy" in said


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_a_small_screen_from_the_beginning(dark: bool, anew: Opened, page: Path) -> None:
    tab = anew(page, width=400, dark=dark)
    assert tab.complaints() == []
    assert tab.requests() == [page.as_uri()]
    assert tab.ask("document.documentElement.scrollWidth") == 400
    widths = tab.ask("""[...document.querySelectorAll(".plot .main-svg:first-child")]
        .map(svg => svg.getBoundingClientRect().width)""")
    assert len(widths) == 8
    assert all(300 < width <= 400 for width in widths)


@pytest.mark.slow
def test_every_method_on_one_page(anew: Opened, tmp_path: Path) -> None:
    """Legends of many lines still leave room for the curves."""
    tests = {name: [0.5, 0.6] for name in fdfa.methods()}
    write_page([comparison(tmp_path / "all", tests)], out=tmp_path / "page.html")
    for width in (1400, 400):
        tab = anew(tmp_path / "page.html", width=width)
        assert tab.complaints() == []
        assert tab.ask("document.documentElement.scrollWidth") == width
    heights = tab.ask("""[...document.querySelectorAll(".plot .nsewdrag")]
        .map(each => each.getBoundingClientRect().height)""")
    assert len(heights) == 8
    assert min(heights) >= 200

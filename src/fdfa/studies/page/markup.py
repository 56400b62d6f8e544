"""The page as HTML: every text of a run is escaped, and nothing is fetched from anywhere."""

from __future__ import annotations

import html
import importlib.resources
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import fdfa
from fdfa.studies.page.cells import Cell, Table
from fdfa.studies.page.curves import Chart

__all__ = [
    "GENERATOR",
    "contents_links",
    "document",
    "escaped",
    "figure",
    "folded",
    "notes_list",
    "switches",
    "table",
]

# By this line a page of ours is known when it is to be replaced.
GENERATOR = '<meta name="generator" content="fdfa report'

# Whatever a text might smuggle in: the browser itself loads nothing for this page.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


def document(title: str, body: Sequence[str], figures: Mapping[str, Any], library: str) -> str:
    """The whole page.

    Args:
        title: of it.
        body: its sections, as HTML.
        figures: what the script draws.
        library: the script that draws.

    Returns:
        HTML.
    """
    style, script = (_beside(name) for name in ("page.css", "page.js"))
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'{GENERATOR} {fdfa.__version__}">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>",
            *body,
            f'<script type="application/json" id="figures">{_in_script(figures)}</script>',
            f"<script>{library}</script>\n<script>\n{script}</script>\n</body>\n</html>\n",
        ]
    )


def escaped(text: str) -> str:
    """A text that the browser shows as it is.

    Args:
        text: any.

    Returns:
        HTML.
    """
    return html.escape(text)


def contents_links() -> str:
    """Where on the page to find what.

    Returns:
        HTML.
    """
    links = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, name in _SECTIONS.items())
    return f'<nav aria-label="On this page"><ul>{links}</ul></nav>'


_SECTIONS = {
    "results": "Results",
    "cost": "Time and memory",
    "curves": "Curves",
    "settings": "Settings",
    "single": "Single runs",
}


def table(content: Table) -> str:
    """A table whose columns can be sorted, in a frame that scrolls sideways.

    Args:
        content: what it holds.

    Returns:
        HTML.
    """
    columns = list(zip(*content.rows, strict=True)) or [()] * len(content.heads)
    kinds = [
        ' class="number"' if any(c.value is not None for c in each) else "" for each in columns
    ]
    heads = "".join(
        f'<th scope="col"{kind}><button type="button">{html.escape(head)}</button></th>'
        for head, kind in zip(content.heads, kinds, strict=True)
    )
    rows = "\n".join(
        f'<tr><th scope="row">{html.escape(first.text)}</th>'
        + "".join(
            f"<td{kind}{_value(cell)}>{html.escape(cell.text)}</td>"
            for cell, kind in zip(rest, kinds[1:], strict=True)
        )
        + "</tr>"
        for first, *rest in content.rows
    )
    name = f"{content.key}-caption"
    return (
        f'<div class="frame" role="region" tabindex="0" aria-labelledby="{name}">\n'
        f'<table id="{content.key}">\n<caption id="{name}">{html.escape(content.caption)}</caption>'
        f"\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def folded(content: Table) -> str:
    """A table behind its caption.

    Args:
        content: what it holds.

    Returns:
        HTML.
    """
    caption = html.escape(content.caption)
    return f"<details><summary>{caption}</summary>\n{table(content)}\n</details>"


def figure(chart: Chart, data: Table, notes: Iterable[str]) -> str:
    """A place for a figure, with its numbers behind a fold.

    Args:
        chart: what is drawn there.
        data: its numbers.
        notes: on gaps in it.

    Returns:
        HTML.
    """
    title, says = html.escape(chart.title), html.escape(chart.says)
    label = f"{title}: {html.escape(chart.y)} by {html.escape(chart.x)}. Its numbers follow."
    return (
        f'<figure id="{chart.key}">\n<figcaption><h3>{title}</h3><p>{says}</p>'
        + "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
        + f'</figcaption>\n<div class="plot" data-figure="{chart.key}" role="img" '
        f'aria-label="{label}"></div>\n<details><summary>Numbers of this figure</summary>\n'
        f"{table(data)}\n</details>\n</figure>"
    )


def switches(names: Sequence[str]) -> str:
    """A checkbox for each contestant: whether the figures show it.

    Args:
        names: of the contestants.

    Returns:
        HTML.
    """
    boxes = "\n".join(
        f'<label><input type="checkbox" checked data-contestant="{place}">'
        f'<span class="sample" data-contestant="{place}"></span>{html.escape(name)}</label>'
        for place, name in enumerate(names)
    )
    return (
        f'<fieldset id="shown">\n<legend>Shown in the figures</legend>\n<div>{boxes}</div>\n'
        '<div><button type="button" data-all="yes">All</button> '
        '<button type="button" data-all="no">None</button></div>\n</fieldset>'
    )


def notes_list(notes: Sequence[str]) -> str:
    """What a reader must know before the numbers.

    Args:
        notes: any.

    Returns:
        HTML; nothing if there are none.
    """
    if not notes:
        return ""
    items = "\n".join(f"<li>{html.escape(note)}</li>" for note in notes)
    section = '<section class="notes" aria-label="Notes">\n<h2>Notes</h2>'
    return f"{section}\n<ul>\n{items}\n</ul>\n</section>"


def _value(cell: Cell) -> str:
    if cell.missing:
        return ' data-missing="yes"'
    return "" if cell.value is None else f' data-value="{cell.value!r}"'


def _in_script(content: Mapping[str, Any]) -> str:
    """JSON that no text in it can end before its time."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _beside(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")

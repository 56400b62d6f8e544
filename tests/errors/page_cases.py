"""What stands in the way of a page that compares runs."""

from __future__ import annotations

import json

from fdfa.errors import ConfigError
from fdfa.studies.page import write_page
from tests.errors.provoke import Case, Here

__all__ = ["PAGE_CASES"]

RUN = {
    "train": {"method": "dfa", "seed": 0, "task": {"data": "digits"}, "training": {}},
    "environment": {},
}


def _page(
    name: str,
    *,
    config: object = RUN,
    out: str = "page.html",
    page: str | None = None,
    overwrite: bool = False,
    against: str | None = None,
) -> Case:
    """A page of one folder; ``page`` is what lies there already."""

    def run(here: Here) -> None:
        folder = here.folder / "run"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        path = here.folder / out
        if page is not None:
            path.write_text(page)
        write_page([folder], out=path, overwrite=overwrite, against=against)

    return Case(f"page: {name}", ConfigError, run)


def _without_plotly(here: Here) -> None:
    here.patch.setattr("importlib.util.find_spec", lambda name: None)
    write_page([here.folder], out=here.folder / "page.html")


def _no_folder(here: Here) -> None:
    write_page([], out=here.folder / "page.html")


def _of(given: str) -> Case:
    """A page of something that is no run."""

    def run(here: Here) -> None:
        (here.folder / "file").write_text("")
        (here.folder / "empty").mkdir()
        write_page([here.folder / given], out=here.folder / "page.html")

    return Case(f"page: of what is {given}", ConfigError, run)


PAGE_CASES = [
    Case("page: without plotly", ConfigError, _without_plotly),
    Case("page: of nothing", ConfigError, _no_folder),
    *map(_of, ("absent", "file", "empty")),
    _page("of a comparison that has not begun", config={"compare": {}, "environment": {}}),
    _page("of a run without a method", config={"train": {}, "environment": {}}),
    _page("an unknown baseline", against="dfb"),
    _page("in a folder's place", out="run"),
    _page("in a folder that is not there", out="pages/page.html"),
    _page("where one is already", page="<html>"),
    _page("in place of something else", page="<html>", overwrite=True),
]

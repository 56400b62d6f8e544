"""One self-contained HTML page that puts runs side by side, with every number behind it."""

from __future__ import annotations

from fdfa.studies.page.write import PageReport, write_page

__all__ = ["PageReport", "write_page"]

"""``scripts/break_it.py`` runs for minutes and by hand; that its faults still fit costs nothing."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_fault_finds_its_line(monkeypatch) -> None:
    """A renamed function leaves a fault that breaks nothing, and a suite that proves less."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    for path in (ROOT / "scripts").glob("*fault*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    from faults import FAULTS

    assert len(FAULTS) >= 15
    stale = []
    for fault in FAULTS:
        times = (ROOT / "src" / "fdfa" / fault.file).read_text().count(fault.text)
        stale += [] if times == 1 else [f"{fault.name}: {times} times"]
    assert not stale

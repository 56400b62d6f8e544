"""``scripts/break_it.py`` runs for minutes and by hand; that its faults still fit costs nothing."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_fault_finds_its_line(monkeypatch) -> None:
    """A renamed function leaves a fault that breaks nothing, and a suite that proves less."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.delitem(sys.modules, "faults", raising=False)
    monkeypatch.delitem(sys.modules, "run_faults", raising=False)
    from faults import FAULTS
    from run_faults import RUN_FAULTS

    assert len(FAULTS) >= 15
    stale = []
    for fault in (*FAULTS, *RUN_FAULTS):
        times = (ROOT / "src" / "fdfa" / fault.file).read_text().count(fault.text)
        stale += [] if times == 1 else [f"{fault.name}: {times} times"]
    assert not stale

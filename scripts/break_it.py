"""Breaks a copy of the library in many places, one at a time, and checks that the tests notice.

A test suite that passes says little until one knows what would make it fail. Each fault is one
line of ``src`` replaced in a temporary copy; the tests that it names must then fail. Before that,
the same tests must pass on the unbroken copy.

Usage: ``python scripts/break_it.py [--list] [--only NAME ...]``. Exit status 1 if a fault survives,
2 if one could not be tried.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fault import Fault
from faults import FAULTS

ROOT = Path(__file__).resolve().parent.parent
TESTS_FAILED = 1  # pytest's exit status; any other than 0 is no verdict

# Loaded by pytest with -p: an installed fdfa must not stand in for the broken copy.
GUARD = """
import pathlib
import fdfa

def pytest_configure(config):
    if not pathlib.Path(fdfa.__file__).is_relative_to({copy!r}):
        raise RuntimeError(f"tests import {{fdfa.__file__}} instead of the copy")
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the faults; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="name the faults and stop")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="faults whose name holds this")
    options = parser.parse_args(arguments)
    chosen = [f for f in FAULTS if not options.only or any(n in f.name for n in options.only)]
    if not chosen:
        parser.error(f"no fault is named so: {', '.join(options.only)}. See --list.")
    if options.list:
        for fault in chosen:
            print(f"{fault.name:58}{fault.file}")
        return 0
    with tempfile.TemporaryDirectory(prefix="fdfa-broken-") as folder:
        copy = Path(folder).resolve() / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "fdfa_guard.py").write_text(GUARD.format(copy=str(copy)))
        return _try_all(chosen, copy)


def _try_all(faults: Sequence[Fault], copy: Path) -> int:
    needed = sorted({test for fault in faults for test in fault.tests})
    status, output = _run(needed, copy)
    if status:
        print(f"{output}\nthe tests must pass on the unbroken copy first (pytest: {status}).")
        return 2
    survived, untried = [], []
    for fault in faults:
        started = time.monotonic()
        verdict = _try(fault, copy)
        print(f"{verdict:9} {time.monotonic() - started:5.1f} s  {fault.name}", flush=True)
        if verdict == "SURVIVED":
            survived.append(fault.name)
        elif verdict != "caught":
            untried.append(fault.name)
    print(f"{len(faults) - len(survived) - len(untried)} of {len(faults)} faults caught.")
    return 2 if untried else 1 if survived else 0


def _try(fault: Fault, copy: Path) -> str:
    """The verdict on one fault, which is gone again afterwards."""
    path = copy / "fdfa" / fault.file
    sound = path.read_text()
    if sound.count(fault.text) != 1:
        print(f"{fault.file} holds {sound.count(fault.text)} times, not once: {fault.text!r}")
        return "STALE"
    path.write_text(sound.replace(fault.text, fault.instead))
    try:
        status, output = _run(fault.tests, copy)
    finally:
        path.write_text(sound)
    if status not in (0, TESTS_FAILED):
        print(output)
        return "BROKEN"  # no valid program, or no tests: proves nothing
    return "caught" if status else "SURVIVED"


def _run(tests: Sequence[str], copy: Path) -> tuple[int, str]:
    """Pytest's exit status and output for these tests against the copy."""
    command = [sys.executable, "-m", "pytest", *tests, "-m", "", "-x", "-q", "-n", "0"]
    command += ["-p", "no:cacheprovider", "-p", "fdfa_guard", "--tb=no"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",  # a stale .pyc of the same second would hide a fault
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())

"""Draws the learning curve on every method's page: the method beside backpropagation, on digits.

Usage: ``python scripts/draw_curves.py [NAME ...]``: all methods, or those named. What it trains is
`fdfa compare --data digits --methods all --epochs 20 --seeds 3`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

from fdfa.studies.compare import CompareConfig, compare
from fdfa.studies.plots import learning_curves
from fdfa.training import TrainingSettings

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "methods" / "curves"
REFERENCE = "backpropagation"


def main(names: Sequence[str]) -> None:
    """Train all and draw one picture a method."""
    methods = (REFERENCE, *(name for name in names if name != REFERENCE)) if names else ("all",)
    training = TrainingSettings(epochs=20)
    runs = compare(CompareConfig(methods=methods, seeds=3, training=training)).runs
    FOLDER.mkdir(exist_ok=True)
    # Text stays text, and the same runs give the same bytes.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fdfa"})
    for method in dict.fromkeys(run.method for run in runs):
        shown = [run for run in runs if run.method in (REFERENCE, method)]
        figure = learning_curves(shown, subject="digits, 64-256-256-10")
        figure.savefig(FOLDER / f"{method}.svg", metadata={"Date": None})
        print(f"{method}.svg")


if __name__ == "__main__":
    main(sys.argv[1:])

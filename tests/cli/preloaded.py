"""What a forking server imports once for all the processes that it will fork: see processes.py.

No tensor is touched: what torch starts on first use does not survive a fork.
"""

from __future__ import annotations

import importlib
import io

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fdfa.cli.parsing import parse

for module in ("torch._dynamo", "torch._decomp.decompositions_for_jvp"):
    importlib.import_module(module)  # as torch itself does in a first step
parse(["train"])
parse(["resume", "nothing"])
with mpl.rc_context({"svg.fonttype": "none"}):
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([1, 2], label="x")
    axes.legend()
    for ending in ("png", "svg"):
        figure.savefig(io.BytesIO(), format=ending)

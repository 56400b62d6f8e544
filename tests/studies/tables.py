"""Studies as files, small enough to be made in a moment."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SMALL", "written"]

# Two tasks on the digits, two rules, one of which learns but the first task.
SMALL = """
summary = "a small table"
source = "nobody"
seeds = 2
differences = ["Everything is smaller."]
training = { epochs = 2, batch_size = 256 }

[[task]]
name = "narrow"
label = "Narrow"
data = "digits"
training = { learning_rate = 2e-3 }
model_options = { width = 8, depth = 1 }

[[task]]
name = "wide"
label = "Wide"
data = "digits"
validation = 0
model_options = { width = 16, depth = 1 }

[[rule]]
name = "bp"
label = "BP"
method = "backpropagation"

[[rule]]
name = "dfa"
label = "DFA"
method = "dfa"
training = { learning_rate = 3e-3 }
model_options = { batch_norm = false }
tasks = ["narrow"]
"""


def written(folder: Path, text: str = SMALL, *, name: str = "small") -> Path:
    """The file of a study."""
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path

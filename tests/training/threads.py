"""``python -m tests.training.threads THREADS FOLDER CASE...``: cut and resume on so many threads.

In a process of its own: the number of threads is global. The networks are wide enough that torch
shares their work out.
"""

from __future__ import annotations

import pathlib
import sys
import warnings
from collections.abc import Sequence

import torch
from torch import nn

from fdfa.data import Examples
from fdfa.training import Callback, Trainer, TrainingSettings
from tests.methods import CASES, Case
from tests.training.cuts import Make, assert_resumes

__all__ = ["main"]

WIDTH = 300


def wide(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(60, WIDTH),
        nn.BatchNorm1d(WIDTH),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, 3),
    )


def examples() -> Examples:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(700, 60, generator=generator)
    return Examples(inputs, inputs[:, :3].argmax(1))


def wide_trainer(case: Case) -> Make:
    settings = TrainingSettings(epochs=2, batch_size=250, schedule="cosine", clip_norm=1.0)

    def make(number: int, callbacks: Sequence[Callback]) -> Trainer:
        learner = case.wrap(wide(number), seed=number)
        return Trainer(learner, settings, seed=number, callbacks=callbacks)

    return make


def main(threads: int, folder: pathlib.Path, names: Sequence[str]) -> None:
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated")
    assert torch.get_num_threads() == threads
    for case in CASES:
        if str(case) in names:
            cuts = ["step 2", "step 5"]
            assert_resumes(wide_trainer(case), examples(), None, folder / str(case), at=cuts)
            print(case, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:])

"""Every generator comes back, wherever it is in its stream."""

from __future__ import annotations

import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from fdfa.engine.random_state import capture_random_state, restore_random_state
from fdfa.training import Checkpoint, read_checkpoint, write_checkpoint

# ruff: noqa: NPY002 - the global generator of numpy is what users draw from


def draws() -> list[float]:
    """From every generator, uniform and normal: the normal ones keep a second number for later."""
    return [
        *torch.rand(3).tolist(),
        *torch.randn(17).tolist(),
        random.random(),
        random.gauss(0, 1),
        float(np.random.random_sample()),
        float(np.random.standard_normal()),
        float(np.random.normal()),
    ]


@pytest.mark.parametrize("position", range(5))
def test_the_same_numbers_come_again_through_a_checkpoint(
    position: int, tmp_path: pathlib.Path
) -> None:
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    for _ in range(position):
        torch.randn(3), random.gauss(0, 1), np.random.standard_normal()
    write_checkpoint(tmp_path, Checkpoint({}, capture_random_state(), {}, 0))
    expected = draws()
    torch.manual_seed(2), random.seed(2), np.random.seed(2)
    draws()
    restore_random_state(read_checkpoint(tmp_path).state)
    assert draws() == expected


def test_to_capture_moves_nothing() -> None:
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    expected = draws()
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    capture_random_state()
    assert draws() == expected


def test_numpy_is_not_imported_for_it() -> None:
    """It need not be installed; torch imports it where it is."""
    program = (
        "import sys\n"
        "sys.modules['numpy'] = None\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "import torch\n"
        "del sys.modules['numpy']\n"
        "from fdfa.engine.random_state import capture_random_state, restore_random_state\n"
        "states = capture_random_state()\n"
        "restore_random_state(states)\n"
        "assert set(states) == {'torch', 'python'}, set(states)\n"
        "assert 'numpy.random' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

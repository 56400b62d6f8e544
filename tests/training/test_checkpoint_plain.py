"""What a checkpoint needs: plain PyTorch to load the model; no numpy, and little memory."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fdfa.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from tests.training.checkpoint_cases import assert_same, example


class Tied(nn.Module):
    """Weights shared between two layers, as in language models."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.embed(x)))


PLAIN_PYTORCH = """
import sys
sys.modules["fdfa"] = sys.modules["numpy"] = None  # importing either now fails
import torch, safetensors.torch
from torch import nn
{source}
model = Tied()
found = safetensors.torch.load_file(sys.argv[1])
print(model.load_state_dict(found, strict=True))
print(model.head.weight is model.embed.weight, model.eval()(torch.arange(5)).tolist())
"""


def test_plain_pytorch_loads_the_model_tied_weights_and_all(tmp_path: Path) -> None:
    model = Tied()
    model(torch.arange(5))  # moves the statistics of the norm
    path = write_checkpoint(tmp_path, Checkpoint(model.state_dict(), {}, {}, 1))
    source = inspect.getsource(Tied).replace("-> Tensor", "").replace("x: Tensor", "x")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN_PYTORCH.format(source=source),
         str(path / "model.safetensors")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    expected = model.eval()(torch.arange(5)).tolist()
    assert (done.stdout, done.stderr) == (f"<All keys matched successfully>\nTrue {expected}\n", "")


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
import torch
from fdfa.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
written = Checkpoint({"w": torch.ones(3, 2).T, "e": torch.empty(0)}, {"s": torch.tensor(2)}, {}, 1)
write_checkpoint(sys.argv[1], written)
print(read_checkpoint(sys.argv[1]).model["w"].sum().item())
"""


@pytest.mark.slow
def test_no_numpy_is_needed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_NUMPY, str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("6.0\n", "")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_on_a_gpu_are_written_and_come_back_on_the_cpu(tmp_path: Path) -> None:
    written = example(3)
    on_gpu = {name: tensor.cuda() for name, tensor in written.model.items()}
    on_gpu["transposed"] = torch.arange(6.0, device="cuda").reshape(2, 3).T
    write_checkpoint(tmp_path, Checkpoint(on_gpu, written.state, written.values, 3))
    model = {**written.model, "transposed": torch.arange(6.0).reshape(2, 3).T}
    assert_same(read_checkpoint(tmp_path), Checkpoint(model, written.state, written.values, 3))


MEMORY = """
import sys, torch
from pathlib import Path
from fdfa.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

def peak(act):
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is used now
    before = used("VmRSS")
    kept = act()
    print(used("VmHWM") - before)
    return kept

def used(name):
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if name in x)
    return int(line.split()[1]) << 10

model = {f"{n}": torch.zeros(1 << 20) for n in range(8)}
state = {f"{n}": torch.zeros(1 << 20) for n in range(8)}
write_checkpoint(sys.argv[1], Checkpoint({"warm": torch.zeros(1)}, {}, {}, 1))
peak(lambda: write_checkpoint(sys.argv[1], Checkpoint(model, state, {}, 2)))
del model, state
peak(lambda: read_checkpoint(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's accounts")
def test_memory_beside_the_tensors_is_bounded(tmp_path: Path) -> None:
    """No copy is made to write; one file's bytes are held to read."""
    done = subprocess.run(  # a process of its own: other tests raise the mark too
        [sys.executable, "-W", "ignore", "-c", MEMORY, str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    one_file = 32 << 20
    writing, reading = map(int, done.stdout.split())
    assert writing < one_file / 8
    assert reading < 3.2 * one_file  # the tensors of two files, and the bytes of one

"""What a file cannot hold is refused by name, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fdfa.errors import CheckpointError
from fdfa.training.checkpoint import Checkpoint, write_checkpoint
from fdfa.training.checkpoint_names import latest
from tests.training.checkpoint_cases import example, example_step


@pytest.mark.parametrize(
    ("place", "tensor", "text"),
    [
        ("t", torch.zeros(2, 2).to_sparse(), r"model\['t'\] has layout torch.sparse_coo"),
        ("t", torch.zeros(2, device="meta"), r"model\['t'\] has a shape but no data \(device meta"),
        ("t", [1.0], r"model\['t'\] is of type list, no tensor. Keep it in `values`"),
        ("__metadata__", torch.zeros(2), "no name for a tensor"),
        ("\ud800", torch.zeros(2), "no name for a tensor"),
        (3, torch.zeros(2), r"model\[3\]: no name for a tensor"),
    ],
    ids=["sparse", "meta", "list", "reserved", "surrogate", "number"],
)
def test_what_a_file_cannot_hold_is_refused_by_name(
    tmp_path: Path, place: Any, tensor: Any, text: str
) -> None:
    write_checkpoint(tmp_path, example(1))
    good = Checkpoint({}, {}, {}, 2)
    with pytest.raises(CheckpointError, match=text):
        write_checkpoint(tmp_path, Checkpoint({place: tensor}, good.state, good.values, 2))
    with pytest.raises(CheckpointError, match=text.replace("model", "state")):
        write_checkpoint(tmp_path, Checkpoint(good.model, {place: tensor}, good.values, 2))
    assert example_step(tmp_path) == 1


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided])
def test_a_nested_tensor_is_refused(tmp_path: Path, layout: torch.layout) -> None:
    nested = torch.nested.as_nested_tensor([torch.zeros(2), torch.zeros(3)], layout=layout)
    with pytest.raises(CheckpointError, match=r"state\['t'\] has layout nested"):
        write_checkpoint(tmp_path, Checkpoint({}, {"t": nested}, {}, 2))


def test_a_tensor_that_only_traces_is_refused(tmp_path: Path) -> None:
    with FakeTensorMode():
        fake = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"state\['t'\] is a FakeTensor"):
        write_checkpoint(tmp_path, Checkpoint({}, {"t": fake}, {}, 2))


def test_a_tensor_whose_memory_was_freed_is_refused_not_followed_to_address_0(
    tmp_path: Path,
) -> None:
    freed = torch.zeros(2)
    freed.untyped_storage().resize_(0)
    with pytest.raises(CheckpointError, match=r"state\['t'\] has a shape but no data"):
        write_checkpoint(tmp_path, Checkpoint({}, {"t": freed}, {}, 2))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"a": [{"b": torch.ones(1)}]}, r"values\['a'\]\[0\]\['b'\] is of type Tensor.*`state`"),
        ({"a": {3: 1}}, r"values\['a'\] has the key 3"),
        ({None: 1}, "values has the key None"),
        ({"a": {1, 2}}, r"values\['a'\] is of type set"),
        ({"a": b"raw"}, r"values\['a'\] is of type bytes"),
        ({"a": 1j}, r"values\['a'\] is of type complex"),
        ({"a": 10**5000}, "has more than 4,300 digits"),
        ([1], "`values` is a list; a checkpoint keeps a dict"),
    ],
)
def test_values_that_json_would_change_are_refused_by_place(
    tmp_path: Path, values: Any, text: str
) -> None:
    with pytest.raises(CheckpointError, match=text):
        write_checkpoint(tmp_path, Checkpoint({}, {}, values, 2))
    assert latest(tmp_path) is None


@pytest.mark.parametrize("kind", [list, dict])
def test_values_that_are_nested_without_end_are_refused(tmp_path: Path, kind: type) -> None:
    endless: Any = kind()
    if kind is list:
        endless.append(endless)
    else:
        endless["again"] = endless
    with pytest.raises(CheckpointError, match="nested too deeply"):
        write_checkpoint(tmp_path, Checkpoint({}, {}, {"a": endless}, 2))


@pytest.mark.parametrize("step", [-1, True, 1.0, "1", None])
def test_a_step_that_is_none_is_refused(step: Any) -> None:
    with pytest.raises(ValueError, match=r"step=.* is not possible"):
        Checkpoint({}, {}, {}, step)

"""What goes into a checkpoint comes out of it, to the last bit; and plain PyTorch can read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fdfa.errors import CheckpointError
from fdfa.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fdfa.training.checkpoint_names import latest
from fdfa.training.contents import tensor_bytes
from tests.training.checkpoint_cases import FILES, assert_same, bits, example

# All that torch has, the readable ones first, as the library (not our table) finds them.
ALL_TYPES = sorted(
    {value for value in vars(torch).values() if isinstance(value, torch.dtype)}, key=str
)


def specification(tensor: Tensor) -> safetensors.TensorSpec:
    return safetensors.TensorSpec(
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=list(tensor.shape),
        data_ptr=tensor.data_ptr(),
        data_len=tensor.nbytes,
    )


def by_the_library(tensors: dict[str, Tensor]) -> bytes:
    """The file as the format's own library writes it."""
    specifications = {name: specification(tensor) for name, tensor in tensors.items()}
    return bytes(safetensors.serialize(specifications, metadata={"format": "pt"}))


def is_readable(dtype: torch.dtype) -> bool:
    """Whether the library reads back what it writes of this type."""
    try:
        tensor = torch.zeros(16, dtype=torch.uint8).view(dtype)
        return safetensors.torch.load(by_the_library({"t": tensor}))["t"].dtype == dtype
    except (RuntimeError, KeyError, safetensors.SafetensorError):
        return False


READABLE = [dtype for dtype in ALL_TYPES if is_readable(dtype)]
ARRANGED = {
    "as it is": lambda tensor: tensor,
    "transposed": lambda tensor: tensor.permute(tuple(reversed(range(tensor.dim())))),
    "every second": lambda tensor: tensor[..., ::2] if tensor.dim() else tensor,
    "from the second": lambda tensor: tensor[1:] if tensor.dim() else tensor,
    "expanded": lambda tensor: tensor.expand(3, *tensor.shape),
    "parameter": lambda tensor: (
        nn.Parameter(tensor) if tensor.is_floating_point() else tensor.unsqueeze(0)
    ),
}


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bits of any type, shape and arrangement in memory."""
    dtype = draw(st.sampled_from(READABLE))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = torch.Size(shape).numel()
    raw = bytearray(
        draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    )
    if dtype == torch.bool:
        raw = bytearray(byte & 1 for byte in raw)
    flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
    return ARRANGED[draw(st.sampled_from(sorted(ARRANGED)))](flat.reshape(shape))


names = st.text(max_size=12).filter(lambda name: name != "__metadata__")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    model=st.dictionaries(names, tensors(), max_size=4),
    state=st.dictionaries(names, tensors(), max_size=3),
    values=st.dictionaries(st.text(), values, max_size=4),
    step=st.integers(0, 10**12),
)
@settings(deadline=None)
def test_everything_comes_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory,
    model: dict[str, Tensor],
    state: dict[str, Tensor],
    values: dict[str, Any],
    step: int,
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    written = Checkpoint(model, state, values, step)
    path = write_checkpoint(folder, written)
    assert_same(read_checkpoint(folder), written)
    by_library = safetensors.torch.load_file(path / "model.safetensors")  # another reader
    assert_same(Checkpoint(by_library, state, values, step), written)


@given(names=st.sets(names, max_size=5), tensor=tensors())
@settings(deadline=None)
def test_the_file_is_byte_for_byte_what_the_library_writes(names: set[str], tensor: Tensor) -> None:
    # One type and shape: the library has an order of its own among types of the same size.
    plain = tensor.detach().contiguous()
    ours = b"".join(tensor_bytes(dict.fromkeys(names, tensor)))
    assert ours == by_the_library(dict.fromkeys(names, plain))


@given(tensors=st.dictionaries(names, tensors(), max_size=6))
@settings(deadline=None)
def test_every_tensor_is_aligned(tensors: dict[str, Tensor]) -> None:
    raw = b"".join(tensor_bytes(tensors))
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    for name, tensor in tensors.items():
        assert header[name]["data_offsets"][0] % tensor.itemsize == 0


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, at its experimental types
@pytest.mark.parametrize("dtype", ALL_TYPES, ids=str)
def test_a_type_is_written_if_and_only_if_it_can_be_read(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    if dtype in READABLE:
        tensor = torch.arange(16, dtype=torch.uint8).view(dtype)
        if dtype == torch.bool:
            tensor = torch.tensor([True, False])
        written = Checkpoint({"t": tensor}, {}, {}, 0)
        write_checkpoint(tmp_path, written)
        assert_same(read_checkpoint(tmp_path), written)
        return
    refused = torch.empty(2, dtype=dtype) if dtype.is_complex else _of_odd_type(dtype)
    with pytest.raises(CheckpointError, match=rf"model\['t'\] is of type {dtype}"):
        write_checkpoint(tmp_path, Checkpoint({"t": refused}, {}, {}, 0))
    assert latest(tmp_path) is None


def _of_odd_type(dtype: torch.dtype) -> Tensor:
    """Types that only a view or a quantisation makes."""
    if "qint" in str(dtype) and "x" not in str(dtype):
        return torch._empty_affine_quantized([2], scale=1.0, zero_point=0, dtype=dtype)
    try:
        return torch.zeros(16, dtype=torch.uint8).view(dtype)
    except RuntimeError:
        pytest.skip(f"torch makes no tensor of {dtype}")


def test_a_nan_keeps_its_payload(tmp_path: Path) -> None:
    patterns = torch.tensor([0x7FC00001, -0x7FFFFF, 0x7F800001, -0x80000000], dtype=torch.int64)
    weight = patterns.to(torch.int32).view(torch.float32)
    assert weight[:3].isnan().all()
    write_checkpoint(tmp_path, Checkpoint({"w": weight, "t": weight.reshape(2, 2).T}, {}, {}, 1))
    model = read_checkpoint(tmp_path).model
    assert torch.equal(bits(model["w"]), patterns.to(torch.int32))
    assert torch.equal(bits(model["t"]), patterns.to(torch.int32).reshape(2, 2).T)


def test_lazy_conjugates_and_negatives_are_written_as_the_values_they_have(tmp_path: Path) -> None:
    number = torch.tensor([1 + 2j, 3 - 4j])
    lazy = {
        "conjugate": number.conj(),
        "negative": number.conj().imag,
        "negative in one piece": torch._neg_view(torch.tensor([2.0, -4.0])),
    }
    assert [tensor.is_conj() or tensor.is_neg() for tensor in lazy.values()] == [True] * 3
    write_checkpoint(tmp_path, Checkpoint(lazy, {}, {}, 1))
    model = read_checkpoint(tmp_path).model
    assert model["conjugate"].tolist() == [1 - 2j, 3 + 4j]
    assert model["negative"].tolist() == model["negative in one piece"].tolist() == [-2.0, 4.0]


def test_pieces_outlive_the_copies_that_they_show() -> None:
    pieces = list(tensor_bytes({f"{n}": torch.full((40, 50), n).T for n in range(20)}))
    rows = safetensors.torch.load(b"".join(pieces))
    assert all((rows[f"{n}"] == n).all() for n in range(20))


def test_what_is_read_is_ones_own(tmp_path: Path) -> None:
    """Writable, of its own memory, without gradient."""
    write_checkpoint(tmp_path, Checkpoint({"w": nn.Parameter(torch.ones(2))}, {}, {}, 1))
    first = read_checkpoint(tmp_path).model["w"]
    first.add_(1)
    assert not first.requires_grad
    assert read_checkpoint(tmp_path).model["w"].tolist() == [1.0, 1.0]


def test_surrogates_in_values_and_tuples_and_large_numbers_come_back(tmp_path: Path) -> None:
    given = {"\ud800": "\udfff", "betas": (0.9, 0.999), "large": -(10**4000), "zero": -0.0}
    write_checkpoint(tmp_path, Checkpoint({}, {}, given, 2))
    assert_same(read_checkpoint(tmp_path), Checkpoint({}, {}, given, 2))


def test_the_same_checkpoint_is_always_the_same_bytes(tmp_path: Path) -> None:
    paths = [write_checkpoint(tmp_path / name, example(3)) for name in ("one", "two")]
    for name in FILES:
        assert (paths[0] / name).read_bytes() == (paths[1] / name).read_bytes()

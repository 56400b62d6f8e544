"""What the files of a checkpoint hold: tensors and JSON values, to bytes and back, exactly.

No numpy, no pickle: reading runs nothing that a file holds.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fdfa.errors import CheckpointError, briefly

__all__ = ["check_tensors", "tensor_bytes", "tensors_from", "value_bytes", "values_from"]

# The types that `safetensors.torch.load` reads back, by the names that the format gives them.
_TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
}
_RESERVED = "__metadata__"
_LONG_NUMBER = 10**4300
_DEEPEST = 100  # a JSON reader follows this far wherever on the stack it is called


def check_tensors(what: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse, before anything is written, what a safetensors file cannot hold.

    Args:
        what: the tensors' name in the complaint.
        tensors: to be written.

    Raises:
        CheckpointError: if a tensor is of a type or layout that the format does not know, has no
            data, or a name is none.

    Example:
        >>> check_tensors("state", {"mean": torch.zeros(2, dtype=torch.complex128)})
        Traceback (most recent call last):
            ...
        fdfa.errors.CheckpointError: state['mean'] is of type torch.complex128, which a safetensors
        file cannot hold. Keep it as another type.
    """
    for name, tensor in tensors.items():
        where = f"{what}[{name!r}]"
        if not isinstance(name, str) or name == _RESERVED or not _encodable(name):
            raise CheckpointError(f"{where}: no name for a tensor in a file. Give it another.")
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{where} is of type {type(tensor).__name__}, no tensor. Keep it in `values`."
            )
        if tensor.layout != torch.strided or tensor.is_nested:
            layout = "nested" if tensor.is_nested else tensor.layout
            raise CheckpointError(
                f"{where} has layout {layout}, which a safetensors file cannot hold. Make it "
                "dense, or keep its parts."
            )
        if tensor.dtype not in _TYPES:
            raise CheckpointError(
                f"{where} is of type {tensor.dtype}, which a safetensors file cannot hold. Keep it "
                "as another type."
            )
        kind = type(tensor)
        if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:  # DTensor, FakeTensor, ...
            raise CheckpointError(
                f"{where} is a {kind.__name__}, which keeps its values in a way of its own. Turn "
                "it into a plain tensor."
            )
        # Reading from address 0 would end the process: sharding frees a parameter's memory so.
        if tensor.numel() and (tensor.is_meta or not tensor.untyped_storage().data_ptr()):
            raise CheckpointError(
                f"{where} has a shape but no data (device {tensor.device}). Materialise it first."
            )


def tensor_bytes(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, piece by piece.

    Written here, not by ``safetensors.serialize``, which holds two more copies of everything. At
    most one tensor is copied at a time, and only one that is not contiguous or not on the CPU. Each
    name gets the values in full, also where tensors share memory: so a plain ``load_state_dict``
    finds every key, tied weights included.

    Args:
        tensors: that :func:`check_tensors` has passed; not to be changed meanwhile.

    Yields:
        The header, then the memory of each tensor.

    Example:
        >>> raw = b"".join(tensor_bytes({"weight": torch.tensor([0.5, torch.nan])}))
        >>> safetensors.torch.load(raw)
        {'weight': tensor([0.5000,    nan])}
    """
    # Large elements first: so all tensors are aligned in a file that is mapped into memory.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header: dict[str, object] = {_RESERVED: {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.itemsize
        header[name] = {
            "dtype": _TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        # resolve_*: a lazily conjugated or negated tensor's memory holds other values than it has.
        held = tensors[name].detach().cpu().resolve_conj().resolve_neg().contiguous()
        if held.numel():
            # torch without numpy offers no buffer of its own.
            memory = (ctypes.c_ubyte * held.nbytes).from_address(held.data_ptr())
            memory.owner = held  # type: ignore[attr-defined]  # lives as long as views of its memory
            yield memoryview(memory).cast("B")


def tensors_from(raw: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Args:
        raw: the whole file.

    Returns:
        By name, on the CPU, each with memory of its own.

    Raises:
        ValueError: if it is no such file.

    Example:
        >>> tensors_from(b"".join(tensor_bytes({"step": torch.tensor(3)})))
        {'step': tensor(3)}
    """
    try:
        # The reader's own order differs from process to process.
        return dict(sorted(safetensors.torch.load(raw).items()))
    # Each is what the reader raised at some hostile header, some with a page of C++ after the line.
    except (
        safetensors.SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:
        raise ValueError(f"no safetensors file ({briefly(error)})") from error


def value_bytes(values: dict[str, Any]) -> bytes:
    """Values as JSON that gives them back exactly; nan and inf as Python's ``json`` writes them.

    Args:
        values: dicts by strings, lists, tuples (which come back as lists), strings, numbers,
            booleans, None.

    Returns:
        The file.

    Raises:
        CheckpointError: if JSON would change a value, or has no words for it.

    Example:
        >>> value_bytes({"epoch": 3, "losses": [0.1, float("nan")]})
        b'{"epoch": 3, "losses": [0.1, NaN]}'
        >>> value_bytes({"seen": {3: "three"}})
        Traceback (most recent call last):
            ...
        fdfa.errors.CheckpointError: values['seen'] has the key 3, which JSON would turn into a
        string. Use strings.
    """
    if not isinstance(values, dict):
        raise CheckpointError(
            f"`values` is a {type(values).__name__}; a checkpoint keeps a dict. Put it "
            "under a name."
        )
    _check_value("values", values, 0)
    return json.dumps(values).encode()


def values_from(raw: bytes) -> dict[str, Any]:
    """The values in a JSON file.

    Args:
        raw: the whole file.

    Returns:
        The values.

    Raises:
        ValueError: if it is no JSON, or no object.

    Example:
        >>> values_from(value_bytes({"epoch": 3, "betas": (0.9, 0.999)}))
        {'epoch': 3, 'betas': [0.9, 0.999]}
    """
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON that can be read ({briefly(error)})") from error
    if not isinstance(values, dict):
        raise ValueError(f"no JSON object but a {type(values).__name__}")
    return values


def _check_value(where: str, value: object, depth: int) -> None:
    """Refuse what JSON would change: the complaint names the place."""
    if depth > _DEEPEST:
        raise CheckpointError(f"{where[:60]}...: nested too deeply. Flatten it.")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise CheckpointError(
                    f"{where} has the key {key!r}, which JSON would turn into a string. Use "
                    "strings."
                )
            _check_value(f"{where}[{key!r}]", item, depth + 1)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            _check_value(f"{where}[{number}]", item, depth + 1)
    elif isinstance(value, int) and abs(value) >= _LONG_NUMBER:
        raise CheckpointError(
            f"{where} has more than 4,300 digits, which Python neither writes nor reads. Write it "
            "as a text of hex digits."
        )
    elif value is not None and not isinstance(value, (str, int, float)):
        raise CheckpointError(
            f"{where} is of type {type(value).__name__}, which JSON does not know. Tensors belong "
            "into `state`; write all else as numbers and strings."
        )


def _encodable(name: str) -> bool:
    """Whether the name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

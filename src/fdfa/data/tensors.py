"""The user's own data as arrays: ``.npy`` files in a folder, or one ``.safetensors`` file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fdfa.data.dataset import Dataset, assemble
from fdfa.data.examples import Examples
from fdfa.data.memory import available_memory
from fdfa.data.npy import read_npy
from fdfa.data.pixels import Normalization
from fdfa.data.reading import checked_labels, refuse
from fdfa.errors import ConfigError, DataError, briefly, unknown_name

__all__ = ["load_tensors"]

NAMES: Final = (
    "train_inputs",
    "train_labels",
    "test_inputs",
    "test_labels",
    "validation_inputs",
    "validation_labels",
)
CORRECT = "Correct the array and save it again."
CHECKED_AT_ONCE = 4096  # examples


@dataclasses.dataclass(frozen=True)
class Array:
    """An array, and the file that it came from for the text of an error."""

    values: Tensor
    place: str


def load_tensors(folder: Path, *, validation: int, classes: int | None = None) -> Dataset:
    """Loads arrays of your own.

    Inputs are of shape (N, ...): pixels as uint8, which become -1 ... 1, or floating-point numbers,
    which are left as they are but for becoming float32. Labels are integers of shape (N,).

    Args:
        folder: holds ``train_inputs.npy``, ``train_labels.npy``, ``test_inputs.npy`` and
            ``test_labels.npy``, or one ``.safetensors`` file with arrays of these names; may also
            be that file. ``validation_inputs`` and ``validation_labels`` may be there too.
        validation: how many training examples to set apart; 0 where the files bring validation
            examples of their own.
        classes: number of classes; None for one more than the largest label.

    Returns:
        The data set ``tensors``.

    Raises:
        DataError: if an array is missing, damaged, of the wrong kind or shape, or holds an input
            that is not finite or a label out of range.
        ConfigError: if ``validation`` or ``classes`` is out of range, or ``validation`` is asked
            for beside validation examples of the user's own.

    Example:
        >>> import safetensors.torch, tempfile
        >>> inputs, labels = torch.rand(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> with tempfile.TemporaryDirectory() as name:
        ...     path = Path(name) / "flowers.safetensors"
        ...     content = {"train_inputs": inputs, "train_labels": labels}
        ...     content |= {"test_inputs": inputs[:3].clone(), "test_labels": labels[:3].clone()}
        ...     safetensors.torch.save_file(content, path)
        ...     flowers = load_tensors(path, validation=2)
        >>> flowers.shape, flowers.classes, len(flowers.train)
        ((5,), 3, 4)
    """
    if classes is not None and (isinstance(classes, bool) or classes < 1):
        raise ConfigError(f"classes={classes!r} is not possible. Give a number of classes from 1.")
    arrays = _read(folder)
    labels = {part: _whole_numbers(arrays[f"{part}_labels"]) for part in _parts(arrays)}
    known = classes or _counted(labels, arrays)
    examples = {}
    for part, numbers in labels.items():
        inputs = _checked(arrays[f"{part}_inputs"], like=arrays["train_inputs"], labels=numbers)
        place = arrays[f"{part}_labels"].place
        targets = checked_labels(numbers, classes=known, place=place, remedy=CORRECT)
        examples[part] = (inputs, targets)
    normalization = Normalization() if examples["train"][0].dtype == torch.uint8 else None
    own = examples.get("validation")
    if own is not None and validation:
        raise ConfigError(
            f"validation={validation}: {folder} brings {len(own[1])} validation examples of its "
            "own. Choose validation=0 to use them."
        )
    dataset = assemble(
        "tensors",
        train=examples["train"],
        test=examples["test"],
        classes=known,
        validation=validation,
        normalization=normalization,
    )
    if own is None:
        return dataset
    return dataclasses.replace(dataset, validation=Examples(*own, normalization))


def _read(folder: Path) -> dict[str, Array]:
    """The arrays by name, none missing and none unknown."""
    paths = [folder] if folder.is_file() else sorted(folder.glob("*.npy"))
    packed = [] if folder.is_file() else sorted(folder.glob("*.safetensors"))
    if len(packed) > 1 or (packed and paths):
        both = ", ".join(path.name for path in (*packed, *paths)[:4])
        raise DataError(
            f"{folder} holds {both}: which to read? Leave one .safetensors file there, or .npy "
            "files only."
        )
    paths = paths or packed
    held, memory = sum(path.stat().st_size for path in paths), available_memory()
    if held > memory:
        raise DataError(
            f"{folder} holds {held:,} bytes of arrays, more than the {memory:,} bytes of memory "
            "that are left. Make the arrays smaller, by examples or as uint8."
        )
    if len(paths) == 1 and paths[0].suffix == ".safetensors":
        arrays = _read_safetensors(paths[0])
    else:
        for path in paths:
            _check_name(path.stem, place=str(path))
        arrays = {path.stem: Array(read_npy(path), str(path)) for path in paths}
    own = NAMES[4:] if any(name in arrays for name in NAMES[4:]) else ()
    missing = [name for name in (*NAMES[:4], *own) if name not in arrays]
    if missing:
        raise DataError(
            f"{folder} lacks {', '.join(missing)}. Put the arrays {', '.join(NAMES[:4])} there, "
            "each as a .npy file of this name or all in one .safetensors file."
        )
    return arrays


def _read_safetensors(path: Path) -> dict[str, Array]:
    """All arrays of a file, whose names are looked at before anything is loaded."""
    try:
        # Not mapped into memory: such arrays would change with the file.
        with safe_open(path, framework="pt", backend="pread") as file:
            names = list(file.keys())
            for name in names:
                _check_name(name, place=str(path))
            return {name: Array(file.get_tensor(name), f"{path} ({name})") for name in names}
    except (OSError, SafetensorError) as error:
        refuse(
            path, f"cannot be read: {briefly(error)}", remedy="Save the arrays again.", cause=error
        )


def _check_name(name: str, *, place: str) -> None:
    """Refuses what might be meant as something that it is not taken for."""
    if name not in NAMES:
        raise DataError(f"{place}: {unknown_name('array', name, NAMES)}")


def _parts(arrays: dict[str, Array]) -> list[str]:
    """The parts that are there."""
    return [name.removesuffix("_inputs") for name in NAMES[::2] if name in arrays]


def _whole_numbers(array: Array) -> Tensor:
    """Labels as int64, whatever their range."""
    values = array.values
    if values.is_floating_point() or values.is_complex() or values.dim() != 1 or not len(values):
        refuse(
            array.place,
            f"is {_kind(values)} where labels are whole numbers of shape (N,)",
            remedy="Give the number of its class for every example.",
        )
    return values.long()


def _counted(labels: dict[str, Tensor], arrays: dict[str, Array]) -> int:
    """One more than the largest label, if that can be believed."""
    largest, part = max((int(numbers.max()), part) for part, numbers in labels.items())
    examples = sum(len(numbers) for numbers in labels.values())
    if largest >= examples:
        refuse(
            arrays[f"{part}_labels"].place,
            f"holds the label {largest}, which would make {largest + 1} classes of {examples} "
            "examples",
            remedy="Count classes from 0, or say how many there are with the option classes.",
        )
    return max(1, largest + 1)


def _checked(array: Array, *, like: Array, labels: Tensor) -> Tensor:
    """Inputs, uint8 or float32, of the same kind and shape in every part."""
    values, place = array.values, array.place
    if values.dtype != torch.uint8 and not values.is_floating_point():
        refuse(
            place,
            f"is {_kind(values)} where inputs are uint8 or floating-point numbers",
            remedy="Convert it and save it again.",
        )
    if values.dim() < 2 or values.shape[1:] != like.values.shape[1:]:
        refuse(
            place,
            f"is {_kind(values)} where inputs are (N, ...), the same in every part, and "
            f"{like.place} is {_kind(like.values)}",
            remedy=CORRECT,
        )
    if (values.dtype == torch.uint8) != (like.values.dtype == torch.uint8):
        refuse(place, f"is {_kind(values)}, but {like.place} {_kind(like.values)}", remedy=CORRECT)
    if len(values) != len(labels):
        refuse(
            place,
            f"holds {len(values)} inputs, but there are {len(labels)} labels for them",
            remedy=CORRECT,
        )
    if values.dtype == torch.uint8:
        return values
    numbers = values.float()
    _check_finite(numbers, place=place)
    return numbers


def _check_finite(numbers: Tensor, *, place: str) -> None:
    """Refuses numbers that no training survives."""
    for start in range(0, len(numbers), CHECKED_AT_ONCE):
        wrong = torch.nonzero(~numbers[start : start + CHECKED_AT_ONCE].isfinite())
        if len(wrong):
            position = (start + int(wrong[0, 0]), *wrong[0, 1:].tolist())
            refuse(place, f"holds {float(numbers[position])} at {position}", remedy=CORRECT)


def _kind(values: Tensor) -> str:
    """Such as "float32 of shape (5, 3)"."""
    return f"{str(values.dtype).removeprefix('torch.')} of shape {tuple(values.shape)}"

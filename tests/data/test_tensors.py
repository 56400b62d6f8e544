"""The user's own arrays, in both kinds of file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fdfa.data import tensors
from fdfa.data.dataset import Dataset
from fdfa.data.tensors import load_tensors
from fdfa.errors import ConfigError, DataError
from tests.data.fuzz import damaged, or_refused

Arrays = dict[str, np.ndarray]


def arrays(
    shape: tuple[int, ...] = (2, 3), *, dtype: object = np.float32, own: bool = False
) -> Arrays:
    """Six examples for training, four for the test, and perhaps three for validation."""
    draw = np.random.default_rng(0)
    made: Arrays = {}
    for part, count in (("train", 6), ("test", 4), *([("validation", 3)] if own else [])):
        made[f"{part}_inputs"] = draw.integers(0, 256, (count, *shape)).astype(dtype)
        made[f"{part}_labels"] = np.arange(count) % 3
    return made


def as_npy(folder: Path, content: Arrays) -> Path:
    for name, array in content.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def as_safetensors(folder: Path, content: Arrays) -> Path:
    made = {name: torch.from_numpy(np.array(array)) for name, array in content.items()}
    safetensors.torch.save_file(made, folder / "own.safetensors")
    return folder


KINDS = pytest.mark.parametrize("save", [as_npy, as_safetensors])


def load(folder: Path, **options: object) -> Dataset:
    return load_tensors(folder, **{"validation": 0} | options)


@KINDS
@pytest.mark.parametrize("shape", [(5,), (2, 3), (1, 4, 4), (2, 2, 2, 2)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_are_left_as_they_are(tmp_path: Path, save, shape, dtype) -> None:
    content = arrays(shape, dtype=dtype)
    loaded = load(save(tmp_path, content))
    assert (loaded.name, loaded.shape, loaded.classes) == ("tensors", shape, 3)
    for part in ("train", "test"):
        inputs, labels = getattr(loaded, part).first(10)
        assert inputs.dtype == torch.float32
        assert inputs.tolist() == content[f"{part}_inputs"].tolist()
        assert labels.dtype == torch.int64
        assert labels.tolist() == content[f"{part}_labels"].tolist()
    assert len(loaded.validation) == 0


@KINDS
def test_pixels_become_minus_one_to_one(tmp_path: Path, save) -> None:
    content = arrays((1, 4, 4), dtype=np.uint8)
    loaded = load(save(tmp_path, content))
    assert loaded.train.inputs.dtype == torch.uint8
    expected = (content["test_inputs"].astype(np.float32) / np.float32(255) - 0.5) / 0.5
    np.testing.assert_array_equal(loaded.test.first(4)[0].numpy(), expected.astype(np.float32))


@KINDS
@pytest.mark.parametrize("dtype", ["b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])
def test_labels_of_any_whole_numbers(tmp_path: Path, save, dtype: str) -> None:
    content = arrays()
    for part in ("train", "test"):
        content[f"{part}_labels"] = (content[f"{part}_labels"] % 2).astype(dtype)
    loaded = load(save(tmp_path, content))
    assert loaded.classes == 2
    assert loaded.train.labels.tolist() == [0, 1, 0, 0, 1, 0]


@KINDS
def test_validation_of_one_s_own(tmp_path: Path, save) -> None:
    content = arrays(dtype=np.uint8, own=True)
    save(tmp_path, content)
    loaded = load(tmp_path)
    assert (len(loaded.train), len(loaded.validation), len(loaded.test)) == (6, 3, 4)
    assert loaded.validation.inputs.tolist() == content["validation_inputs"].tolist()
    assert loaded.validation.first(1)[0].dtype == torch.float32
    with pytest.raises(
        ConfigError, match=r"validation=2: .* brings 3 validation examples of its own"
    ):
        load(tmp_path, validation=2)


def test_validation_is_cut_out_where_there_is_none(tmp_path: Path) -> None:
    loaded = load(as_npy(tmp_path, arrays()), validation=2)
    assert (len(loaded.train), len(loaded.validation)) == (4, 2)


def test_the_file_itself_may_be_named(tmp_path: Path) -> None:
    as_safetensors(tmp_path, arrays())
    assert load(tmp_path / "own.safetensors").shape == (2, 3)


def test_classes_may_be_more_than_are_seen(tmp_path: Path) -> None:
    assert load(as_npy(tmp_path, arrays()), classes=7).classes == 7
    with pytest.raises(DataError, match=r"train_labels\.npy holds the label 2 at position 2"):
        load(tmp_path, classes=2)


@pytest.mark.parametrize("classes", [0, -1, True])
def test_impossible_classes(tmp_path: Path, classes: int) -> None:
    with pytest.raises(ConfigError, match=f"classes={classes} is not possible"):
        load(tmp_path, classes=classes)


@pytest.mark.parametrize("validation", [-1, 6])
def test_impossible_validation(tmp_path: Path, validation: int) -> None:
    with pytest.raises(ConfigError, match=f"validation={validation}"):
        load(as_npy(tmp_path, arrays()), validation=validation)


def test_classes_of_all_parts_are_counted(tmp_path: Path) -> None:
    content = arrays()
    content["test_labels"][1] = 5
    assert load(as_npy(tmp_path, content)).classes == 6


def changed(**changes: object) -> Arrays:
    return {k: np.asarray(v) for k, v in (arrays() | changes).items() if v is not None}


def with_number(number: float, *, dtype: object = np.float32) -> np.ndarray:
    inputs = np.zeros((6, 2, 3), dtype)
    inputs[4, 1, 2] = number
    return inputs


@KINDS
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        *((changed(**{name: None}), f"lacks {name}") for name in arrays()),
        (changed(validation_labels=[0]), "lacks validation_inputs"),
        (changed(validation_inputs=np.zeros((1, 2, 3), "f4")), "lacks validation_labels"),
        (changed(val_inputs=[1.0]), "unknown array 'val_inputs'. Did you mean 'validation_inputs'"),
        (changed(train_inputs=with_number(np.nan)), r"train_inputs.* holds nan at \(4, 1, 2\)"),
        (changed(train_inputs=with_number(-np.inf)), r"holds -inf at \(4, 1, 2\)"),
        (changed(train_inputs=with_number(1e300, dtype="f8")), r"holds inf at \(4, 1, 2\)"),
        (changed(train_inputs=np.zeros((6, 2, 3), "i4")), "train_inputs.* is int32 of shape"),
        (changed(train_inputs=np.zeros((6, 2, 3), "?")), "is bool of shape"),
        (changed(train_inputs=np.zeros(6, "f4")), r"float32 of shape \(6,\) where inputs are \(N"),
        (changed(test_inputs=np.zeros((4, 2, 2), "f4")), r"test_inputs.* \(4, 2, 2\) where"),
        (changed(test_inputs=np.zeros((4, 2, 3), "u1")), "test_inputs.* is uint8 .*, but"),
        (changed(test_inputs=np.zeros((5, 2, 3), "f4")), "holds 5 inputs, but there are 4 labels"),
        (
            changed(train_labels=[0.0] * 6),
            r"train_labels.* is float64 of shape \(6,\) where labels",
        ),
        (changed(train_labels=[[0, 1]] * 6), r"is int64 of shape \(6, 2\) where labels"),
        (changed(train_labels=3), r"is int64 of shape \(\) where labels"),
        (changed(test_labels=[0, 1, -1, 2]), r"test_labels.* the label -1 at position 2"),
        (changed(test_labels=[0, 1, 10, 2]), r"test_labels.* the label 10, which would make 11"),
        (changed(test_labels=[0, 1, 2**62, 2]), f"the label {2**62}, which would make"),
        (changed(test_labels=np.array([0, 1, 2**64 - 1, 2], "u8")), "the label -1 at position 2"),
    ],
)
def test_bad_arrays(tmp_path: Path, save, content: Arrays, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        load(save(tmp_path, content))


def test_positions_are_counted_from_the_start(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tensors, "CHECKED_AT_ONCE", 2)
    content = changed(train_inputs=with_number(np.nan))
    with pytest.raises(DataError, match=r"holds nan at \(4, 1, 2\)"):
        load(as_npy(tmp_path, content))


def test_complex_numbers_and_none_at_all(tmp_path: Path) -> None:
    as_safetensors(tmp_path, changed(train_inputs=np.zeros((6, 2, 3), "c8")))
    with pytest.raises(DataError, match="is complex64 of shape"):
        load(tmp_path)
    as_safetensors(tmp_path, changed(train_labels=np.zeros(0, "i8")))
    with pytest.raises(DataError, match=r"is int64 of shape \(0,\) where labels"):
        load(tmp_path)


def test_which_of_two_files(tmp_path: Path) -> None:
    as_safetensors(as_npy(tmp_path, arrays()), arrays())
    with pytest.raises(
        DataError, match=r"holds own\.safetensors, test_inputs\.npy.*: which to read"
    ):
        load(tmp_path)


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            DataError, match="lacks train_inputs, train_labels, test_inputs, test_l"
        ):
            load(folder)


def test_arrays_larger_than_the_memory_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "available_memory", lambda: 100)
    with pytest.raises(DataError, match=r"bytes of arrays, more than the 100 bytes of memory"):
        load(as_npy(tmp_path, arrays()))


def test_what_is_loaded_does_not_change_with_the_file(tmp_path: Path) -> None:
    loaded = load(as_safetensors(tmp_path, arrays()))
    before = loaded.checksum()
    with (tmp_path / "own.safetensors").open("r+b") as file:
        file.seek(-300, 2)
        file.write(b"\x11" * 300)
    assert loaded.checksum() == before


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_npy(tmp_path_factory.mktemp("fuzz"), arrays())


@settings(max_examples=60)
@given(data=st.data(), name=st.sampled_from(list(arrays())))
def test_fuzz_an_array(folder: Path, data: st.DataObject, name: str) -> None:
    path = folder / f"{name}.npy"
    good = path.read_bytes()
    path.write_bytes(data.draw(damaged(good)))
    or_refused(lambda: load(folder, validation=1))
    path.write_bytes(good)


def safetensors_bytes(content: Arrays) -> bytes:
    return safetensors.torch.save(
        {name: torch.from_numpy(array) for name, array in content.items()}
    )


WORDS = [b"F32", b"U8", b"BF16", b"C64", b"F8_E4M3", b"F8_E8M0", b"F4", b"F6_E2M3", b"I64", b"BOOL"]


@given(
    content=st.binary(max_size=60)
    | damaged(safetensors_bytes(arrays()))
    | st.builds(
        lambda old, new: re.sub(old, new, safetensors_bytes(arrays())),
        st.sampled_from([b"F32", b"I64"]),
        st.sampled_from(WORDS),
    )
)
def test_fuzz_safetensors(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.safetensors"
    path.write_bytes(content)
    or_refused(lambda: load(path, validation=1))

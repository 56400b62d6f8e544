"""Where data sets are looked for: the order is a promise, and two folders are never mixed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fdfa.data import locate
from fdfa.data.locate import cache_folder, find, places, target
from fdfa.errors import DataError

NAMES = ("cifar10", "cifar-10")


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FDFA_DATA", "FDFA_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")


def test_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FDFA_DATA", "~/sets")
    monkeypatch.setenv("FDFA_CACHE", "/cache")
    assert places(NAMES, directory="given") == [
        Path("given/cifar10"),
        Path("given/cifar-10"),
        Path("given"),
        Path("/home/someone/sets/cifar10"),
        Path("/home/someone/sets/cifar-10"),
        Path("/cache/cifar10"),
        Path("/cache/cifar-10"),
    ]


def test_what_is_not_given_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FDFA_DATA", "")  # as `FDFA_DATA= command` sets it
    cache = Path("/home/someone/.cache/fdfa")
    assert places(NAMES, directory=None) == [cache / "cifar10", cache / "cifar-10"]


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, "/home/someone/.cache/fdfa"),
        ("linux", {"XDG_CACHE_HOME": "/scratch"}, "/scratch/fdfa"),
        ("linux", {"XDG_CACHE_HOME": "/scratch", "FDFA_CACHE": "/own"}, "/own"),
        ("darwin", {"XDG_CACHE_HOME": "/scratch"}, "/home/someone/Library/Caches/fdfa"),
        ("win32", {}, "/home/someone/AppData/Local/fdfa"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/fdfa"),
    ],
)
def test_the_cache_of_each_system(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(locate.sys, "platform", platform)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nobody)
    with pytest.raises(DataError, match=r"'~/\.cache' cannot be found: .* Set FDFA_CACHE"):
        cache_folder()


def test_the_first_folder_with_any_file_wins_even_if_another_has_more(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("absent", "empty", "unrelated", "some", "all")]
    for folder in folders[1:]:
        folder.mkdir()
    (folders[2] / "notes.txt").touch()
    (folders[3] / "b").touch()
    (folders[4] / "a").touch()
    (folders[4] / "b").touch()
    assert find(folders, ["a", "b"]) == folders[3]
    assert find(folders[:3], ["a", "b"]) is None


@pytest.mark.parametrize("trace", ["sub/data_*.bin", "sub", "s*"])
def test_traces_are_patterns_for_files_and_folders(tmp_path: Path, trace: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data_1.bin").touch()
    assert find([tmp_path], [trace]) == tmp_path
    assert find([tmp_path], ["data_*.bin"]) is None  # not at any depth


def test_a_single_file_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "flowers.safetensors").touch()
    named = [tmp_path / "flowers.safetensors" / "tensors", tmp_path / "flowers.safetensors"]
    assert find(named, ["*.safetensors"]) == named[1]
    assert find(named, ["*.npy"]) is None


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        (None, "/cache/cifar10"),
        ("sets", "sets/cifar10"),
        ("sets/cifar-10", "sets/cifar-10"),  # the user named the folder itself
    ],
)
def test_downloads_go_where_they_will_be_found(
    monkeypatch: pytest.MonkeyPatch, directory: str | None, expected: str
) -> None:
    monkeypatch.setenv("FDFA_CACHE", "/cache")
    assert target(NAMES, directory=directory) == Path(expected)
    assert Path(expected) in places(NAMES, directory=directory)

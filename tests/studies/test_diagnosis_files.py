"""The folder of a diagnosis that was interrupted, or that of somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fdfa.errors import ConfigError
from fdfa.studies.diagnosed import Diagnosed, Looked
from fdfa.studies.diagnosis_files import diagnosis_folder, write_diagnosis
from fdfa.studies.run_folder import RunFolder

NOTHING = Diagnosed("toy", 2, (), {})


def test_an_interrupted_diagnosis_can_be_made_again(tmp_path: Path) -> None:
    (tmp_path / "diagnosis_angles.png").write_bytes(b"drawn before Ctrl-C")
    assert diagnosis_folder(["a", "b"], tmp_path).path == tmp_path
    (tmp_path / "mine.txt").write_text("not of a diagnosis")
    with pytest.raises(ConfigError, match=r"holds diagnosis_angles\.png, mine\.txt"):
        diagnosis_folder(["a", "b"], tmp_path)


def test_numbers_of_an_earlier_diagnosis_do_not_stand_beside_new_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fdfa.studies.diagnosis_files._draw", interrupted)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    (tmp_path / "diagnosis.json").write_text('{"diagnosis": "earlier"}')
    with pytest.raises(KeyboardInterrupt):
        write_diagnosis(NOTHING, {}, {}, torch.empty(0), RunFolder(tmp_path))
    assert not list(tmp_path.iterdir())


def test_rules_that_are_not_drawn_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    looked = {rule: {0: Looked(None, {})} for rule in ("a", "b", "c", "d", "e", "f")}
    found = write_diagnosis(NOTHING, {}, looked, torch.empty(0), RunFolder(tmp_path))
    assert any("first 4 of 6" in note and "e, f" in note for note in found.notes)

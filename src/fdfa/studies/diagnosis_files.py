"""The folder of a diagnosis: ``diagnosis.json`` and the pictures, each whole or not there."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from fdfa.errors import ConfigError
from fdfa.studies.diagnosed import Diagnosed, Looked
from fdfa.studies.diagnosis_curves import Diagnoses, read_diagnoses
from fdfa.studies.diagnosis_log import DIAGNOSIS
from fdfa.studies.diagnosis_pictures import angle_picture, error_picture, feedback_picture
from fdfa.studies.network_pictures import kernel_picture, representation_picture
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.run_groups import StoredRun
from fdfa.studies.tables import plural_s

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "RESULT", "diagnosis_folder", "write_diagnosis"]

RESULT = "diagnosis.json"
PICTURES = ("angles", "credit_errors", "feedback_errors", "kernels", "representations")

_DRAWN = tuple(f"diagnosis_{name}.{ending}" for name in PICTURES for ending in ("png", "svg"))
_SIDE_BY_SIDE = 4


def diagnosis_folder(paths: Sequence[str | Path], out: str | Path | None) -> RunFolder:
    """Where a diagnosis goes; the files of an earlier one in it will be replaced.

    Args:
        paths: of the runs.
        out: that the user named.

    Returns:
        The folder; not made yet.

    Raises:
        ConfigError: if it is none, holds what no diagnosis wrote, or must be named.
    """
    if out is None:
        if len(paths) != 1:
            raise ConfigError(
                "out: several folders are diagnosed together, and the pictures belong to none of "
                "them. Give --out FOLDER (out=)."
            )
        path = Path(paths[0])
        return RunFolder(path if path.is_dir() else path.parent)
    folder = RunFolder(out)
    for place in (folder.path, *folder.path.parents):
        if place.exists() and not place.is_dir():
            raise ConfigError(f"out: '{place}' is a file, not a folder. Choose another.")
    held = [p.name for p in folder.path.iterdir()] if folder.path.exists() else []
    strange = any(name not in _DRAWN for name in held)  # else one that was interrupted
    if strange and folder.study() is None and not _is_ours(folder):
        shown = ", ".join(sorted(held)[:3]) + (", ..." if len(held) > 3 else "")
        raise ConfigError(
            f"out: folder '{out}' holds {shown}, which no diagnosis wrote. Choose a new folder, an "
            "empty one, or that of a run or an earlier diagnosis."
        )
    return folder


def _is_ours(folder: RunFolder) -> bool:
    try:
        content = folder.read_json(RESULT)
    except ConfigError:
        return False
    return isinstance(content, dict) and "diagnosis" in content


def write_diagnosis(
    found: Diagnosed,
    rules: Mapping[str, Sequence[StoredRun]],
    looked: Mapping[str, Mapping[int, Looked]],
    labels: Tensor,
    folder: RunFolder,
) -> Diagnosed:
    """Write what was found, and draw it.

    Args:
        found: is written.
        rules: the runs, whose ``diagnosis.jsonl`` say how they got there.
        looked: networks by rule and seed.
        labels: of the examples that they looked at.
        folder: takes the files.

    Returns:
        The same with the names of the files, and notes on what could not be drawn.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    for name in (*_DRAWN, RESULT):  # nothing of an earlier diagnosis shall stand beside these
        (folder.path / name).unlink(missing_ok=True)
    curves, notes = _curves(rules)
    if len(looked) > _SIDE_BY_SIDE:
        notes.append(
            f"Kernels and hidden representations: only the first {_SIDE_BY_SIDE} of {len(looked)} "
            f"rules are drawn side by side, without {', '.join(list(looked)[_SIDE_BY_SIDE:])}."
        )
    if importlib.util.find_spec("matplotlib") is None:
        notes.append(
            "No pictures: matplotlib is not installed. pip install 'fdfa[plots]' brings it."
        )
    else:
        _draw(found, curves, looked, labels, folder)
    found = dataclasses.replace(found, notes=(*found.notes, *notes))
    folder.write_json(RESULT, found.report())
    return dataclasses.replace(found, files=tuple(folder.files))


def _curves(
    rules: Mapping[str, Sequence[StoredRun]],
) -> tuple[dict[str, list[Diagnoses]], list[str]]:
    """The diagnoses made while the runs trained; and what is missing or damaged in them."""
    curves: dict[str, list[Diagnoses]] = {}
    notes = []
    for rule, runs in rules.items():
        for run in runs:
            path = run.folder.path / DIAGNOSIS
            diagnoses = read_diagnoses(run.folder)
            if diagnoses is None or not diagnoses.lines:
                notes.append(
                    f"No curves of {run.folder.path}: it was not diagnosed while it trained. Train "
                    "it with --diagnose every=100, say."
                )
            else:
                curves.setdefault(rule, []).append(diagnoses)
            if diagnoses is not None and diagnoses.damaged:
                count = diagnoses.damaged
                notes.append(
                    f"{path}: {count} line{plural_s(count)} cannot be read and "
                    f"{'was' if count == 1 else 'were'} skipped."
                )
            if diagnoses is not None and (gaps := _gaps(diagnoses)):
                notes.append(
                    f"{path}: {gaps} angle{plural_s(gaps)} of weight matrices "
                    f"{'is' if gaps == 1 else 'are'} no number: a gap in the curve."
                )
    if curves and all(len(runs) == 1 for runs in curves.values()):
        notes.append("One seed of each rule: the curves have no bands.")
    return curves, notes


def _gaps(diagnoses: Diagnoses) -> int:
    """How many angles are no numbers."""
    values = [
        value
        for name in diagnoses.names("parameters")
        for value in diagnoses.curve("parameters", name, lambda of: of["angle"]).values()
    ]
    return sum(value != value for value in values)  # NaN is not itself


def _draw(
    found: Diagnosed,
    curves: Mapping[str, Sequence[Diagnoses]],
    looked: Mapping[str, Mapping[int, Looked]],
    labels: Tensor,
    folder: RunFolder,
) -> None:
    """Every picture that there is something for."""
    import matplotlib

    layers = list(dict.fromkeys(layer for run in found.runs for layer in run.layers))
    subject = found.subject
    # Text stays text, and the same runs give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fdfa"}):
        if curves:
            _save(angle_picture(curves, layers, subject=subject), "angles", folder)
            _save(error_picture(curves, subject=subject), "credit_errors", folder)
            _save(feedback_picture(curves, subject=subject), "feedback_errors", folder)
        # One network of each rule, of the lowest seed.
        shown = {rule: seeds[min(seeds)] for rule, seeds in looked.items()}
        shown = dict(list(shown.items())[:_SIDE_BY_SIDE])
        kernels = {
            r: network.kernels for r, network in shown.items() if network.kernels is not None
        }
        if kernels:
            _save(kernel_picture(kernels, subject=subject), "kernels", folder)
        if (tap := _last_common_tap(shown)) is not None:
            picture = representation_picture(
                {rule: network.activations[tap] for rule, network in shown.items()},
                labels,
                tap=tap,
                likeness={
                    rule: by_tap[tap] for rule, by_tap in found.likeness.items() if tap in by_tap
                },
                subject=subject,
            )
            _save(picture, "representations", folder)


def _last_common_tap(networks: Mapping[str, Looked]) -> str | None:
    """The hidden layer nearest to the output that all of them have."""
    every = [list(network.activations) for network in networks.values()]
    common = [tap for tap in every[0] if all(tap in taps for taps in every)]
    return common[-1] if common else None


def _save(figure: Figure | None, name: str, folder: RunFolder) -> None:
    if figure is None:
        return
    for ending in ("png", "svg"):
        with folder.replacing(f"diagnosis_{name}.{ending}") as path:
            figure.savefig(path, dpi=150, metadata={"Date": None} if ending == "svg" else None)

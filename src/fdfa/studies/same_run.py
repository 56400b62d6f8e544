"""Whether a run that lies in a folder is the one that belongs there."""

from __future__ import annotations

from fdfa.errors import ConfigError
from fdfa.studies.json_values import plain
from fdfa.studies.records import from_json
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.setup import TrainConfig
from fdfa.studies.train import spelled_out

__all__ = ["check_same_run"]

# What makes a run the one that it is; where the data lie, and what is recorded, does not.
_PARTS = ("method", "options", "seed", "task", "training")


def check_same_run(folder: RunFolder, config: TrainConfig, *, study: str = "comparison") -> None:
    """A run that lies in a folder already must be this one.

    Args:
        folder: of the run; it may be empty.
        config: of the run that belongs there, with every default in place.
        study: what it belongs to, for the text of an error.

    Raises:
        ConfigError: if it is another run, or its configuration cannot be read.
    """
    content = folder.read_json("config.json")
    if content is None:
        return
    saved = content.get("train") if isinstance(content, dict) else None
    if isinstance(saved, dict):
        # What an earlier version did not know yet had its default.
        where = f"{folder.path / 'config.json'}: train"
        saved = plain(spelled_out(from_json(TrainConfig, saved, where=where)))
    found, wanted = _placeless(saved), _placeless(plain(config))
    for name in _PARTS:
        if found.get(name) != wanted[name]:
            raise ConfigError(
                f"'{folder.path}' holds a run with another {name} than this {study}'s. Choose "
                "another folder, or move that one away."
            )


def _placeless(config: object) -> dict[str, object]:
    """Without the folder of the data."""
    known = config if isinstance(config, dict) else {}
    task = known.get("task")
    if isinstance(task, dict):
        return {**known, "task": {**task, "data_dir": None}}
    return dict(known)

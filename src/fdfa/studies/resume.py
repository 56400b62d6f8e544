"""Going on with what was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fdfa.errors import ConfigError
from fdfa.studies.compare import continue_comparison
from fdfa.studies.records import from_json
from fdfa.studies.results import Comparison
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import StudyObserver, recall
from fdfa.studies.saved_options import with_typed_options
from fdfa.studies.setup import CompareConfig, TrainConfig
from fdfa.studies.train import TrainReport, continue_training

__all__ = ["Study", "read_config", "resume"]

Study = TrainConfig | CompareConfig
_KINDS: dict[str, type[TrainConfig] | type[CompareConfig]] = {
    "train": TrainConfig,
    "compare": CompareConfig,
}


def read_config(path: str | Path) -> tuple[Study, dict[str, Any]]:
    """The configuration in a ``config.json``.

    Args:
        path: of the file, or of the folder of the run.

    Returns:
        The configuration, and the environment in which it was run; nothing if there is none.

    Raises:
        ConfigError: if it cannot be read, a key in it is unknown, or an option not of its type.

    Example:
        >>> import tempfile
        >>> from fdfa.studies.train import train
        >>> from fdfa.training import TrainingSettings
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = train(TrainConfig(training=TrainingSettings(epochs=1)), out=folder)
        ...     read_config(folder)[0].training.epochs
        1
    """
    path = Path(path)
    file = path / "config.json" if path.is_dir() else path
    if not file.exists():
        raise ConfigError(
            f"there is no run '{path}' (no file '{file}'). Name the folder that --out named, or "
            "its config.json."
        )
    content = RunFolder(file.parent).read_json(file.name)
    kinds = [kind for kind in _KINDS if isinstance(content, dict) and kind in content]
    unknown = sorted(set(content) - {*kinds, "environment"}) if isinstance(content, dict) else []
    if len(kinds) != 1 or unknown:
        way = "Put the file back as it was."
        if unknown:
            way = f"It holds {', '.join(map(repr, unknown))}. {'Take that out.' if kinds else way}"
        raise ConfigError(
            f"{file} is not what fdfa writes: an object with 'train' or 'compare', and "
            f"'environment'. {way}"
        )
    (kind,) = kinds
    where = f"{file}: {kind}"
    config = with_typed_options(from_json(_KINDS[kind], content[kind], where=where), where=where)
    environment = content.get("environment", {})
    return config, environment if isinstance(environment, dict) else {}


def resume(path: str | Path, *, observer: StudyObserver | None = None) -> TrainReport | Comparison:
    """Go on with a run or a comparison that was interrupted, however it was.

    The result is bit for bit that of an uninterrupted run, on the same machine and versions. Of one
    that is finished, the results are read.

    Args:
        path: the folder of the run, or its config.json.
        observer: is told of the progress.

    Returns:
        What came of it.

    Raises:
        ConfigError: if the folder holds no run, or the data are not those of the run.
        CheckpointError: if a checkpoint is damaged or lacks something.
        TrainingInterrupted: after Ctrl-C in a training.
        StudyInterrupted: after Ctrl-C in a comparison.

    Example:
        >>> import tempfile
        >>> from fdfa.studies.train import train
        >>> from fdfa.training import TrainingSettings
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = train(TrainConfig(training=TrainingSettings(epochs=1)), out=folder)
        ...     resume(folder).run.test == report.run.test
        True
    """
    config, environment = read_config(path)
    folder = RunFolder(path if Path(path).is_dir() else Path(path).parent)
    if isinstance(config, CompareConfig):
        return continue_comparison(
            folder, config, data_sha256=environment.get("data_sha256"), observer=observer
        )
    if (finished := recall(folder)) is not None:
        parameters = folder.read_json("results.json")["parameters"]
        return TrainReport(finished, parameters, notes=("It was finished before.",))
    return continue_training(folder, config, environment=environment, observer=observer)

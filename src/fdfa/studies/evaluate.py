"""A trained network, looked at once more."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from fdfa.errors import CheckpointError, ConfigError, briefly
from fdfa.studies.json_values import plain
from fdfa.studies.preparation import prepared
from fdfa.studies.resume import read_config
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.scoring import Part, score_on
from fdfa.studies.setup import TrainConfig
from fdfa.training import Score, read_checkpoint

__all__ = ["Evaluation", "evaluate_run"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How well the network of a run does.

    Attributes:
        run: its folder.
        data: name of the data set.
        part: of it.
        examples: in the part.
        weights: file or step that the weights come from.
        score: accuracy and loss.
    """

    run: str
    data: str
    part: str
    examples: int
    weights: str
    score: Score

    def report(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        content: dict[str, Any] = plain(self)
        return content


def evaluate_run(
    run: str | Path,
    *,
    part: Part = "test",
    data_dir: str | None = None,
    device: str = "auto",
) -> Evaluation:
    """Measure the network of a run: its trained weights, or those of its last checkpoint.

    Args:
        run: folder of a run of ``train``, or of a single run of a comparison.
        part: test, validation or train.
        data_dir: folder with the data set's files, if it is not where it was.
        device: where to compute.

    Returns:
        The evaluation.

    Raises:
        ConfigError: if the folder holds no run, or the data are not those of the run.
        CheckpointError: if its weights are missing or damaged.

    Example:
        >>> import tempfile
        >>> from fdfa.studies.train import train
        >>> from fdfa.training import TrainingSettings
        >>> config = TrainConfig(training=TrainingSettings(epochs=1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = train(config, out=folder)
        ...     evaluate_run(folder).score == report.run.test
        True
    """
    folder = RunFolder(run if Path(run).is_dir() else Path(run).parent)
    config, before = read_config(run)
    if not isinstance(config, TrainConfig):
        inside = ", ".join(str(entry.path) for entry in folder.runs())
        way = f"Name one of its runs: {inside}."
        if not inside:
            way = f"It has no runs yet: go on with it (fdfa resume {folder.path})."
        raise ConfigError(f"run: '{folder.path}' is a comparison. {way}")
    task = config.task
    if data_dir is not None:
        task = dataclasses.replace(task, data_dir=data_dir)
    checksum = before.get("data_sha256")
    with prepared(
        task,
        seed=config.seed,
        machine=dataclasses.replace(config.machine, device=device),
        data_sha256=checksum,
    ) as start:
        weights, source = _weights(folder)
        try:
            start.network.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"the weights in {source} do not fit model {task.model!r} "
                f"({briefly(error)}). The code of the model has changed since: go back "
                "to what it was."
            ) from error
        score = score_on(
            start.network,
            start.data,
            part=part,
            batch_size=config.training.evaluation_batch_size,
            loss_function=config.training.loss_function,
        )
        examples = len(getattr(start.data, part))
    return Evaluation(str(folder.path), task.data, part, examples, source, score)


def _weights(folder: RunFolder) -> tuple[dict[str, Tensor], str]:
    """The trained weights, else those of the last checkpoint; and where they stand."""
    path = folder.path / "model.safetensors"
    if not path.exists():
        checkpoint = read_checkpoint(folder.checkpoints)
        return checkpoint.model, f"the checkpoint at step {checkpoint.step}"
    try:
        return safetensors.torch.load(path.read_bytes()), str(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({briefly(error)}). Remove it: the last checkpoint will be "
            "used."
        ) from error

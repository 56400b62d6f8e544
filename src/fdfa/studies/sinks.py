"""The records that a configuration asks for: whether they can be kept, and their sinks."""

from __future__ import annotations

from fdfa.errors import ConfigError
from fdfa.studies.json_values import plain
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.setup import Records, TrainConfig
from fdfa.training import Sink, TensorBoard, WeightsAndBiases

__all__ = ["check_records", "make_sink"]


def check_records(records: Records, out: object) -> None:
    """Refuse records that could not be kept, before anything is written.

    Args:
        records: that are asked for.
        out: folder of the study; None for none.

    Raises:
        ConfigError: if a sink's package is not installed, or there is no folder.
    """
    if records.diagnose is not None and out is None:
        raise ConfigError(
            "diagnose keeps its lines in the folder of the run, and there is none. Give --out "
            "FOLDER (out=)."
        )
    if records.log and out is None:
        raise ConfigError(
            f"log={', '.join(records.log)} keeps its files in the folder of the run, and there is "
            "none. Give --out FOLDER (out=)."
        )
    for name in records.log:
        (TensorBoard if name == "tensorboard" else WeightsAndBiases).check_installed()


def make_sink(name: str, config: TrainConfig, folder: RunFolder) -> Sink:
    """A sink for a run.

    Args:
        name: ``"tensorboard"`` or ``"wandb"``.
        config: of the run.
        folder: of the run.

    Returns:
        The sink; it is opened when the training starts.
    """
    if name == "tensorboard":
        return TensorBoard(folder.tensorboard)
    return WeightsAndBiases(
        project=f"fdfa-{config.task.data}-{config.task.model}",
        name=f"{config.method}-seed-{config.seed}",
        folder=folder.path / "wandb",
        config=plain(config),
    )

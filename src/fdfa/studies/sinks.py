"""The sinks that a configuration names."""

from __future__ import annotations

from fdfa.errors import ConfigError
from fdfa.studies.json_values import plain
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.setup import Records, TrainConfig
from fdfa.training import Sink, TensorBoard, WeightsAndBiases

__all__ = ["check_sinks", "make_sink"]


def check_sinks(records: Records, out: object) -> None:
    """Refuse sinks that could not be made, before anything is written.

    Args:
        records: name them.
        out: folder of the study; None for none.

    Raises:
        ConfigError: if a package is not installed, or there is no folder.
    """
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

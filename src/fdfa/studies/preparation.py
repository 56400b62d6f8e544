"""What every study does before it starts: the data, the network, the machine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from fdfa.data.dataset import Dataset
from fdfa.errors import ConfigError
from fdfa.studies.devices import chosen_device, process_group
from fdfa.studies.environment import environment
from fdfa.studies.network import build_network
from fdfa.studies.setup import Machine
from fdfa.studies.task import Task, load_data
from fdfa.studies.threads import suitable_threads, using_threads

__all__ = ["Prepared", "prepared"]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A study that may start.

    Attributes:
        data: what is learned; on the device where it fits.
        network: with the weights of the first seed, on the device.
        device: where the study computes.
        machine: the same in words, with every default in place.
        environment: what it depends on beside its configuration.
    """

    data: Dataset
    network: nn.Module
    device: torch.device
    machine: Machine
    environment: dict[str, Any]


@contextlib.contextmanager
def prepared(
    task: Task,
    *,
    seed: int,
    machine: Machine | None = None,
    data_sha256: str | None = None,
    downloading: Callable[[str, int, int], None] | None = None,
) -> Iterator[Prepared]:
    """Find whatever is wrong with a study that can be found before it starts; write nothing.

    Inside the ``with`` block torch has the number of threads that suits the network, and the
    processes that ``torchrun`` started know each other.

    Args:
        task: what is learned, and by which network.
        seed: of the network's weights.
        machine: that the user asked for.
        data_sha256: checksum that the data must have, of a study that goes on.
        downloading: told of a download's progress.

    Yields:
        Everything that the study needs.

    Raises:
        ConfigError: if a name or a value in the task is wrong, there is no such device, or the data
            are not those of the checksum.

    Example:
        >>> with prepared(Task(model_options={"width": 8}), seed=0) as start:
        ...     torch.get_num_threads()
        1
    """
    machine = machine or Machine()
    place = chosen_device(machine.device)
    data = load_data(task, progress=downloading)
    network = build_network(task, data, seed=seed)
    with using_threads(suitable_threads(machine.threads, network)), process_group(place):
        found = environment(data, device=place)
        if data_sha256 not in (None, found["data_sha256"]):
            raise ConfigError(
                f"data set {task.data!r} is not the one that the run was started with: its SHA-256 "
                f"begins with {found['data_sha256'][:12]} and began with {str(data_sha256)[:12]}. "
                "Bring the old files back, or start a new run."
            )
        machine = Machine(threads=torch.get_num_threads(), device=str(place))
        yield Prepared(data.to(place), network.to(place), place, machine, found)

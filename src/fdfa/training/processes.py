"""The processes of a training: one, or those that ``torchrun`` started."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["Processes"]


@dataclasses.dataclass(frozen=True)
class Processes:
    """Who trains together; for a process alone everything here is free.

    Attributes:
        rank: number of this process, from 0. The first one keeps the records.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def present(cls) -> Processes:
        """The processes of the group that was initialised; else this one alone.

        Returns:
            The processes.

        Example:
            >>> Processes.present()
            Processes(rank=0, count=1)
        """
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        """Whether this is the process that keeps the records."""
        return self.rank == 0

    def parallel(self, learner: nn.Module) -> nn.Module:
        """What to call in place of a learner so that all processes step together.

        Args:
            learner: on this process's device.

        Returns:
            The learner itself for a process alone.
        """
        if self.count == 1:
            return learner
        device = next(learner.parameters()).device
        rests = getattr(learner, "first_block_every", 1) > 1  # it would wait for those gradients
        # Else it changes the order of its sums after the first step, also the first of a resume:
        # among three or more processes that would not be bit-equal.
        return DistributedDataParallel(
            learner,
            [device] if device.type == "cuda" else None,
            find_unused_parameters=rests or self.count > 2,
        )

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes.

        Args:
            values: the same shape everywhere.

        Returns:
            The sum.
        """
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def from_first(self, value: Any) -> Any:
        """What the first process has.

        Args:
            value: any plain value; only the first process's counts.

        Returns:
            The value.
        """
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=_device())
        return box[0]

    def gathered(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """What every process has, in order.

        Args:
            tensors: on the CPU.

        Returns:
            One entry a process.
        """
        if self.count == 1:
            return [tensors]
        found: list[dict[str, Tensor]] = [{} for _ in range(self.count)]
        dist.all_gather_object(found, tensors)
        return found

    def share_buffers(self, module: nn.Module) -> None:
        """Give all processes the buffers of the first: each has batch-norm statistics of its own.

        Args:
            module: the same everywhere.
        """
        if self.count > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process.

        Args:
            flag: of this one.

        Returns:
            The same in all of them.
        """
        if self.count == 1:
            return flag
        total = torch.tensor(int(flag), device=_device())
        dist.all_reduce(total)
        return bool(total)


def _device() -> torch.device:
    """Where small messages must lie for the group's backend."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")

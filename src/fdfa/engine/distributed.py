"""Several processes that train one model.

What has to be agreed, and the one collective that does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fdfa.errors import DistributedError

__all__ = ["agreed", "process_count", "process_rank", "refuse_wrapped", "sum_over_processes"]


def process_count() -> int:
    """Number of processes of the default group; 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """This process's number in the default group; 0 where there is none."""
    return dist.get_rank() if process_count() > 1 else 0


def agreed(number: int, device: torch.device) -> int:
    """The first process's number, for all: random starts must not differ between processes."""
    if process_count() == 1:
        return number
    shared = torch.tensor([number], dtype=torch.int64, device=device)
    dist.broadcast(shared, src=0)
    return int(shared.item())


def sum_over_processes(
    samples: int, parts: Sequence[Callable[[], Tensor]], *, like: Tensor
) -> tuple[int, Iterable[Tensor]]:
    """Sums of the sample count and of every part over all processes, by one flat all-reduce.

    With one process the parts are made one at a time, as they are asked for.

    Args:
        samples: that this process's parts sum over.
        parts: each makes one tensor, of the same shape in every process.
        like: a tensor with the device and dtype of the parts.

    Returns:
        The total number of samples, and the summed parts in order.
    """
    if process_count() == 1:
        return samples, (part() for part in parts)
    made = [part() for part in parts]
    flat = torch.cat([like.new_tensor([samples]), *(part.flatten() for part in made)])
    dist.all_reduce(flat)
    sums = torch.split(flat[1:], [part.numel() for part in made])
    return round(flat[0].item()), [s.view_as(part) for s, part in zip(sums, made, strict=True)]


def refuse_wrapped(model: nn.Module) -> None:
    """Refuse a model that is wrapped for several processes already.

    The wrapper belongs outside the learner.

    Args:
        model: the user's model.

    Raises:
        DistributedError: if it is, or holds, a ``DistributedDataParallel``.
    """
    for name, module in model.named_modules():
        if isinstance(module, (DistributedDataParallel, nn.DataParallel)):
            wrapper = type(module).__name__
            where = f"module '{name}'" if name else "the model"
            fault = "its reducer would not see the blocks that the learner cuts apart"
            if isinstance(module, nn.DataParallel):
                fault = "it copies the model, and the learner would cut each copy"
            raise DistributedError(
                f"{where} is wrapped in {wrapper}: {fault}."
                " Wrap the other way round: DistributedDataParallel(learner)"
                " around the plain model."
            )

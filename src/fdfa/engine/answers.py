"""What the output answered to the perturbations of the latest steps, of all processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from fdfa.engine.distributed import process_count, process_rank, sum_over_processes
from fdfa.engine.feedback import WideBuffers

__all__ = ["Answers"]


class Answers(WideBuffers):
    """The latest answers, each a matrix a process, of any size.

    Every process holds those of all: so one of them can save them, and buffers are equal
    everywhere, as ``DistributedDataParallel`` wants them. There is a place for each from the start,
    as long as the largest answer so far; they are in the order of the steps, the latest last.

    Args:
        most: how many steps are kept.
        dtype: of the answers; raised to float32 where narrower.
        device: of the buffers.

    Attributes:
        steps: buffer: numbers of the steps (most,); -1 where there is no answer yet.
        origins: buffer: what the perturbations were over (most,), as a number.
        shapes: buffer: rows and columns by step and process (most, processes, 2).
        values: buffer: a step's entries, process by process, and zeros behind them (most, length).

    Example:
        >>> answers = Answers(most=2)
        >>> for step in range(3):
        ...     answers.keep(step, torch.full((1, 2), step), 7)
        >>> [(step, answer.tolist()) for step, answer in answers.of_process(0, 7)]
        [(1, [[1.0, 1.0]]), (2, [[2.0, 2.0]])]
    """

    steps: Tensor
    origins: Tensor
    shapes: Tensor
    values: Tensor

    def __init__(
        self,
        *,
        most: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.most = most
        wide = torch.promote_types(dtype, torch.float32)
        steps = torch.full((most,), -1, dtype=torch.int64, device=device)
        self.register_buffer("steps", steps)
        self.register_buffer("origins", torch.zeros_like(steps))
        self.register_buffer("shapes", torch.zeros(most, 1, 2, dtype=torch.int64, device=device))
        self.register_buffer("values", torch.zeros(most, 0, dtype=wide, device=device))

    def of_process(self, process: int, origin: int) -> Iterator[tuple[int, Tensor]]:
        """The answers of one process to perturbations of one origin, the oldest first.

        Args:
            process: its number.
            origin: what the perturbations were over.

        Yields:
            The step's number, and the answer.
        """
        for row, (step, of, shapes) in enumerate(
            zip(self.steps.tolist(), self.origins.tolist(), self.shapes.tolist(), strict=True)
        ):
            if step >= 0 and of == origin and process < len(shapes):
                start = sum(rows * columns for rows, columns in shapes[:process])
                rows, columns = shapes[process]
                yield step, self.values[row, start : start + rows * columns].view(rows, columns)

    def keep(self, step: int, answer: Tensor, origin: int) -> None:
        """Take in the answer of a step, and let go of the oldest, which may be this one.

        A process whose answer is not finite adds none; if none is finite nothing changes. All
        processes call this together.

        Args:
            step: its number.
            answer: of this process (N, K).
            origin: what the perturbation was over, as a number.
        """
        # backward passes may come in another order than their steps
        place = sum(held <= step for held in self.steps.tolist())
        if not place:
            return
        finite = math.isfinite(answer.sum().item())
        answer = answer if finite else answer[:0]
        rank, processes = process_rank(), process_count()
        shapes = self.shapes.new_zeros(processes, 2)
        shapes[rank] = shapes.new_tensor(answer.shape)
        some, (shapes,) = sum_over_processes(int(finite), [lambda: shapes], like=shapes)
        if not some:
            return
        sizes = shapes.prod(1).tolist()
        values = self.values.new_zeros(max(sum(sizes), self.values.shape[1]))
        values[sum(sizes[:rank]) :][: sizes[rank]] = answer.flatten()
        _, (values,) = sum_over_processes(0, [lambda: values], like=values)
        self._insert(place, step, origin, shapes, values)

    def _insert(self, place: int, step: int, origin: int, shapes: Tensor, values: Tensor) -> None:
        # new tensors: a pass that waits for its error may hold views of the old ones
        held = nn.functional.pad(self.values, (0, len(values) - self.values.shape[1]))
        known = self.shapes
        if known.shape[1] != len(shapes):  # processes have come or gone: no other may be asked for
            known = nn.functional.pad(known, (0, 0, 0, len(shapes) - known.shape[1]))
        for name, old, new in (
            ("steps", self.steps, self.steps.new_tensor(step)),
            ("origins", self.origins, self.origins.new_tensor(origin)),
            ("shapes", known, shapes),
            ("values", held, values),
        ):
            self._buffers[name] = torch.cat([old[1:place], new[None], old[place:]])

    def conflicts(self, entries: Mapping[str, Tensor]) -> list[str]:
        """Why a state cannot be that of these answers.

        Args:
            entries: of a state dict, prefix removed.

        Returns:
            One text a problem; empty if it can.
        """
        problems = []
        known = {"steps": 1, "origins": 1, "shapes": 3, "values": 2}
        for name, dimensions in known.items():
            found = entries.get(name)
            if found is not None and (found.dim() != dimensions or len(found) != self.most):
                problems.append(
                    f"'answers.{name}' is {tuple(found.shape)} in the state, and its first size"
                    f" with window={self.most + 1} is {self.most}."
                )
        if problems or not known.keys() <= entries.keys():  # what is missing is said elsewhere
            return problems
        shapes, length = entries["shapes"], entries["values"].shape[1]
        if shapes.shape[2] != 2 or (shapes < 0).any() or (shapes.prod(2).sum(1) > length).any():
            problems.append(
                f"'answers.values' is {tuple(entries['values'].shape)} in the state, and"
                " 'answers.shapes' says otherwise."
            )
        return problems

    def adopt(self, entries: Mapping[str, Tensor]) -> None:
        """Make room for exactly these entries: loading finds a place for each.

        Args:
            entries: of a state dict, prefix removed.
        """
        for name, buffer in list(self._buffers.items()):
            if buffer is not None and name in entries:
                self._buffers[name] = buffer.new_zeros(entries[name].shape)

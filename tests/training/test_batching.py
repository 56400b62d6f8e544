"""Which examples are learned when and where: checked by counting, over all small cases."""

from __future__ import annotations

import itertools

import pytest
import torch

from fdfa.training.batching import epoch_steps

CASES = [
    (count, batch_size, parts, processes)
    for count, batch_size, parts, processes in itertools.product(
        (1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 20, 23), (1, 2, 3, 4, 6, 8, 30), (1, 2, 3), (1, 2, 3)
    )
    # What the trainer lets through: at least one example for each part of each process.
    if batch_size >= parts * processes <= count
]


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_everyone_gets_a_share_and_together_they_get_everything(parts: int, processes: int) -> None:
    for count, batch_size, _, _ in (case for case in CASES if case[2:] == (parts, processes)):
        where = f"{count} examples, batch_size={batch_size}"
        order = torch.randperm(count, generator=torch.Generator().manual_seed(count)) + 100
        by_rank = [
            epoch_steps(order, batch_size=batch_size, parts=parts, rank=rank, processes=processes)
            for rank in range(processes)
        ]
        assert len({len(steps) for steps in by_rank}) == 1, f"{where}: one would wait for ever"
        position = 0
        for together in zip(*by_rank, strict=True):
            learned = [torch.cat(step.parts).tolist() for step in together]
            expected = order[position : position + batch_size].tolist()
            position += len(expected)
            assert sorted(itertools.chain(*learned)) == sorted(expected), where
            for step in together:
                assert step.examples == len(expected), where
                assert len(step.parts) == parts, f"{where}: parts meet in collectives"
                sizes = [len(part) for part in step.parts]
                assert min(sizes) >= 1, where
                assert max(sizes) - min(sizes) <= 1, where
            totals = [len(share) for share in learned]
            assert max(totals) - min(totals) <= 1, where
        left_out = count - position
        assert left_out < batch_size, where
        if left_out:  # only where batch norm could not use some part of it
            assert left_out // (parts * processes) < 2, where
            assert position, f"{where}: nothing is learned at all"


def test_alone_a_batch_is_a_slice_of_the_order() -> None:
    order = torch.randperm(22, generator=torch.Generator().manual_seed(1))
    steps = epoch_steps(order, batch_size=8)
    assert [step.parts[0].tolist() for step in steps] == [
        order[:8].tolist(),
        order[8:16].tolist(),
        order[16:].tolist(),
    ]


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [(9, 4, [4, 4]), (10, 4, [4, 4, 2]), (3, 1, [1, 1, 1]), (1, 4, [1]), (5, 2, [2, 2])],
)
def test_a_single_one_left_over_is_left_out(count: int, batch_size: int, sizes: list[int]) -> None:
    steps = epoch_steps(torch.arange(count), batch_size=batch_size)
    assert [step.examples for step in steps] == sizes

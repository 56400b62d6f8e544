"""Which blocks an error passes backwards on its way to the weights of each block."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import NamedTuple

from fdfa.engine.taps import TapPlan

__all__ = ["BackwardPath", "RelayRoutes", "longest_backward_path", "relay_routes"]


class BackwardPath(NamedTuple):
    """How far an error travels backwards.

    Attributes:
        weight_layers: weight layers on the way, the last one that learns from it included.
        blocks: the blocks that they lie in.
    """

    weight_layers: int
    blocks: int


@dataclasses.dataclass(frozen=True)
class RelayRoutes:
    """The way of every credit, for one plan; blocks have the numbers of the taps where they end.

    Attributes:
        relayed: for each tap whose credit is relayed, the blocks that it passes, the one that it
            enters first: at the end of that, the error arrives through a feedback map. In order.
        exact: for each block that the output's own error reaches, the taps through which it is
            passed on from there, the last block first. Where no credit is relayed, the output's.
        sources: the taps whose feedback maps some credit uses.
        entries: the taps at which something is pulled back out of the next block.
        apart: for each block, whether something is pulled back through it.
    """

    relayed: Mapping[int, tuple[int, ...]]
    exact: Mapping[int, tuple[int, ...]]
    sources: frozenset[int]
    entries: frozenset[int]
    apart: tuple[bool, ...]


@functools.lru_cache(maxsize=64)
def relay_routes(plan: TapPlan, relay: int) -> RelayRoutes:
    """The routes of all credits.

    Args:
        plan: with the taps.
        relay: r, from 1 up: credits enter r blocks behind their tap.

    Returns:
        The routes; taps before which nothing learns have none.
    """
    last = len(plan.taps)
    within = {*plan.onward}  # blocks that a tap leads into; the others are entered by the input
    relayed, exact = {}, {last: set[int]()}
    for tap in range(last):
        if tap in within and not plan.blocks[tap]:
            continue
        way = [tap]
        while way[-1] != last and len(way) <= relay:
            way.append(plan.onward[way[-1]])
        if way[-1] != last:
            relayed[tap] = tuple(reversed(way[1:]))
            continue
        for before, block in itertools.pairwise(way):
            exact.setdefault(block, set()).add(before)
            exact.setdefault(before, set())
    entries = {tap for befores in exact.values() for tap in befores}
    entries |= {tap for number, way in relayed.items() for tap in (*way[1:], number)}
    return RelayRoutes(
        relayed=relayed,
        exact={block: tuple(sorted(exact[block])) for block in sorted(exact, reverse=True)},
        sources=frozenset(way[0] for way in relayed.values()),
        entries=frozenset(entries),
        apart=tuple(
            any(plan.onward[entry] == block for entry in entries) for block in range(last + 1)
        ),
    )


def longest_backward_path(plan: TapPlan, relay: int = 0) -> BackwardPath:
    """The longest way that an error travels backwards, to the weights that learn from it.

    With ``relay=0`` it stays in one block: with a tap on every layer that is one weight layer. Of
    backpropagation it is the whole network. Of two ways the one with more weight layers counts.

    Args:
        plan: with the taps.
        relay: r: credits enter r blocks behind their tap.

    Returns:
        Weight layers and blocks on it.

    Example:
        >>> import torch
        >>> from fdfa.engine.taps import plan_taps
        >>> layers = [torch.nn.Linear(3, 3), torch.nn.Tanh()] * 4
        >>> plan = plan_taps(torch.nn.Sequential(*layers), (torch.ones(2, 3),), {})
        >>> longest_backward_path(plan), longest_backward_path(plan, relay=2)
        (BackwardPath(weight_layers=1, blocks=1), BackwardPath(weight_layers=3, blocks=3))
    """
    last, found = len(plan.taps), [BackwardPath(plan.depths[-1], 1)]
    for tap in range(last):
        way = [tap]
        while way[-1] != last and len(way) <= relay:
            way.append(plan.onward[way[-1]])
        found.append(BackwardPath(sum(plan.depths[block] for block in way), len(way)))
    return max(found)

"""The autograd graph behind an output: who consumes what, and where it can be cut.

A node is a *valid cut* if everything behind it (its ancestors) reaches the output only through it.
In terms of dominators: no edge leaves the set of nodes that it dominates towards one that it does
not dominate. One sweep over the edges decides that for all nodes together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

__all__ = ["AutogradGraph", "Node", "leaves_behind"]

Node = Any  # torch.autograd.graph.Node; the concrete classes are made by the C++ side


class AutogradGraph:
    """Nodes reachable from one output, in topological order, with dominators and valid cuts.

    Leaves (``AccumulateGrad``) are not nodes: a parameter shared by two blocks is no path between
    them.

    Args:
        output: a tensor with a ``grad_fn``.

    Attributes:
        output: the node that made the output.
        order: the nodes, every consumer before what it consumes; ``order[0]`` made the output,
            unless the graph is stopped somewhere.
        place: position of each node in ``order``.
        leaves: ``(consumer's place, leaf tensor)`` for every edge into a leaf.
    """

    def __init__(self, output: torch.Tensor) -> None:
        self._build(output.grad_fn, {})

    def stopped_at(self, ends: Mapping[Node, int]) -> AutogradGraph:
        """The graph with no way on from these nodes: each is an end of its own, as the output is.

        Args:
            ends: valid cuts of this graph, each with the number of its result that is used.

        Returns:
            A graph of the same nodes, whose ``order[0]`` only holds the ends together.
        """
        graph = AutogradGraph.__new__(AutogradGraph)
        graph._build(self.output, ends)
        return graph

    def _build(self, output: Node, ends: Mapping[Node, int]) -> None:
        self.output = output
        self._ends: dict[Node, int] = dict(ends)
        root = _Together(((output, 0), *ends.items())) if ends else output
        self.order: list[Node] = self._topological_order(root)
        self.place: dict[Node, int] = {node: i for i, node in enumerate(self.order)}
        self.leaves: list[tuple[int, torch.Tensor]] = []
        self._consumers: list[list[tuple[int, int]]] = [[] for _ in self.order]
        for i, node in enumerate(self.order):
            for source, output_nr in self._sources(node):
                if hasattr(source, "variable"):
                    self.leaves.append((i, source.variable))
                else:
                    self._consumers[self.place[source]].append((i, output_nr))
        self._dominator = self._immediate_dominators()
        self._crossings = self._count_crossings()

    def _sources(self, node: Node) -> Iterator[tuple[Node, int]]:
        for source, output_nr in node.next_functions:
            stopped = source in self._ends and not isinstance(node, _Together)
            if source is not None and not stopped:
                yield source, output_nr

    def valid_cut(self, node: Node, output_nr: int = 0) -> bool:
        """Whether all behind this node reaches the output only through its result ``output_nr``."""
        i = self.place.get(node)
        if i is None or node is self.output or self._crossings[i]:
            return False
        return all(number == output_nr for _, number in self._consumers[i])

    def consumers(self, node: Node) -> list[Node]:
        """The nodes that consume this one's results on the way to the output."""
        found = (self.order[i] for i, _ in self._consumers[self.place[node]])
        return [consumer for consumer in found if not isinstance(consumer, _Together)]

    def nearest_dominator(self, node: Node, among: Mapping[Node, Any]) -> Node:
        """The closest node of ``among`` through which this one must pass, else its end."""
        i = self._dominator[self.place[node]]
        while self.order[i] not in among and not self._is_end(i):
            i = self._dominator[i]
        return self.order[i]

    def end(self, node: Node) -> Node:
        """The node without a way on that this one leads to: the output's, or one stopped at."""
        i = self.place[node]
        while not self._is_end(i):
            i = self._dominator[i]
        return self.order[i]

    def _is_end(self, i: int) -> bool:
        return i == 0 or self.order[i] is self.output or self.order[i] in self._ends

    def ancestor_masks(self, marked: Iterable[Node]) -> dict[Node, tuple[int, int]]:
        """For each marked node: its own bit, and the bits of all marked nodes at or behind it."""
        bit = {node: 1 << n for n, node in enumerate(dict.fromkeys(marked)) if node in self.place}
        masks = [bit.get(node, 0) for node in self.order]
        for i in range(len(self.order) - 1, -1, -1):  # what is consumed comes first
            for consumer, _ in self._consumers[i]:
                masks[consumer] |= masks[i]
        return {node: (own, masks[self.place[node]]) for node, own in bit.items()}

    def regions(self, cuts: Mapping[Node, int]) -> list[int]:
        """For each node (by place) the number of the cut that it lies behind, -1 for none."""
        region = [-1] * len(self.order)
        for i, node in enumerate(self.order):
            if node in cuts:
                region[i] = cuts[node]
            elif i:
                region[i] = region[self._consumers[i][0][0]]
        return region

    def longest_ways(self, marked: Collection[int], region: Sequence[int]) -> dict[int, int]:
        """For each region the most marked nodes (by place) that lie one behind the other in it."""
        ways, longest = [0] * len(self.order), dict.fromkeys(region, 0)
        for i, consumers in enumerate(self._consumers):
            here = [ways[place] for place, _ in consumers if region[place] == region[i]]
            ways[i] = max(here, default=0) + (i in marked)
            longest[region[i]] = max(longest[region[i]], ways[i])
        return longest

    def bypass(self, node: Node) -> Node | None:
        """A node behind ``node`` that also reaches the output around it, or None."""
        behind = {self.place[node]}
        for i in range(self.place[node] + 1, len(self.order)):
            inside = [consumer in behind for consumer, _ in self._consumers[i]]
            if any(inside):
                if not all(inside):
                    return self.order[i]
                behind.add(i)
        return None

    def _immediate_dominators(self) -> list[int]:
        dominator, depth = [0] * len(self.order), [0] * len(self.order)
        for i in range(1, len(self.order)):
            nearest = self._consumers[i][0][0]
            for consumer, _ in self._consumers[i][1:]:
                while nearest != consumer:  # the deeper of the two climbs until they meet
                    if depth[nearest] >= depth[consumer]:
                        nearest = dominator[nearest]
                    else:
                        consumer = dominator[consumer]
            dominator[i], depth[i] = nearest, depth[nearest] + 1
        return dominator

    def _count_crossings(self) -> list[int]:
        """For each node, how many edges leave the set that it dominates."""
        # An edge leaves the sets of all nodes from its consumer up to, without, the dominator of
        # what it consumes: +1 and -1 there, then sums over the dominator tree.
        count = [0] * len(self.order)
        for i in range(1, len(self.order)):
            for consumer, _ in self._consumers[i]:
                count[consumer] += 1
                count[self._dominator[i]] -= 1
        for i in range(len(self.order) - 1, 0, -1):
            count[self._dominator[i]] += count[i]
        return count

    def _topological_order(self, root: Node) -> list[Node]:
        waiting: dict[Node, int] = {root: 0}  # consumers not yet placed
        stack = [root]
        while stack:
            for source, _ in self._sources(stack.pop()):
                if hasattr(source, "variable"):
                    continue
                if source not in waiting:
                    waiting[source] = 0
                    stack.append(source)
                waiting[source] += 1
        order, ready = [], [root]
        while ready:
            node = ready.pop()
            order.append(node)
            for source, _ in self._sources(node):
                if source in waiting:
                    waiting[source] -= 1
                    if not waiting[source]:
                        ready.append(source)
        return order


class _Together:
    """Stands above the ends of a stopped graph."""

    def __init__(self, ends: tuple[tuple[Node, int], ...]) -> None:
        self.next_functions = ends


def leaves_behind(tensor: torch.Tensor) -> set[int]:
    """Ids of the leaf tensors that a tensor depends on.

    Args:
        tensor: any tensor.

    Returns:
        The ids; empty where the tensor needs no gradient.
    """
    leaves, seen = set(), {tensor.grad_fn}
    waiting = [] if tensor.grad_fn is None else [tensor.grad_fn]
    while waiting:
        for source, _ in waiting.pop().next_functions:
            if source is None or source in seen:
                continue
            seen.add(source)
            if hasattr(source, "variable"):
                leaves.add(id(source.variable))
            else:
                waiting.append(source)
    return leaves

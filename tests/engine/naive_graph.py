"""Cuts and dominators by the plainest search: remove a node, see what the output still reaches."""

from __future__ import annotations

from fdfa.engine.graph import Node

__all__ = [
    "bypassers",
    "is_valid_cut",
    "reachable",
    "sources",
    "strict_dominators",
]


def sources(node: Node) -> list[Node]:
    """What the node consumes, leaves left out, one entry an edge."""
    return [s for s, _ in node.next_functions if s is not None and not hasattr(s, "variable")]


def reachable(start: Node, without: Node | None = None) -> set[Node]:
    """All nodes at or behind ``start``, by depth-first search; ``without`` counts as removed."""
    if start is without:
        return set()
    found, stack = {start}, [start]
    while stack:
        for source in sources(stack.pop()):
            if source is not without and source not in found:
                found.add(source)
                stack.append(source)
    return found


def bypassers(root: Node, node: Node) -> set[Node]:
    """Nodes behind ``node`` that the output still reaches once ``node`` is removed."""
    return (reachable(node) - {node}) & reachable(root, without=node)


def numbers_consumed(root: Node, node: Node) -> set[int]:
    """Which of the node's results something consumes on the way to the output."""
    return {
        number
        for consumer in reachable(root)
        for source, number in consumer.next_functions
        if source is node
    }


def strict_dominators(root: Node, node: Node) -> list[Node]:
    """Nodes whose removal parts ``node`` from the output; each lies behind the next."""
    found = [d for d in reachable(root) if d is not node and node not in reachable(root, without=d)]
    return sorted(found, key=lambda d: len(reachable(d)))


def is_valid_cut(root: Node, node: Node, output_nr: int) -> bool:
    return (
        node is not root
        and not bypassers(root, node)
        and numbers_consumed(root, node) == {output_nr}
    )

"""Cuts, dominators and regions of random graphs against a search that removes nodes one by one."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fdfa.engine.graph import AutogradGraph
from tests.engine.naive_graph import (
    bypassers,
    is_valid_cut,
    reachable,
    sources,
    strict_dominators,
)

# One step of a random program: which operation, and how far back its two operands lie.
OPERATIONS = ("add", "mul", "tanh", "affine", "scale", "split", "swap", "detach", "input")
STEP = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 3), st.integers(0, 5))
PROGRAM = st.lists(STEP, min_size=1, max_size=14)


def run_program(program: Iterable[tuple[str, int, int]]) -> Tensor:
    """A tensor computed from parameters: any acyclic graph, with shared leaves and split nodes."""
    weight = torch.rand(4, 4, requires_grad=True)
    scale = torch.rand(4, requires_grad=True)
    values = [torch.ones(2, 4) @ weight]
    for operation, near, far in program:
        a, b = values[-1 - near % len(values)], values[-1 - far % len(values)]
        if operation == "add":
            values.append(a + b)
        elif operation == "mul":
            values.append(a * b)
        elif operation == "tanh":
            values.append(torch.tanh(a))
        elif operation == "affine":
            values.append(a @ weight)
        elif operation == "scale":
            values.append(a * scale)
        elif operation == "split":  # the halves are results 0 and 1 of one node
            left, right = a.chunk(2, 1)
            values += [torch.cat([left, left], 1), torch.cat([right, b[:, :2]], 1)]
        elif operation == "swap":  # both results of one node are consumed by one other
            left, right = a.chunk(2, 1)
            values.append(torch.cat([right, left], 1))
        elif operation == "detach":
            values.append(a + b.detach())
        else:
            values.append(torch.ones(2, 4) * scale)
    return values[-1] + 0  # so that the output's node is consumed by nothing


@given(PROGRAM)
def test_every_node_is_there_once_before_what_it_consumes(program) -> None:
    y = run_program(program)
    graph = AutogradGraph(y)
    assert set(graph.order) == reachable(y.grad_fn)
    assert len(graph.order) == len(set(graph.order))
    for node in graph.order:
        assert all(graph.place[node] < graph.place[source] for source in sources(node))


@given(PROGRAM)
def test_valid_cuts(program) -> None:
    y = run_program(program)
    graph = AutogradGraph(y)
    for node in reachable(y.grad_fn):
        for output_nr in (0, 1):
            expected = is_valid_cut(y.grad_fn, node, output_nr)
            assert graph.valid_cut(node, output_nr) == expected, (node, output_nr)


@given(PROGRAM)
def test_consumers(program) -> None:
    y = run_program(program)
    graph = AutogradGraph(y)
    edges = [source for node in reachable(y.grad_fn) for source in sources(node)]
    for node in reachable(y.grad_fn):
        assert len(graph.consumers(node)) == edges.count(node)


@given(PROGRAM)
def test_leaves_are_listed_with_every_node_that_consumes_them(program) -> None:
    y = run_program(program)
    graph = AutogradGraph(y)
    expected = [
        (graph.place[node], id(source.variable))
        for node in reachable(y.grad_fn)
        for source, _ in node.next_functions
        if hasattr(source, "variable")
    ]
    assert sorted((place, id(leaf)) for place, leaf in graph.leaves) == sorted(expected)


@given(PROGRAM, st.integers(0, 2**32))
def test_nearest_dominators(program, seed: int) -> None:
    y = run_program(program)
    graph = AutogradGraph(y)
    choice = random.Random(seed)
    among = {node: None for node in graph.order if choice.random() < 0.4}
    for node in graph.order[1:]:
        chain = [d for d in strict_dominators(y.grad_fn, node) if d in among]
        expected = chain[0] if chain else y.grad_fn
        assert graph.nearest_dominator(node, among) is expected


@given(PROGRAM, st.integers(0, 2**32))
def test_ancestor_masks(program, seed: int) -> None:
    y = run_program(program)
    graph = AutogradGraph(y)
    choice = random.Random(seed)
    marked = [node for node in graph.order if choice.random() < 0.5]
    stranger = torch.rand(2, requires_grad=True).exp().grad_fn
    masks = graph.ancestor_masks([*marked, stranger, *marked])
    assert set(masks) == set(marked)
    assert all(own.bit_count() == 1 for own, _ in masks.values())
    assert len({own for own, _ in masks.values()}) == len(marked)
    for node in marked:
        behind = {other for other in marked if masks[node][1] & masks[other][0]}
        assert behind == reachable(node) & set(marked)


@given(PROGRAM, st.integers(0, 2**32))
def test_regions(program, seed: int) -> None:
    y = run_program(program)
    graph = AutogradGraph(y)
    choice = random.Random(seed)
    cuts = {
        node: number
        for number, node in enumerate(graph.order)
        if choice.random() < 0.7 and any(is_valid_cut(y.grad_fn, node, nr) for nr in (0, 1))
    }
    region = graph.regions(cuts)
    for node in graph.order:
        at_or_before = [node, *strict_dominators(y.grad_fn, node)]
        expected = next((cuts[d] for d in at_or_before if d in cuts), -1)
        assert region[graph.place[node]] == expected


@given(PROGRAM)
def test_bypass(program) -> None:
    y = run_program(program)
    graph = AutogradGraph(y)
    for node in graph.order:
        around, expected = graph.bypass(node), bypassers(y.grad_fn, node)
        assert around in expected if expected else around is None


def test_what_does_not_lead_to_the_output_is_no_cut() -> None:
    weight = torch.rand(2, requires_grad=True)
    assert not AutogradGraph(weight.exp()).valid_cut(weight.sin().grad_fn)


def test_one_result_of_two_is_a_cut_only_if_the_other_is_unused() -> None:
    weight = torch.rand(2, 4, requires_grad=True)
    left, right = (weight * 2).chunk(2, 1)
    alone = AutogradGraph(left.exp().sum())
    assert alone.valid_cut(left.grad_fn, 0)
    assert not alone.valid_cut(right.grad_fn, 1)
    both = AutogradGraph((left.exp() + right).sum())
    assert not both.valid_cut(left.grad_fn, 0)


@pytest.mark.parametrize("depth", [20_000])
def test_deep_graphs_need_no_recursion(depth: int) -> None:
    """An unrolled recurrent network has thousands of nodes in a chain."""
    h = torch.rand(1, requires_grad=True)
    for _ in range(depth):
        h = h + 1
    graph = AutogradGraph(h)
    assert len(graph.order) == depth
    assert all(graph.valid_cut(node) for node in graph.order[1:])


def test_the_naive_search_notices_a_wrong_answer() -> None:
    """The oracle itself: a skip makes the branch inside it invalid, and the joined tensor valid."""
    weight = torch.rand(2, requires_grad=True)
    stem = weight.sin()
    branch = stem.exp()
    joined = stem + branch
    root = joined.cos().grad_fn
    assert [is_valid_cut(root, t.grad_fn, 0) for t in (stem, branch, joined)] == [True, False, True]
    assert bypassers(root, branch.grad_fn) == {stem.grad_fn}

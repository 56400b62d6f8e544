"""Where the graph is cut, and what lies between the cuts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from fdfa.engine.discovery import Candidate, Recording, record
from fdfa.engine.graph import AutogradGraph, Node
from fdfa.engine.selection import (
    TapSpec,
    automatic_cuts,
    cuts_with_heads,
    explicit_cuts,
    name_of_taps,
    wanted_modules,
)
from fdfa.errors import UnsupportedModelError

__all__ = ["Tap", "TapPlan", "parameter_names", "plan_taps"]


@dataclasses.dataclass(frozen=True)
class Tap:
    """One place where the forward pass is cut.

    Attributes:
        name: unique, and the name of its feedback map: ``"fc1"``, ``"fc2:input"``, ``"fc1#2"`` for
            a second call.
        module: dotted name of the module at whose output or input the cut lies.
        kind: which of the two.
        call: 0 for the module's first call in a forward pass.
        shape: of the tensor, sample dimensions included.
        device: of the tensor.
        end: name of the tap at which the local loss hangs that this one counts for, its own where
            it carries the head; None where it counts for the loss of the output.
    """

    name: str
    module: str
    kind: Literal["output", "input"]
    call: int
    shape: tuple[int, ...]
    device: torch.device
    end: str | None = None

    @property
    def has_head(self) -> bool:
        """Whether a local loss hangs here: no derivative passes, neither back nor forth."""
        return self.end == self.name


@dataclasses.dataclass(frozen=True, eq=False)
class TapPlan:
    """The taps of one structure of a model, in the order in which a forward pass meets them.

    A plan equals itself alone: so what is derived from it can be looked up fast.

    Attributes:
        taps: the cuts.
        chain: whether each tap lies behind the next one, so that nothing passes a tap by.
        blocks: names of the parameters of each block; block l ends at tap l, the last one at the
            output.
        weight_layers: names of the weight layers of each block.
        depths: how many of them lie one behind the other, on the longest way through each block.
        onward: for each tap the number of the block that it leads into: that of the next tap on the
            way to the output, or the last block's.
        output_shape: of the model's output.
        attention: whether the pass may hold scaled dot product attention.
        other_gradients: for every other tensor that the model returns, whether it needs a gradient.
        checkpoints: modules that ran inside ``torch.utils.checkpoint``, with a number for the
            region, in order.
    """

    taps: tuple[Tap, ...]
    chain: bool
    blocks: tuple[tuple[str, ...], ...]
    weight_layers: tuple[tuple[str, ...], ...]
    depths: tuple[int, ...]
    onward: tuple[int, ...]
    output_shape: tuple[int, ...]
    attention: bool
    checkpoints: tuple[tuple[str, int], ...]
    other_gradients: tuple[bool, ...]

    def receiving(self, perturbed: Iterable[Tap]) -> frozenset[str]:
        """The names of the taps at which a perturbation of another tap arrives.

        Args:
            perturbed: the taps that are perturbed.

        Returns:
            The names.
        """
        reached: set[int] = set()
        for number in map(self.taps.index, perturbed):
            while (number := self.onward[number]) < len(self.taps) and number not in reached:
                reached.add(number)
        return frozenset(self.taps[number].name for number in reached)


def plan_taps(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    taps: TapSpec = "auto",
    depth: int = 1,
    sample_dims: int = 1,
    output: str | int | None = None,
    prefer: Callable[[nn.Module], bool] | None = None,
    heads: Collection[str] = (),
) -> TapPlan:
    """Find the taps by one uncut forward pass that leaves the model's state as it was.

    Args:
        model: any module.
        args: positional arguments of the pass.
        kwargs: keyword arguments of the pass.
        taps: ``"auto"``; names of modules whose outputs are cut; a module type; or a predicate
            ``(name, module)``.
        depth: with ``"auto"``, join this many blocks into one, counted from the input.
        sample_dims: number of leading dimensions that count samples, in taps as in the output.
        output: names the output in what the model returns.
        prefer: with ``"auto"``, modules whose outputs are cut rather than what comes later in the
            same run of weight layers.
        heads: names of taps at which local losses hang. They are cut too, and what may be cut
            between them is found as if they were outputs.

    Returns:
        The plan for this structure.

    Raises:
        ConfigError: if a name is unknown or ``depth`` goes with explicit taps.
        UnsupportedModelError: with every problem found: a path around a tap, a parameter that no
            block reaches, no taps.
    """
    wanted = wanted_modules(model, taps, depth)
    recording = record(model, args, kwargs, output=output, sample_dims=sample_dims)
    problems = _unreached_parameters(model, recording)
    samples = recording.output_shape[:sample_dims]
    whole = recording.graph
    ends, faults = cuts_with_heads(recording, samples, heads)
    problems += faults
    if ends:
        stops = {node: cut.output_nr for node, cut in ends.items()}
        recording = dataclasses.replace(recording, graph=whole.stopped_at(stops))
    if wanted is None:
        preferred = {
            name for name, module in model.named_modules() if prefer is not None and prefer(module)
        }
        cuts = automatic_cuts(recording, samples, depth, preferred)
        if not cuts and not ends and depth == 1:
            problems.append(
                "no tap was found: between the input and the output there is no tensor (N, ...)"
                " after a weight layer through which every path passes and that another weight"
                " layer follows. Name taps by hand, or pass taps=[] to train the whole model as one"
                " block (that is backpropagation)."
            )
    else:
        by_name = isinstance(taps, (str, Sequence))
        cuts, faults = explicit_cuts(recording, samples, wanted, by_name=by_name)
        problems += faults
        if not (cuts or ends or problems or (by_name and not wanted)):
            problems.append(
                f"taps={name_of_taps(taps)} gives no tap: no module that runs after the first"
                " trainable parameter and before the output matches. Name others, or pass taps=[]"
                " to train the whole model as one block (that is backpropagation)."
            )
    if problems:
        raise UnsupportedModelError(problems)
    chosen = {**{cut.node: cut for cut in cuts}, **ends}
    cuts = sorted(chosen.values(), key=recording.calls.candidates.index)
    return _plan(model, cuts, recording, whole)


def _unreached_parameters(model: nn.Module, recording: Recording) -> list[str]:
    """Modules that ran in vain: trainable parameters, but no path to the output."""
    reached = {id(leaf) for _, leaf in recording.graph.leaves}
    reentrant = any(
        type(node).__name__ == "CheckpointFunctionBackward" for node in recording.graph.order
    )
    problems = []
    for name, module in model.named_modules():
        made = recording.calls.returned.get(name)
        if made is None or any(node in recording.graph.place for node in made):
            continue  # not run, or its result counts: what it does not use now, it need not
        for key, parameter in module.named_parameters(prefix=name, recurse=False):
            if parameter.requires_grad and id(parameter) not in reached:
                remedy = (
                    "it ran inside torch.utils.checkpoint(use_reentrant=True), whose graph hides"
                    " it. Pass use_reentrant=False"
                    if reentrant
                    else (
                        "the output does not depend on it, or a detach() or no_grad() lies between."
                        " Freeze it with requires_grad_(False), or mend the path"
                    )
                )
                problems.append(
                    f"no block reaches parameter '{key}' of {type(module).__name__} although it"
                    f" ran: {remedy}."
                )
    return problems


def _plan(
    model: nn.Module, cuts: Sequence[Candidate], recording: Recording, whole: AutogradGraph
) -> TapPlan:
    graph = recording.graph  # the whole one, or that stopped at local losses
    masks = graph.ancestor_masks([cut.node for cut in cuts])
    names = {cut.node: cut.name for cut in cuts}
    taps = [
        Tap(
            *(cut.name, cut.module, cut.kind, cut.call, cut.shape, cut.device),
            end=names.get(graph.end(cut.node)),
        )
        for cut in cuts
    ]
    region = graph.regions({cut.node: i for i, cut in enumerate(cuts)})
    blocks = [
        {id(leaf) for place, leaf in graph.leaves if region[place] == i}
        for i in (*range(len(cuts)), -1)
    ]
    layers: list[list[str]] = [[] for _ in blocks]
    for name, nodes in recording.calls.weight_calls:
        for i in sorted({region[graph.place[node]] for node in nodes if node in graph.place}):
            layers[i].append(name)
    behind = [masks[cut.node] for cut in cuts]
    # the first tap of those that it lies behind: they come one behind the other
    onward = [
        next((j for j in range(i + 1, len(cuts)) if behind[j][1] & own), len(cuts))
        for i, (own, _) in enumerate(behind)
    ]
    calls = [
        [graph.place[node] for node in nodes if node in graph.place]
        for _, nodes in recording.calls.weight_calls
    ]
    depths = graph.longest_ways({min(places) for places in calls if places}, region)
    return TapPlan(
        taps=tuple(taps),
        chain=_is_chain(whole, cuts),
        blocks=tuple(parameter_names(model, block) for block in blocks),
        weight_layers=tuple(map(tuple, layers)),
        depths=tuple(depths.get(i, 0) for i in (*range(len(cuts)), -1)),
        onward=tuple(onward),
        output_shape=recording.output_shape,
        attention=any(_may_attend(node) for node in graph.order),
        checkpoints=tuple(recording.calls.checkpoints),
        other_gradients=recording.other_gradients,
    )


def _is_chain(graph: AutogradGraph, cuts: Sequence[Candidate]) -> bool:
    """Whether each cut lies behind the next one."""
    masks = graph.ancestor_masks([cut.node for cut in cuts])
    chain, seen = True, 0
    for cut in cuts:
        own, behind = masks[cut.node]
        chain &= seen & ~behind == 0
        seen |= own
    return chain


def _may_attend(node: Node) -> bool:
    name = type(node).__name__
    return "ScaledDotProduct" in name or "oftmax" in name


def parameter_names(model: nn.Module, leaves: Container[int]) -> tuple[str, ...]:
    """Names of the parameters among these leaves of an autograd graph.

    Args:
        model: the user's model.
        leaves: ids of tensors.

    Returns:
        The names, in the model's order.
    """
    return tuple(name for name, parameter in model.named_parameters() if id(parameter) in leaves)

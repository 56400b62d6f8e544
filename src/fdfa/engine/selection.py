"""Choosing cuts: by dominators, or by name.

``taps="auto"``: among the valid cuts take, for each run of weight layers, the last one before the
next weight layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from torch import nn

from fdfa.engine.discovery import Candidate, Recording
from fdfa.engine.graph import Node
from fdfa.errors import ConfigError, unknown_name

__all__ = [
    "TapSpec",
    "automatic_cuts",
    "cuts_with_heads",
    "explicit_cuts",
    "name_of_taps",
    "wanted_modules",
]

TapSpec = str | Sequence[str] | type[nn.Module] | Callable[[str, nn.Module], bool]


def wanted_modules(model: nn.Module, taps: TapSpec, depth: int) -> list[str] | None:
    """Names of the modules to cut after.

    Args:
        model: the user's model.
        taps: as the user gave it.
        depth: as the user gave it.

    Returns:
        The names, or None for automatic taps.

    Raises:
        ConfigError: if a name is unknown, ``depth`` is no positive number, or goes with names.
        TypeError: if ``taps`` is of none of the kinds.
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise ConfigError(
            f"depth={depth!r}: a block has a whole number of weight layers. Pass depth=1 or more."
        )
    modules = dict(model.named_modules())
    if isinstance(taps, str) and taps == "auto":
        return None
    if depth != 1:
        raise ConfigError(
            f"depth={depth} goes with taps='auto' only: explicit taps already say where blocks end."
            " Leave one out."
        )
    if isinstance(taps, type) and issubclass(taps, nn.Module):
        return [name for name, module in modules.items() if name and isinstance(module, taps)]
    if isinstance(taps, (str, Sequence)):
        names = [taps] if isinstance(taps, str) else list(taps)
        for name in names:
            if not isinstance(name, str):
                raise TypeError(
                    f"taps holds {name!r}: a sequence of taps names modules. Pass strings such as"
                    " 'layer1.0'."
                )
            if name not in modules or not name:
                raise ConfigError(unknown_name("tap", name, [m for m in modules if m]))
        return names
    if callable(taps) and not isinstance(taps, (type, nn.Module)):
        return [name for name, module in modules.items() if name and taps(name, module)]
    raise TypeError(
        f"taps={name_of_taps(taps)}: pass 'auto', a sequence of module names, a module type, or a"
        " function (name, module)."
    )


def name_of_taps(taps: object) -> str:
    """What the user passed as taps, fit for an error text.

    Args:
        taps: anything.

    Returns:
        Its name where it has one, the type of a module, else how it prints.
    """
    if isinstance(taps, nn.Module):
        return f"<a module of type {type(taps).__name__}>"
    return str(getattr(taps, "__name__", repr(taps)))


def automatic_cuts(
    recording: Recording,
    samples: tuple[int, ...],
    depth: int,
    preferred: Collection[str] = (),
) -> list[Candidate]:
    """For each run of weight layers the last valid cut before the next weight layer.

    Args:
        recording: of one uncut pass.
        samples: the leading dimensions that a tap must have.
        depth: join this many blocks into one, counted from the input.
        preferred: names of modules; where a run has a valid cut at the output of one, the last such
            cut is taken in place of the last of all.

    Returns:
        The cuts, in the order in which a forward pass meets them.
    """
    graph = recording.graph
    valid = _valid_cuts(recording, samples)
    layers = [nodes for _, nodes in recording.calls.weight_calls]
    marked = [*graph.order[:1], graph.output, *valid, *(node for nodes in layers for node in nodes)]
    masks = graph.ancestor_masks(marked)
    layer_bits = [(node, *masks[node]) for nodes in layers for node in nodes if node in masks]

    def holds_layer(node: Node) -> bool:
        return any(masks[node][1] & bit for _, bit, _ in layer_bits)

    def layer_follows(node: Node) -> bool:
        end = masks[graph.nearest_dominator(node, valid)][1]
        return any(
            layer is not node and behind & masks[node][0] and end & bit
            for layer, bit, behind in layer_bits
        )

    chosen = [node for node in valid if holds_layer(node) and layer_follows(node)]
    if preferred:
        ends = set(chosen)
        earlier: dict[Node, Node] = {}
        for node, candidate in valid.items():
            if candidate.kind == "output" and candidate.module in preferred:
                end = node
                while end not in ends and end is not graph.order[0]:
                    end = graph.nearest_dominator(end, valid)
                earlier[end] = node
        chosen = [earlier.get(node, node) for node in chosen]
    if depth == 1:
        return [valid[node] for node in chosen]
    level: dict[Node, int] = {}
    for node in chosen:
        level[node] = 1 + max(
            (level[other] for other in level if masks[node][1] & masks[other][0]), default=0
        )
    return [valid[node] for node in chosen if level[node] % depth == 0]


def _valid_cuts(recording: Recording, samples: tuple[int, ...]) -> dict[Node, Candidate]:
    """Each tensor that may be cut, where it is first met, in the order of the forward pass."""
    graph = recording.graph
    valid: dict[Node, Candidate] = {}
    for candidate in recording.calls.candidates:
        if not _holds_samples(candidate, samples):
            continue
        if not graph.valid_cut(candidate.node, candidate.output_nr):
            continue
        if candidate.kind == "input" and not all(
            node._sequence_nr() in candidate.window for node in graph.consumers(candidate.node)
        ):
            continue  # something else uses it: cut where it is made, or not at all
        valid.setdefault(candidate.node, candidate)
    return valid


def explicit_cuts(
    recording: Recording, samples: tuple[int, ...], wanted: Collection[str], *, by_name: bool
) -> tuple[list[Candidate], list[str]]:
    """The outputs of the wanted modules, each checked.

    Args:
        recording: of one uncut pass.
        samples: the leading dimensions that a tap must have.
        wanted: names of modules.
        by_name: whether the user named them one by one; then each must be there.

    Returns:
        The cuts, in the order in which a forward pass meets them, and the problems found.
    """
    calls = recording.calls
    cuts: dict[Node, Candidate] = {}
    problems = []
    for name in wanted if by_name else ():
        if name not in calls.returned:
            problems.append(
                f"tap '{name}' did not fire: the forward pass never calls that module. Name one"
                " that it calls."
            )
        elif name in calls.without_tensor:
            problems.append(
                f"tap '{name}' returns no single tensor: there is nothing to cut. Name a module"
                " that returns one."
            )
    for candidate in calls.candidates:  # none where all parameters before it are frozen
        if candidate.kind == "input" or candidate.module not in wanted:
            continue
        problem = _explicit_problem(candidate, recording, samples)
        if problem is None:
            cuts.setdefault(candidate.node, candidate)
        elif by_name or candidate.node is not recording.graph.output:
            problems.append(problem)
    return list(cuts.values()), problems


def cuts_with_heads(
    recording: Recording, samples: tuple[int, ...], heads: Collection[str]
) -> tuple[dict[Node, Candidate], list[str]]:
    """The cuts at which local losses hang, by the names that their taps were found under.

    Args:
        recording: of one uncut pass.
        samples: the leading dimensions that a tap must have.
        heads: the names.

    Returns:
        The cuts by their nodes (none where all parameters before one are frozen), and the problems
        found.
    """
    cuts = {}
    problems = []
    for candidate in recording.calls.candidates:
        if candidate.name in heads:
            problem = _explicit_problem(candidate, recording, samples)
            if problem is None:
                cuts[candidate.node] = candidate
            else:
                problems.append(problem)
    ran = recording.calls.returned.keys()
    problems += [
        f"tap '{name}', at which a local head hangs, did not fire: this pass never calls that"
        " module. Make the heads with an example that every pass is like."
        for name in heads
        if name.partition("#")[0].removesuffix(":input") not in ran
    ]
    return cuts, problems


def _holds_samples(candidate: Candidate, samples: tuple[int, ...]) -> bool:
    return candidate.shape[: len(samples)] == samples and len(candidate.shape) > len(samples)


def _explicit_problem(
    candidate: Candidate, recording: Recording, samples: tuple[int, ...]
) -> str | None:
    graph = recording.graph
    tap = f"tap '{candidate.module}'"
    if candidate.node is graph.output:
        return (
            f"{tap} is the model's output: its error is exact, so there is nothing to feed back."
            " Leave it out."
        )
    if candidate.node not in graph.place:
        return f"{tap} does not lead to the output, so no error belongs to it. Leave it out."
    if not graph.valid_cut(candidate.node, candidate.output_nr):
        around = graph.bypass(candidate.node)
        source = _name_of(around, recording)
        return (
            f"a path bypasses {tap}: {source} reaches the output around it, and would get only part"
            " of its gradient. Cut where the paths have joined again, for example after the whole"
            " residual block, or use taps='auto'."
        )
    if not _holds_samples(candidate, samples):
        return (
            f"{tap} has shape {candidate.shape}, but its leading dimensions must be the samples"
            f" {samples} of the output, followed by at least one of units. Cut where the samples"
            " come first, or set sample_dims."
        )
    return None


def _name_of(node: Node | None, recording: Recording) -> str:
    """The module that made ``node`` or, failing that, something behind it."""
    made_by = {
        candidate.node: candidate.module
        for candidate in recording.calls.candidates
        if candidate.kind == "output"
    }
    waiting = [] if node is None else [node]
    for current in waiting:  # grows while it is read: breadth first
        if current in made_by:
            return f"the output of '{made_by[current]}'"
        waiting += [
            source for source, _ in current.next_functions if source in recording.graph.place
        ]
    return "an earlier tensor"

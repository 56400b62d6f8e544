"""One traced forward pass that tells which parameters are weights of a layer, and how they are met.

It refuses models in which some weight's own transpose would go on carrying the error.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils.parametrize import ParametrizationList

from fdfa.engine.graph import AutogradGraph
from fdfa.engine.intercept import Interception, uncached_autocast, untouched_state
from fdfa.engine.model_weights import matrices, read_aside
from fdfa.engine.outputs import map_tensors, output_tensor
from fdfa.engine.saved_tensors import checkpoint_region
from fdfa.engine.weight_trace import Product, WeightTrace
from fdfa.errors import UnsupportedModelError

__all__ = ["WeightUses", "find_weight_uses"]


@dataclasses.dataclass(frozen=True)
class WeightUses:
    """What a forward pass does with a model's matrices.

    Attributes:
        products: each weight that carries an error backwards, by dotted name, with the first
            operator that multiplied it with the signal.
        watch: whether a copy of a frozen weight is used, which leaves no trace in the graph.
    """

    products: dict[str, Product]
    watch: bool


def find_weight_uses(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    output: str | int | None,
) -> WeightUses:
    """Run the model once and see which parameters its operators multiply with the signal.

    Its state keeps no trace of that.

    Args:
        model: any module.
        args: its positional arguments.
        kwargs: its keyword arguments.
        output: names the output within what the model returns.

    Returns:
        The weights.

    Raises:
        UnsupportedModelError: with every weight whose transpose would go on carrying the error, by
            name.
    """
    trace = WeightTrace(matrices(model))
    map_tensors((args, kwargs), trace.note_input)
    outside = checkpoint_region()
    regions: list[str] = []
    watched = {
        module: _region_watch(name, module, outside, regions)
        for name, module in model.named_modules()
        if not isinstance(module, ParametrizationList)
    }
    hooks = saved_tensors_hooks(trace.pack, _no_backward)
    aside = read_aside(model, pause=trace.paused, found=trace.note_weight)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(untouched_state(model))
            stack.enter_context(hooks)
            stack.enter_context(Interception(watched))
            stack.enter_context(aside)
            stack.enter_context(uncached_autocast())
            stack.enter_context(trace)
            returned = model(*args, **kwargs)
        y = output_tensor(returned, name=output, sample_dims=1)
        if y.grad_fn is None:
            raise UnsupportedModelError(
                "the model's output depends on no trainable parameter: there is nothing to learn."
                " Check that parameters have requires_grad=True and that the forward pass does not"
                " run under torch.no_grad() or detach()."
            )
        problems = [*_checkpointed(y, regions), *trace.problems(), *_custom(y, trace)]
    finally:
        trace.forget()
    if problems:
        raise UnsupportedModelError(dict.fromkeys(problems))
    return WeightUses(trace.products(), trace.watch)


def _region_watch(name: str, module: nn.Module, outside: int | None, found: list[str]) -> Any:
    forward = module.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        # the trace's own hooks lie on top unless a checkpoint inside the model put its there
        region = checkpoint_region()
        if region is not None and region != outside:
            found.append(name)
        return forward(*args, **kwargs)

    return watched


def _checkpointed(y: Tensor, regions: list[str]) -> list[str]:
    inside = f"module '{regions[0]}' runs" if regions else None
    if inside is None and any(
        node.name() == "CheckpointFunctionBackward" for node in AutogradGraph(y).order
    ):
        inside = "a part of the model runs"
    if inside is None:
        return []
    return [
        f"{inside} inside torch.utils.checkpoint: what is recomputed for backward would use the"
        " weights' own transpose. Checkpoint the whole, checkpoint(learner, x,"
        " use_reentrant=False)."
    ]


def _custom(y: Tensor, trace: WeightTrace) -> list[str]:
    """Weights that a function of the user's keeps for backward by itself."""
    problems = []
    graph = AutogradGraph(y)
    for place, leaf in graph.leaves:
        node = graph.order[place]
        name = trace.name_of(leaf)
        others = [source for source, _ in node.next_functions if source is not None]
        carries = any(not hasattr(source, "variable") for source in others)
        own = isinstance(node, torch.autograd.function.BackwardCFunction)
        if own and carries and name is not None and not trace.kept_by_function(name):
            problems.append(
                f"weight '{name}' goes into {node.name()}, a function that does not keep it by"
                " ctx.save_for_backward: its transpose would carry the error. Save it there."
            )
    return problems


def _no_backward(saved: None) -> Tensor:
    raise RuntimeError("a trace was differentiated; this is a fault of fdfa, please report it")

"""What a learner would do to a network, before any training: taps, blocks, costs, obstacles."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.at_taps import AtTaps
from fdfa.engine.estimator import Estimator
from fdfa.engine.intercept import untouched_state
from fdfa.engine.local import LocalEstimator
from fdfa.engine.outputs import output_tensor
from fdfa.engine.probes import Probe
from fdfa.engine.relay_routes import relay_routes
from fdfa.engine.tapped import TappedEstimator
from fdfa.engine.taps import Tap, TapPlan
from fdfa.errors import ProbeError
from fdfa.methods import Backpropagation
from fdfa.studies.explanation import BlockFacts, Explanation, Memory, TapFacts
from fdfa.studies.products import LayerCall, LayerProducts, Products, recorded_calls
from fdfa.training import start_training

__all__ = ["explain"]


def explain(learner: Estimator, *example_inputs: Any) -> Explanation:
    """Say what a learner would do to its network for inputs like these; nothing is trained.

    Everything runs on copies; the learner stays as it is.

    Args:
        learner: an estimator of any method.
        *example_inputs: a batch, of the size that training will use.

    Returns:
        Taps, blocks, costs, and what a probe cannot pass.

    Raises:
        UnsupportedModelError: if the network cannot be cut as asked, with all problems found.

    Example:
        >>> import fdfa
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> found = explain(fdfa.DFA(model), torch.ones(16, 4))
        >>> found.taps[0].name, found.taps[0].feedback_shape, found.obstacles
        ('1', (2, 8), ())
    """
    twin = copy.deepcopy(learner)
    start_training(twin)
    with torch.enable_grad(), untouched_state(twin):
        uncut = _run(twin.model, example_inputs)
        if isinstance(twin, TappedEstimator):
            return _explain_cut(twin, uncut, example_inputs)
        output = output_tensor(uncut.returned, name=twin.output, sample_dims=1)
        return _explain_uncut(twin, uncut, tuple(output.shape))


@dataclasses.dataclass(frozen=True)
class _Pass:
    """One forward pass: the weight layers called, what came back, bytes that autograd keeps."""

    calls: list[LayerCall]
    returned: Any
    kept: int


def _run(
    model: nn.Module,
    inputs: tuple[Any, ...],
    cut: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> _Pass:
    """Run the model within what ``cut`` makes."""
    weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor  # it stays alive with the graph, so that no address is used twice

    with (
        recorded_calls(model) as calls,
        cut(),  # outside the recording: a layer is to be seen with the input that the cut gives it
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        returned = model(*inputs)
    return _Pass(calls, returned, sum(kept.values()))


def _explain_uncut(learner: Estimator, uncut: _Pass, output_shape: tuple[int, ...]) -> Explanation:
    """One block from the input to the output."""
    layers = _layers(uncut.calls, tangents={})
    block = BlockFacts(
        ends_at="output",
        weight_layers=tuple(layer.name for layer in layers),
        parameters=sum(p.numel() for p in learner.parameters() if p.requires_grad),
    )
    return Explanation(
        method=learner.method,
        samples=output_shape[0],
        output_shape=output_shape,
        taps=(),
        blocks=(block,),
        products=Products(layers, 0, 0, 0.0, _backpropagation(uncut)),
        memory=_memory(learner, activations=uncut.kept, feedback=0, probe=0),
        probe_every=None,
        obstacles=(),
        counted=isinstance(learner, Backpropagation),
    )


def _explain_cut(learner: TappedEstimator, uncut: _Pass, inputs: tuple[Any, ...]) -> Explanation:
    plan = learner.plan(*inputs)
    taps = tuple(_tap_facts(learner, tap) for tap in plan.taps)
    perturbed = learner.mapped_taps(plan)
    probe = learner.probe if perturbed else None
    cut = _run_at_taps(learner.model, plan, inputs, lambda tap, h: h.detach())
    calls = _with_relays(learner, plan, inputs, cut.calls) if learner.relay else cut.calls
    obstacles = _try_probe(learner, probe, inputs)
    blocks = _block_facts(learner, plan)
    memory = _memory(
        learner,
        activations=cut.kept,
        feedback=sum(tap.feedback_bytes for tap in taps),
        probe=_probe_bytes(probe, plan, perturbed) * learner.probes_at_once,
    )
    tangents = _tangents(learner, probe, plan, inputs)
    samples = math.prod(plan.output_shape[: learner.sample_dims])
    through_maps = samples * sum(math.prod(tap.feedback_shape) for tap in taps)
    # forward, and back to the weights and to the activation (or forth with a tangent)
    through_heads = 3 * samples * sum(p.numel() for p in _matrices(learner))
    share = 1.0 if learner.keeps_activations else 0.0 if probe is None else 1 / probe.every
    # innovation and an unbiased credit also ask the maps what they foresee: p B^T
    foreseen = (getattr(learner, "feedback_update", None) == "innovation") + learner.probed_credit
    return Explanation(
        method=learner.method,
        samples=samples,
        output_shape=plan.output_shape,
        taps=taps,
        blocks=blocks,
        products=Products(
            layers=_layers(calls, tangents),
            credit=through_maps + through_heads,
            teaching=through_maps * (1 + foreseen) if share else 0,
            probing_share=share,
            backpropagation=_backpropagation(uncut),
        ),
        memory=memory,
        probe_every=None if probe is None else probe.every,
        obstacles=obstacles,
    )


def _matrices(learner: TappedEstimator) -> list[nn.Parameter]:
    """Of the local heads, where there are any."""
    heads = learner.heads if isinstance(learner, LocalEstimator) else nn.Module()
    return [parameter for parameter in heads.parameters() if parameter.dim() > 1]


def _tap_facts(learner: TappedEstimator, tap: Tap) -> TapFacts:
    weight = learner.feedback[tap].weight if tap in learner.feedback else None
    units = math.prod(tap.shape[learner.sample_dims :])
    outputs, entries = (0, units) if weight is None else weight.shape
    return TapFacts(
        name=tap.name,
        module_type=type(learner.model.get_submodule(tap.module)).__name__,
        shape=tap.shape,
        units=units,
        feedback_shape=(outputs, entries),
        feedback_bytes=0 if weight is None else weight.nbytes,
    )


def _block_facts(learner: Estimator, plan: TapPlan) -> tuple[BlockFacts, ...]:
    sizes = {name: p.numel() for name, p in learner.model.named_parameters() if p.requires_grad}
    ends = [*(tap.name for tap in plan.taps), "output"]
    return tuple(
        BlockFacts(end, layers, sum(sizes.get(name, 0) for name in parameters))
        for end, layers, parameters in zip(ends, plan.weight_layers, plan.blocks, strict=True)
    )


def _run_at_taps(
    model: nn.Module,
    plan: TapPlan,
    inputs: tuple[Any, ...],
    change: Callable[[Tap, Tensor], Tensor],
) -> _Pass:
    """Run the model with ``change(tap, h)`` in the place of every tapped tensor h."""
    return _run(model, inputs, lambda: AtTaps(model, plan, change))


def _with_relays(
    learner: TappedEstimator, plan: TapPlan, inputs: tuple[Any, ...], calls: Sequence[LayerCall]
) -> list[LayerCall]:
    """The calls of a cut pass, with what is pulled back through each on its way to earlier taps."""
    routes, found = relay_routes(plan, learner.relay), list(calls)
    steps = [
        step
        for end, way in routes.relayed.items()
        for step in zip(way, (*way[1:], end), strict=True)
    ]
    for number in sorted(routes.entries):
        opened = _run_from(learner.model, plan, inputs, [plan.taps[number]])
        block = plan.onward[number]
        exact = number in routes.exact.get(block, ())
        for place, (call, entry) in enumerate(zip(found, opened.calls, strict=True)):
            if entry.input_needs_gradient:  # it lies behind this tap, in the block entered there
                found[place] = dataclasses.replace(
                    call,
                    input_needs_gradient=call.input_needs_gradient or exact,
                    relayed=call.relayed + steps.count((block, number)),
                )
    return found


def _run_from(
    model: nn.Module, plan: TapPlan, inputs: tuple[Any, ...], entered: Collection[Tap]
) -> _Pass:
    """Run the model with frozen weights, cut at the taps, and a gradient wanted at some of these.

    Returns:
        The pass: in it a tensor needs a gradient exactly where it depends on one of them.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    # The copy is for what works in place, which torch allows on no leaf.
    found = _run_at_taps(
        model, plan, inputs, lambda tap, h: h.detach().requires_grad_(tap in entered).clone()
    )
    for parameter in trainable:
        parameter.requires_grad_(True)
    return found


def _try_probe(
    learner: TappedEstimator, probe: Probe | None, inputs: tuple[Any, ...]
) -> tuple[str, ...]:
    """What stops a probe, if anything does."""
    if probe is None:
        return ()
    learner.probe = dataclasses.replace(probe, every=1)
    try:
        learner(*inputs)
    except ProbeError as error:
        return (str(error),)
    return ()


def _tangents(
    learner: TappedEstimator, probe: Probe | None, plan: TapPlan, inputs: tuple[Any, ...]
) -> dict[str, int]:
    """Multiply-adds of a probe by layer."""
    if probe is None:
        return {}
    perturbed = learner.mapped_taps(plan)
    started = _run_from(learner.model, plan, inputs, [tap for tap in perturbed if not tap.has_head])
    tangents: dict[str, int] = {}
    for call in started.calls:
        passes = learner.further_passes
        if probe.derivative == "forward-ad" and call.input_needs_gradient:
            passes += learner.probes_at_once
        tangents[call.name] = tangents.get(call.name, 0) + passes * call.forward
    return tangents


def _layers(calls: Sequence[LayerCall], tangents: dict[str, int]) -> tuple[LayerProducts, ...]:
    """The calls of each layer together."""
    names = dict.fromkeys(call.name for call in calls)
    grouped = {name: [call for call in calls if call.name == name] for name in names}
    return tuple(
        LayerProducts(
            name=name,
            forward=sum(call.forward for call in group),
            weight_gradient=sum(call.weight_gradient for call in group),
            input_gradient=sum(call.input_gradient for call in group),
            tangent=tangents.get(name, 0),
        )
        for name, group in grouped.items()
    )


def _backpropagation(uncut: _Pass) -> int:
    return sum(c.forward + c.weight_gradient + c.input_gradient for c in uncut.calls)


def _memory(learner: Estimator, *, activations: int, feedback: int, probe: int) -> Memory:
    model = learner.model
    return Memory(
        parameters=sum(t.nbytes for t in (*model.parameters(), *model.buffers())),
        gradients=sum(p.nbytes for p in model.parameters() if p.requires_grad),
        activations=activations,
        feedback=feedback,
        probe=probe,
    )


def _probe_bytes(probe: Probe | None, plan: TapPlan, perturbed: Sequence[Tap]) -> int:
    """Perturbations, and two tangents of the largest tap that one travels through."""
    if probe is None:
        return 0
    receiving = plan.receiving(perturbed)
    sizes = {tap.name: 4 * math.prod(tap.shape) for tap in plan.taps}
    drawn = sum(sizes[tap.name] for tap in perturbed)
    drawn //= 32 if probe.noise == "rademacher" else 1
    return drawn + 2 * max(sizes[name] for name in (*receiving, *(tap.name for tap in perturbed)))

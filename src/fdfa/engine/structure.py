"""What the structure of a forward pass depends on, and structures that cannot be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from torch import Tensor, nn

from fdfa.engine.graph import leaves_behind
from fdfa.engine.taps import TapPlan, parameter_names
from fdfa.errors import UnsupportedModelError

__all__ = ["check_cut", "check_supported", "fingerprint", "refuse_compiled", "signature"]


def refuse_compiled(model: nn.Module) -> None:
    """Refuse a model with compiled modules, before anything calls them.

    Args:
        model: the user's model.

    Raises:
        UnsupportedModelError: naming all of them.
    """
    problems = [
        f"module '{name}' is compiled: what it was traced with is not checked again, so taps would"
        " not fire and tangents would be dropped. Pass the plain module and call learner.compile()."
        for name, module in model.named_modules()
        if _is_compiled(module)
    ]
    if problems:
        raise UnsupportedModelError(problems)


def check_cut(model: nn.Module, plan: TapPlan, output: Tensor, taps: Sequence[Tensor]) -> None:
    """Check, on a pass that was cut, that every block reaches just the parameters that it should.

    Args:
        model: the user's model.
        plan: its taps.
        output: of the pass.
        taps: of the pass.

    Raises:
        UnsupportedModelError: if something still uses a tapped tensor beside the tap.
    """
    for end, planned in zip((*taps, output), plan.blocks, strict=True):
        leaves = leaves_behind(end)
        found = parameter_names(model, leaves)
        if found != planned:
            surplus = {*found, *planned} - ({*found} & {*planned})
            leaks = [
                f"'{tap.name}'"
                for tap, block in zip(plan.taps, plan.blocks, strict=False)
                if surplus & {*block}
            ]
            raise UnsupportedModelError(
                f"something uses the tensor of tap {' or '.join(leaks)} without passing the tap"
                " (one that a module keeps, or consumes beside its input?): its block would get"
                " only part of its gradient. Name other taps with taps=[...]."
            )


def check_supported(model: nn.Module, plan: TapPlan, *, by_forward_ad: bool) -> None:
    """Refuse what would train wrongly without a word.

    Args:
        model: the user's model.
        plan: its taps.
        by_forward_ad: whether forward-mode AD will run through it.

    Raises:
        UnsupportedModelError: with all problems found.
    """
    problems = []
    regions = dict(plan.checkpoints)
    if regions and by_forward_ad:
        problems.append(
            f"module '{next(iter(regions))}' runs inside torch.utils.checkpoint: what is"
            " recomputed for backward has no tangents, so it would not match. Checkpoint the"
            " whole, checkpoint(learner, x, use_reentrant=False), or pass"
            " probe='finite-difference'."
        )
    problems += [
        f"tap '{tap.name}' lies inside a torch.utils.checkpoint region that goes on behind it:"
        " what is recomputed for backward would not be cut. Tap the region's last module, or"
        " checkpoint the whole: checkpoint(learner, x, use_reentrant=False)."
        for tap in plan.taps
        if _goes_on(plan, tap.module, regions.get(tap.module))
    ]
    if problems:
        raise UnsupportedModelError(problems)


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def _goes_on(plan: TapPlan, module: str, region: int | None) -> bool:
    """Whether a later module still runs in the checkpoint region of this one."""
    if region is None:
        return False
    order = [name for name, _ in plan.checkpoints]
    inside = f"{module}."
    return any(
        number == region and not name.startswith(inside)
        for name, number in plan.checkpoints[order.index(module) + 1 :]
    )


def fingerprint(model: nn.Module) -> tuple[Any, ...]:
    """What of a model the structure of a forward pass may depend on; asked at every step.

    Args:
        model: any module.

    Returns:
        Which modules there are, whether one has a forward of its own or is compiled, and which
        parameters are trainable; hashable.
    """
    found: list[Any] = []
    modules = [model]
    for module in modules:  # grows while it is read
        own = module.__dict__
        found.append(id(module))
        if "forward" in own or "_compiled_call_impl" in own:
            found += (own.get("forward"), own.get("_compiled_call_impl") is not None)
        for parameter in own["_parameters"].values():
            found.append(parameter is not None and parameter.requires_grad)
        if own["_modules"]:
            modules += [child for child in own["_modules"].values() if child is not None]
    return tuple(found)


def signature(value: Any, within: Set[int] = frozenset()) -> Any:
    """What of the arguments the structure of a forward pass may depend on.

    Args:
        value: arguments, nested at will.
        within: ids of the objects that this one was found in.

    Returns:
        Something hashable: shapes, types, flags; not the numbers in tensors.
    """
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device, value.requires_grad
    if isinstance(value, Mapping):
        return tuple((key, signature(entry, within)) for key, entry in value.items())
    if isinstance(value, (tuple, list)):
        return tuple(signature(entry, within) for entry in value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if id(value) in within or callable(value):
        return type(value)
    within = {*within, id(value)}
    names = [*getattr(value, "__dict__", ()), *getattr(type(value), "__slots__", ())]
    entries = ((name, signature(getattr(value, name, None), within)) for name in names)
    return type(value), *entries

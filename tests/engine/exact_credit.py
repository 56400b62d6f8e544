"""What any cut must satisfy, checked against plain autograd on the uncut model.

With the exact credit at every tap (dL/dh, caught on the uncut graph) the local derivatives of the
blocks must add up to the plain gradient: a path around a tap counts twice, a lost one not at all.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

import fdfa
from fdfa.engine.cut import CutModel, CutPass
from fdfa.engine.taps import Tap, TapPlan, plan_taps
from tests.engine.tap_case import TapCase

__all__ = [
    "assert_blocks_are_isolated",
    "assert_derivative_is_dual_to_the_credits",
    "assert_exact_credits_give_exact_gradients",
]


def _pick(case: TapCase, returned: Any) -> Tensor:
    name = case.options.get("output")
    if name is None:
        return returned
    if isinstance(returned, (dict, tuple)) and not hasattr(returned, "_fields"):
        return returned[name]
    return getattr(returned, name)


def _loss(y: Tensor) -> Tensor:
    """Smooth, every component weighted differently, so that no two gradients can be confused."""
    weights = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).view_as(y)
    return (weights * y.sin()).sum()


def _constant(credit: Tensor, e: Tensor) -> Tensor:
    """What a feedback map would answer that knows the exact credit."""
    return credit


def _plan(case: TapCase, model: nn.Module) -> TapPlan:
    args, kwargs = case.inputs()
    return plan_taps(model, args, kwargs, **case.options)


def _cut(case: TapCase, model: nn.Module, plan: TapPlan, noises: Any = None) -> CutPass:
    cut = CutModel(
        model, plan, find_output=lambda found: _pick(case, found), probing=noises is not None
    )
    args, kwargs = case.inputs()
    torch.default_generator.manual_seed(13)  # one dropout mask for all passes
    return cut.run(args, kwargs, noises or ())


def _uncut(case: TapCase, plan: TapPlan) -> tuple[nn.Module, Tensor, list[Tensor]]:
    """An equal model after plain backward, its output, and the gradient at each tapped tensor."""
    model = case.model()
    caught: dict[str, Tensor] = {}
    wanted: dict[str, dict[tuple[str, int], Tap]] = {}
    for tap in plan.taps:
        wanted.setdefault(tap.module, {})[tap.kind, tap.call] = tap
    calls: dict[str, int] = {}

    def watch(name: str, kind: str, tensor: Any) -> None:
        tap = wanted[name].get((kind, calls[name]))
        if tap is not None:
            number = tensor.output_nr
            # on the node, since the tensor itself may be overwritten later in the pass
            tensor.grad_fn.register_prehook(
                lambda grads: caught.__setitem__(tap.name, grads[number])
            )

    def before(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[name] = calls.get(name, -1) + 1
        for x in (*args, *kwargs.values()):
            watch(name, "input", x)

    for name in wanted:
        module = model.get_submodule(name)
        module.register_forward_pre_hook(
            lambda m, args, kwargs, name=name: before(name, args, kwargs), with_kwargs=True
        )
        module.register_forward_hook(
            lambda m, args, returned, name=name: watch(name, "output", returned),
            prepend=True,  # a tap is what the module returns, before hooks of the user's
        )
    args, kwargs = case.inputs()
    torch.default_generator.manual_seed(13)
    y = _pick(case, model(*args, **kwargs))
    _loss(y).backward()
    return model, y.detach(), [caught[tap.name] for tap in plan.taps]


def assert_exact_credits_give_exact_gradients(case: TapCase) -> None:
    """All parameter gradients equal plain autograd's."""
    learner = fdfa.DFA(case.model(), **case.options)
    model = learner.model
    args, kwargs = case.inputs()
    plan = learner.plan(*args, **kwargs)
    reference, y, credits = _uncut(case, plan)
    for tap, credit in zip(plan.taps, credits, strict=True):
        feedback = learner.feedback[tap]
        samples = math.prod(tap.shape[: case.options.get("sample_dims", 1)])
        feedback.forward = functools.partial(_constant, credit.reshape(samples, -1))
    torch.default_generator.manual_seed(13)
    found = _pick(case, learner(*args, **kwargs))
    torch.testing.assert_close(found.detach(), y, rtol=0, atol=0)
    _loss(found).backward()
    expected = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    # absolute: entries that are zero but for rounding, such as a bias before batch norm
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def assert_blocks_are_isolated(case: TapCase) -> None:
    """From each tap and from the output autograd reaches that block's parameters, no others."""
    model = case.model()
    plan = _plan(case, model)
    run = _cut(case, model, plan)
    for end, block in zip([*run.taps, run.output], plan.blocks, strict=True):
        model.zero_grad()
        if end.requires_grad:  # two taps may have nothing but activations between them
            end.backward(torch.ones_like(end))
        reached = {name for name, p in model.named_parameters() if p.grad is not None}
        assert reached == set(block)


def assert_derivative_is_dual_to_the_credits(case: TapCase) -> None:
    """<e, d> = sum_l <dL/dh_l, p_l>: d and the exact credits are two views of one Jacobian."""
    model = case.model()
    plan = _plan(case, model)
    _, y, credits = _uncut(case, plan)
    torch.default_generator.manual_seed(17)
    noises = [torch.randn_like(credit) for credit in credits]
    run = _cut(case, model, plan, noises)
    torch.testing.assert_close(run.output.detach(), y, rtol=0, atol=0)
    y.requires_grad_()
    (e,) = torch.autograd.grad(_loss(y), y)
    forward = (e * run.derivative).sum()
    backward = sum((g * p).sum() for g, p in zip(credits, noises, strict=True))
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=1e-12)

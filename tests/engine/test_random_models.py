"""No gradient is lost or counted twice, whatever the model.

Random programs of layers, skips, shared and pass-through modules are cut automatically, by depth,
and at any module by name.
"""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fdfa.engine.taps import plan_taps
from fdfa.errors import UnsupportedModelError
from tests.engine.exact_credit import (
    assert_blocks_are_isolated,
    assert_derivative_is_dual_to_the_credits,
    assert_exact_credits_give_exact_gradients,
)
from tests.engine.naive_graph import is_valid_cut
from tests.engine.random_programs import PROGRAMS, case_of
from tests.engine.tap_case import TapCase

CLAIMS = [
    assert_blocks_are_isolated,
    assert_exact_credits_give_exact_gradients,
    assert_derivative_is_dual_to_the_credits,
]
claim = pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)


def problems_of(case: TapCase) -> tuple[str, ...]:
    """What planning complains of; empty where the model can be cut as asked."""
    args, kwargs = case.inputs()
    try:
        plan_taps(case.model(), args, kwargs, **case.options)
    except UnsupportedModelError as error:
        return error.problems
    return ()


@claim
@given(PROGRAMS)
@settings(max_examples=100)
def test_automatic_taps(claim, program) -> None:
    case = case_of(program)
    problems = problems_of(case)
    assert all("no tap was found" in problem for problem in problems)
    assume(not problems)
    claim(case)


@claim
@given(PROGRAMS, st.integers(2, 3))
@settings(max_examples=50)
def test_automatic_taps_of_deeper_blocks(claim, program, depth: int) -> None:
    case = case_of(program, depth=depth)
    args, kwargs = case.inputs()
    assume(plan_taps(case.model(), args, kwargs, **case.options).taps)
    claim(case)


@claim
@given(PROGRAMS, st.integers(0, 99))
@settings(max_examples=100)
def test_taps_by_name(claim, program, number: int) -> None:
    """What may be named is decided below; here, that what may be named is exact."""
    names = [name for name, _ in case_of(program).model().named_modules() if name]
    case = case_of(program, taps=[names[number % len(names)]])
    assume(not problems_of(case))
    claim(case)


@given(PROGRAMS)
@settings(max_examples=40)
def test_a_module_may_be_named_just_where_its_output_is_a_cut(program) -> None:
    case = case_of(program)
    model, (args, _) = case.model(), case.inputs()
    made: dict[str, list[Tensor]] = {}  # by modules that return one tensor, and not their input
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda m, given, y, name=name: made.setdefault(name, []).append(
                y if isinstance(y, Tensor) and all(y is not x for x in given) else None
            )
        )
    root = model(*args).grad_fn
    for name, outputs in made.items():
        if not name or any(y is None or y.grad_fn is None for y in outputs):
            continue
        is_cut = all(
            len(y) == len(args[0]) and is_valid_cut(root, y.grad_fn, y.output_nr) for y in outputs
        )
        assert bool(problems_of(case_of(program, taps=[name]))) is not is_cut, name

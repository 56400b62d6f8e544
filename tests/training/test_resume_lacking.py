"""What a checkpoint lacks is named, every single entry of it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import pytest

from fdfa.errors import CheckpointError
from fdfa.training import Checkpoint, restore
from tests.training.full_checkpoints import KINDS, fresh, full_checkpoint


def test_all_of_it_is_there() -> None:
    """What the tests below take away, one by one: if an entry is new, they have it already."""
    checkpoint = full_checkpoint("fdfa")
    groups = {name.split(".")[0] for name in checkpoint.state}
    assert groups == {"learner", "optimizer", "generator", "process0", "best"}
    assert checkpoint.values["scaler"]
    assert checkpoint.values["in_epoch"]
    assert checkpoint.values["steps_in_epoch"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_each_tensor_that_is_missing_is_named(kind: str, subtests: pytest.Subtests) -> None:
    whole = full_checkpoint(kind)
    restore(fresh(kind), whole)
    for part in ("model", "state"):
        for name in getattr(whole, part):
            with subtests.test(f"{part}: {name}"):
                fields = {"model": dict(whole.model), "state": dict(whole.state)}
                del fields[part][name]
                left = Checkpoint(**fields, values=whole.values, step=whole.step)
                with pytest.raises(CheckpointError) as caught:
                    restore(fresh(kind), left)
                assert name.removeprefix("learner.") in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_of_tensors_that_is_missing_is_named(kind: str, subtests: pytest.Subtests) -> None:
    """Of one parameter, or all, what the optimiser knows; all generators; the best weights."""
    whole = full_checkpoint(kind)
    for prefix in ("optimizer.0.", "optimizer.", "generator.", "process0.", "best."):
        with subtests.test(prefix):
            state = {n: value for n, value in whole.state.items() if not n.startswith(prefix)}
            assert len(state) < len(whole.state)
            with pytest.raises(CheckpointError, match=prefix.split(".")[0]):
                restore(fresh(kind), Checkpoint(whole.model, state, whole.values, whole.step))


def paths(value: Any, start: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The way to every entry of nested dicts and lists."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in entries:
        # What MetricsLog and others keep is theirs to check, and lists are whole or not there.
        if isinstance(value, dict):
            yield (*start, name)
        if isinstance(inner, (dict, list)) and name not in ("state", "betas"):
            yield from paths(inner, (*start, name))


@pytest.mark.parametrize("kind", ["plain", "fdfa"])
def test_each_value_that_is_missing_is_named(kind: str, subtests: pytest.Subtests) -> None:
    whole = full_checkpoint(kind)
    ways = list(paths(whole.values))
    assert len(ways) > 30
    for way in ways:
        with subtests.test(".".join(map(str, way))):
            values = copy.deepcopy(whole.values)
            place = functools.reduce(lambda inner, name: inner[name], way[:-1], values)
            del place[way[-1]]
            with pytest.raises(CheckpointError, match=rf"\b{way[-1]}\b"):
                restore(fresh(kind), Checkpoint(whole.model, whole.state, values, whole.step))

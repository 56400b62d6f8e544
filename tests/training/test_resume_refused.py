"""What a resume lacks is named, every single entry of it; and what does not belong is refused."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

import fdfa
from fdfa.errors import CheckpointError
from fdfa.training import (
    Callback,
    Checkpoint,
    MetricsLog,
    Processes,
    StepResult,
    Trainer,
    TrainingSettings,
    capture,
    restore,
)
from tests.methods import PARAMETERS, adam_on_maps
from tests.training.networks import busy, dense, pictures, points

# In the middle of the second epoch, with everything that a checkpoint can hold.
FULL: dict[str, Any] = {"epochs": 3, "batch_size": 5, "patience": 3, "precision": "float16"}


class Counter(Callback):
    """Has a state; counts steps."""

    def __init__(self) -> None:
        self.count = 0

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        self.count += 1

    def state(self) -> Mapping[str, Any]:
        return {"count": self.count}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


class Keep(Callback):
    """Keeps a copy of the checkpoint of one step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.checkpoint: Checkpoint | None = None

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        if result.step == self.step:
            self.checkpoint = copy.deepcopy(capture(trainer))


def learner(kind: str, seed: int) -> nn.Module:
    if kind == "plain":
        return busy(seed)
    # The map's own optimiser: as much state as a method can have.
    options = {"feedback_update": adam_on_maps} if kind == "fdfa" else {}
    return fdfa.wrap(kind, busy(seed), seed=seed, **options)


@functools.cache
def full_checkpoint(kind: str) -> Checkpoint:
    keep = Keep(7)
    torch.manual_seed(0)
    settings = TrainingSettings(**FULL)
    trainer = Trainer(learner(kind, 1), settings, callbacks=[Counter(), keep])
    trainer.fit(pictures(), pictures(12, augmented=False))
    assert keep.checkpoint is not None
    return keep.checkpoint


def fresh(kind: str) -> Trainer:
    return Trainer(learner(kind, 2), TrainingSettings(**FULL), seed=2, callbacks=[Counter()])


KINDS = ("plain", *fdfa.methods())


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


@pytest.mark.parametrize("saved", KINDS)
@pytest.mark.parametrize("here", KINDS)
def test_another_method_is_refused(saved: str, here: str) -> None:
    known = fdfa.methods()
    classes = [known[name].estimator for name in (saved, here) if name in known]
    # One class under two presets is one method.
    if saved == here or (len(classes) == 2 and classes[0] is classes[1]):
        return
    with pytest.raises(CheckpointError, match=r"is of (method|no method)"):
        restore(fresh(here), full_checkpoint(saved))


def trained(callbacks: Sequence[Callback] = (), **options: Any) -> tuple[Trainer, Checkpoint]:
    """Some steps of plain training, in the middle of an epoch."""
    settings = TrainingSettings(**{"epochs": 2, "batch_size": 5, **options})
    keep = Keep(4)
    trainer = Trainer(dense(), settings, callbacks=[*callbacks, keep])
    trainer.fit(points())
    assert keep.checkpoint is not None
    return trainer, keep.checkpoint


SETTINGS = TrainingSettings(epochs=2, batch_size=5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p: torch.optim.AdamW(p, lr=1e-3), "optimizer 'Adam'.*'AdamW'"),
        (lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=0.1), r"weight_decay=0.*0\.1"),
        (lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.9, 0.9)), r"betas=.*0\.999"),
        (lambda p: torch.optim.Adam(p, lr=1e-3, eps=1e-7), "eps=1e-08"),
        (lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True), "amsgrad=False"),
        (lambda p: torch.optim.Adam(p, lr=1e-3, maximize=True), "maximize=False"),
        (lambda p: torch.optim.Adam([{"params": [q]} for q in p], lr=1e-3), "group"),
        (lambda p: torch.optim.Adam(list(p)[::-1], lr=1e-3), "shape"),
        (lambda p: torch.optim.Adam(list(p)[:-2], lr=1e-3), "number [45]|parameters"),
    ],
    ids=["kind", "weight_decay", "betas", "eps", "amsgrad", "maximize", "groups", "order", "fewer"],
)
def test_another_optimizer_is_refused(
    change: Callable[[Any], torch.optim.Optimizer], text: str
) -> None:
    _, checkpoint = trained()
    model = dense()
    with pytest.raises(CheckpointError, match=text):
        restore(Trainer(model, SETTINGS, optimizer=change(model.parameters())), checkpoint)


def test_more_parameters_than_were_trained_are_refused() -> None:
    model, more = dense(), nn.Linear(2, 2)
    _, checkpoint = trained()
    optimizer = torch.optim.Adam([*model.parameters(), *more.parameters()])
    with pytest.raises(CheckpointError, match="optimi"):
        restore(Trainer(model, SETTINGS, optimizer=optimizer), checkpoint)


@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"optimizer": "sgd"}], ids=str)
def test_other_settings_of_the_optimizer_are_refused(options: dict[str, Any]) -> None:
    _, checkpoint = trained()
    (name,) = options
    with pytest.raises(CheckpointError, match=name):
        restore(Trainer(dense(), TrainingSettings(epochs=2, batch_size=5, **options)), checkpoint)


OTHERS = {
    "batch_size": 6,
    "accumulate": 2,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "decay": 0.9,
    "warmup_epochs": 0.5,
    "clip_norm": 1.0,
    "precision": "bfloat16",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_settings_are_refused(name: str) -> None:
    _, checkpoint = trained()
    settings = dataclasses.replace(SETTINGS, **{name: OTHERS[name]})
    with pytest.raises(CheckpointError, match=name):
        restore(Trainer(dense(), settings), checkpoint)


def test_it_may_go_on_longer_or_wait_longer() -> None:
    _, checkpoint = trained()
    settings = dataclasses.replace(SETTINGS, epochs=9, patience=3)
    restore(Trainer(dense(), settings), checkpoint)


@pytest.mark.parametrize("count", [23, 25])
def test_other_examples_are_refused_in_mid_epoch(count: int) -> None:
    """Else some would be learned twice and others never."""
    _, checkpoint = trained()
    trainer = Trainer(dense(), SETTINGS)
    restore(trainer, checkpoint)
    with pytest.raises(CheckpointError, match=rf"epoch of 24 examples, and there are {count} now"):
        trainer.fit(points(count))


@pytest.mark.parametrize(("saved", "here"), [("float32", "float16"), ("float16", "float32")])
def test_scaled_gradients_are_not_mixed_with_others(saved: str, here: str) -> None:
    _, checkpoint = trained(precision=saved)
    settings = TrainingSettings(epochs=2, batch_size=5, precision=here)
    with pytest.raises(CheckpointError, match=r"precision|scaler|float16"):
        restore(Trainer(dense(), settings), checkpoint)


@pytest.mark.parametrize(
    "model",
    [
        lambda: nn.Sequential(*dense()[:3]),
        lambda: nn.Sequential(*dense(), nn.Linear(3, 3).double()),
        lambda: nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 6), nn.ReLU(), dense()[4]),
        lambda: nn.Sequential(*dense()[:4], nn.BatchNorm1d(6).double(), dense()[4]),
    ],
    ids=["fewer layers", "more layers", "other widths", "other layers"],
)
@pytest.mark.parametrize("method", ["plain", "dfa"])
def test_another_model_is_refused(method: str, model: Callable[[], nn.Module]) -> None:
    def wrapped(plain: nn.Module) -> nn.Module:
        return plain if method == "plain" else fdfa.wrap(method, plain, seed=1)

    keep = Keep(4)
    Trainer(wrapped(dense()), SETTINGS, callbacks=[keep]).fit(points())
    assert keep.checkpoint is not None
    with pytest.raises(CheckpointError, match="fit"):
        restore(Trainer(wrapped(model()), SETTINGS), keep.checkpoint)


def test_another_number_of_processes_is_refused() -> None:
    _, checkpoint = trained()
    trainer = Trainer(dense(), SETTINGS)
    trainer.processes = Processes(rank=0, count=2)
    with pytest.raises(CheckpointError, match=r"written by 1 process.es. and this training has 2"):
        restore(trainer, checkpoint)


def test_a_callback_that_is_missing_or_new_is_named(tmp_path: pathlib.Path) -> None:
    _, without = trained()
    _, counted = trained([Counter()])
    with pytest.raises(CheckpointError, match="lacks the state of callback Counter"):
        restore(Trainer(dense(), SETTINGS, callbacks=[Counter()]), without)
    with pytest.raises(CheckpointError, match=r"callbacks that are not there: Counter"):
        restore(Trainer(dense(), SETTINGS), counted)
    with pytest.raises(CheckpointError, match=r"lacks the state of callback MetricsLog"):
        restore(Trainer(dense(), SETTINGS, callbacks=[Counter(), MetricsLog(tmp_path)]), counted)


def test_two_callbacks_of_a_kind_get_each_its_own() -> None:
    """Also where the first of them has nothing to save yet."""

    class Named(Counter):
        def __init__(self, wanted: int) -> None:
            super().__init__()
            self.wanted = wanted

        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            self.count += result.epoch >= self.wanted

        def state(self) -> Mapping[str, Any]:
            return {"count": self.count} if self.count else {}

    _, checkpoint = trained([Named(2), Named(1)])
    callbacks = [Named(2), Named(1)]
    restore(Trainer(dense(), SETTINGS, callbacks=callbacks), checkpoint)
    assert [callback.count for callback in callbacks] == [0, 4]


def test_a_state_of_the_model_that_is_no_tensor_is_refused_when_saved() -> None:
    class Remembering(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"seen": 3}

        def set_extra_state(self, state: Any) -> None:
            raise NotImplementedError

    trainer = Trainer(nn.Sequential(Remembering(4, 3)), SETTINGS)
    with pytest.raises(CheckpointError, match=r"'0\._extra_state' as dict"):
        capture(trainer)


@pytest.mark.parametrize("case", PARAMETERS, ids=str)
def test_what_was_refused_changed_nothing(case: Any) -> None:
    """A trainer that could not be resumed may start anew, as if nothing had been tried."""
    keep = Keep(4)
    Trainer(case.wrap(dense()), SETTINGS, callbacks=[keep, Counter()]).fit(points())
    assert keep.checkpoint is not None
    found = []
    for tried in (True, False):
        trainer = Trainer(case.wrap(dense(5), seed=2), SETTINGS, seed=2)
        if tried:
            with pytest.raises(CheckpointError, match="callbacks"):
                restore(trainer, keep.checkpoint)
        torch.manual_seed(0)
        trainer.fit(points())
        found.append({k: v.clone() for k, v in trainer.learner.state_dict().items()})
    for key, value in found[1].items():
        assert torch.equal(found[0][key], value), key

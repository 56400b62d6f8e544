"""A checkpoint that does not belong to a training is refused, and nothing changed."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
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
from tests.methods import PARAMETERS, wrap_by_name
from tests.training.full_checkpoints import KINDS, Counter, Keep, fresh, full_checkpoint
from tests.training.networks import dense, points


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
        return plain if method == "plain" else wrap_by_name(method, plain, seed=1)

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

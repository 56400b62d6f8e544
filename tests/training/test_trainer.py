"""Which examples a trainer takes, and what it does with modes, ends and interruptions."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.errors import ConfigError
from fdfa.training import StepResult, Trainer, TrainingInterrupted, TrainingSettings
from tests.methods import wrap_by_name
from tests.training.cuts import assert_same_bits, everything
from tests.training.listening import Listener, Recorder, examples, network
from tests.training.networks import dense, pictures
from tests.training.raw import copies


def test_every_example_once_an_epoch_in_a_new_order() -> None:
    data, learner = examples(), Recorder()
    Trainer(learner, TrainingSettings(epochs=2, batch_size=8)).fit(data)
    assert [len(batch) for batch in learner.batches] == [8, 8, 6] * 2
    first, second = torch.cat(learner.batches[:3]), torch.cat(learner.batches[3:])
    for epoch in (first, second):
        assert torch.equal(epoch.sort(dim=0).values, data.inputs.sort(dim=0).values)
    assert not torch.equal(first, second)
    assert not torch.equal(first, data.inputs)


def test_a_single_example_at_the_end_is_left_out() -> None:
    """Batch norm would refuse it in the last step of every epoch."""
    learner = Recorder()
    Trainer(learner, TrainingSettings(epochs=1, batch_size=7)).fit(examples(22))
    assert [len(batch) for batch in learner.batches] == [7, 7, 7]


def test_batches_of_one_are_used_where_asked_for() -> None:
    learner = Recorder()
    Trainer(learner, TrainingSettings(epochs=1, batch_size=1)).fit(examples(3))
    assert len(learner.batches) == 3


def test_order_and_augmentation_do_not_touch_torchs_random_numbers() -> None:
    before = torch.get_rng_state()
    learner = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    torch.set_rng_state(before)
    Trainer(learner, TrainingSettings(epochs=1)).fit(pictures())
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_and_order_come_from_the_seed_alone() -> None:
    def inputs(seed: int, world: int) -> Tensor:
        learner = Recorder()
        torch.manual_seed(world)
        flat = nn.Sequential(nn.Flatten(), learner)
        Trainer(flat, TrainingSettings(epochs=2, batch_size=8), seed=seed).fit(pictures())
        return torch.cat(learner.batches)

    assert torch.equal(inputs(1, world=1), inputs(1, world=2))
    assert not torch.equal(inputs(1, world=1), inputs(2, world=1))


def test_too_few_examples_for_the_parts_are_refused() -> None:
    settings = TrainingSettings(batch_size=8, accumulate=4)
    with pytest.raises(ConfigError, match=r"3 training examples are too few .* with 4 part"):
        Trainer(network(), settings).fit(examples(3))
    Trainer(Recorder(), dataclasses.replace(settings, epochs=1)).fit(examples(4))


@pytest.mark.parametrize("method", ["backpropagation", "fdfa"])
def test_a_frozen_batch_norm_stays_frozen(method: str) -> None:
    model = network()
    learner = wrap_by_name(method, model)
    model[1].eval()
    Trainer(learner, TrainingSettings(epochs=2, batch_size=8)).fit(examples(), examples())
    assert learner.training
    assert [module.training for module in model] == [True, False, True, True, True]
    assert model[1].num_batches_tracked == 0


def test_a_learner_in_eval_mode_is_put_into_training_mode() -> None:
    learner = fdfa.FDFA(network()).eval()
    Trainer(learner, TrainingSettings(epochs=2, batch_size=11)).fit(examples(), examples())
    assert all(module.training for module in learner.modules())
    assert learner.steps == 4


def test_a_model_with_several_outputs() -> None:
    class Pair(nn.Module):
        def __init__(self, several: bool) -> None:
            super().__init__()
            self.body = dense(dtype=torch.float32)
            self.several = several

        def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
            return {"inputs": x, "logits": self.body(x)} if self.several else self.body(x)

    def loss_function(outputs: Tensor | dict[str, Tensor], labels: Tensor) -> Tensor:
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs
        return nn.functional.cross_entropy(logits, labels)

    settings = TrainingSettings(epochs=2, batch_size=8)
    found = []
    for several in (True, False):
        output = "logits" if several else None
        learner = fdfa.wrap("fdfa", Pair(several), output=output, seed=1)
        trainer = Trainer(learner, settings, loss_function=loss_function)
        results = trainer.fit(examples(), examples(12))
        found.append((learner, [(result.train, result.validation) for result in results]))
    assert_same_bits(found[0][0].state_dict(), found[1][0].state_dict())
    assert found[0][1] == found[1][1]


def test_callbacks_hear_everything_in_order() -> None:
    listeners = [Listener(), Listener()]
    settings = TrainingSettings(epochs=2, batch_size=11)
    results = Trainer(Recorder(), settings, callbacks=listeners).fit(examples())
    for listener in listeners:
        epoch = ["step", "step", "epoch"]
        assert listener.heard == ["started", *epoch, *epoch, "finished"]
        assert listener.epochs == list(results)
        assert [(s.epoch, s.step, s.share) for s in listener.steps] == [
            (1, 1, 0.5),
            (1, 2, 1.0),
            (2, 3, 0.5),
            (2, 4, 1.0),
        ]


def test_fit_goes_on_where_the_epochs_were_left() -> None:
    data, whole, halves = examples(), network(), network()
    settings = TrainingSettings(epochs=4, batch_size=8)
    torch.manual_seed(0)
    Trainer(whole, settings).fit(data)
    torch.manual_seed(0)
    trainer = Trainer(halves, settings)
    steps = trainer.epochs(data)
    next(steps)
    next(steps)
    steps.close()
    assert [result.epoch for result in trainer.fit(data)] == [3, 4]
    assert_same_bits(halves.state_dict(), whole.state_dict())


@pytest.mark.parametrize("step", range(1, 7))
def test_stopped_between_two_steps_and_going_on_in_the_same_process(step: int) -> None:
    class StopAt(Listener):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            super().step_finished(trainer, result)
            trainer.stop_requested = result.step == step

    whole, stopped = (fdfa.FDFA(network(), seed=1) for _ in range(2))
    settings = TrainingSettings(epochs=2, batch_size=8)
    torch.manual_seed(0)
    first = Trainer(whole, settings)
    results = first.fit(examples(), examples())
    expected = everything(first)

    torch.manual_seed(0)
    stop = StopAt()
    trainer = Trainer(stopped, settings, callbacks=[stop])
    with pytest.raises(TrainingInterrupted) as caught:
        trainer.fit(examples(), examples())
    assert caught.value.step == trainer.progress.step == step
    assert isinstance(caught.value, KeyboardInterrupt), "what catches Exception must not eat it"
    assert stop.heard[-2:] == ["step", "interrupted"]
    assert "finished" not in stop.heard
    left = trainer.fit(examples(), examples())
    assert_same_bits(everything(trainer), expected)
    for result, other in zip(left, results[-len(left) :], strict=True):
        assert dataclasses.replace(result, seconds=0) == dataclasses.replace(other, seconds=0)


def test_nothing_is_left_to_do_after_the_last_epoch() -> None:
    trainer = Trainer(network(), TrainingSettings(epochs=1, batch_size=8))
    assert not trainer.finished
    assert len(trainer.fit(examples())) == 1
    before = copies(trainer.learner)
    assert trainer.finished
    assert trainer.fit(examples()) == ()
    assert_same_bits(trainer.learner.state_dict(), before)


def test_a_copy_of_a_learner_is_trained_alike() -> None:
    learner = fdfa.FDFA(network(), seed=1)
    twin = copy.deepcopy(learner)
    for each in (learner, twin):
        torch.manual_seed(0)
        Trainer(each, TrainingSettings(epochs=2, batch_size=8), seed=3).fit(examples())
    assert_same_bits(twin.state_dict(), learner.state_dict())


def test_the_model_is_what_the_learner_holds() -> None:
    model = network()
    assert Trainer(model, TrainingSettings()).model is model
    assert Trainer(fdfa.DFA(model), TrainingSettings()).model is model


def test_seconds_are_wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=2.5)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    results = Trainer(Recorder(), TrainingSettings(epochs=2)).fit(examples(), examples())
    assert [result.seconds for result in results] == [2.5, 2.5]

"""Trainings that cannot be as asked, go astray, or cannot be gone on with."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.data import Examples
from fdfa.errors import ConfigError, NonFiniteLossError
from fdfa.training import (
    Checkpoints,
    LogTo,
    MetricsLog,
    Processes,
    TensorBoard,
    Trainer,
    TrainingSettings,
    WeightsAndBiases,
    capture,
    evaluate,
)
from tests.errors.provoke import Case, Here
from tests.training.networks import dense, points

__all__ = ["TRAINING_CASES"]


def _settings(name: str, **values: Any) -> Case:
    return Case(f"settings: {name}", ConfigError, lambda here: TrainingSettings(**values))


SETTINGS = [
    _settings("an unknown optimizer", optimizer="adm"),
    _settings("an unknown schedule", schedule="linear"),
    _settings("an unknown precision", precision="float8"),
    _settings("an unknown loss", loss="mse"),
    _settings("no epochs", epochs=0),
    _settings("half a batch", batch_size=0.5),
    _settings("patience of true", patience=True),
    _settings("no learning rate", learning_rate=0.0),
    _settings("a learning rate that no float32 holds", learning_rate=1e39),
    _settings("a decay that never ends", decay=math.inf),
    _settings("negative decay of weights", weight_decay=-0.1),
    _settings("momentum of one", momentum=1.0),
    _settings("a warm-up longer than the training", warmup_epochs=3, epochs=2),
    _settings("more parts than examples", accumulate=8, batch_size=4),
]


def _two_processes(here: Here) -> None:
    here.patch.setattr(Processes, "present", lambda: Processes(rank=0, count=2))
    Trainer(dense(), TrainingSettings(batch_size=3, accumulate=2))


def _fit(
    model: nn.Module,
    examples: Examples,
    validation: Examples | None = None,
    loss_function: Callable[[Any, Tensor], Tensor] = nn.functional.cross_entropy,
    **values: Any,
) -> None:
    settings = TrainingSettings(**{"epochs": 1, "batch_size": 24, **values})
    Trainer(model, settings, loss_function=loss_function).fit(examples, validation)


def _not_installed(package: str) -> Callable[[Here], object]:
    def run(here: Here) -> None:
        here.patch.setitem(sys.modules, package, None)
        if package == "wandb":
            WeightsAndBiases(project="p", name="n", folder=here.folder)
        TensorBoard(here.folder)

    return run


NOTHING = Examples(points().inputs[:0], points().labels[:0])
MAKING = [
    Case("a batch too small for its processes", ConfigError, _two_processes),
    Case(
        "patience without validation", ConfigError, lambda here: _fit(dense(), points(), patience=3)
    ),
    Case(
        "fewer examples than parts",
        ConfigError,
        lambda here: _fit(dense(), points(2), accumulate=3),
    ),
    Case("evaluation on nothing", ValueError, lambda here: evaluate(dense(), NOTHING)),
    Case("metrics: no steps", ConfigError, lambda here: MetricsLog(here.folder, every_steps=0)),
    Case("sink: half a step", ConfigError, lambda here: LogTo(_Silent(), every_steps=0.5)),
    Case("checkpoints: no time", ConfigError, lambda here: Checkpoints(here.folder, seconds=0)),
    Case("checkpoints: no steps", ConfigError, lambda here: Checkpoints(here.folder, steps=-1)),
    Case("tensorboard is not installed", ConfigError, _not_installed("torch.utils.tensorboard")),
    Case("wandb is not installed", ConfigError, _not_installed("wandb")),
]


class _Silent:
    """A sink that hears nothing."""

    def open(self, step: int) -> None: ...

    def log(self, values: Mapping[str, float], *, step: int) -> None: ...

    def close(self) -> None: ...


class _Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _astray(name: str, run: Callable[[], object]) -> Case:
    return Case(f"not finite: {name}", NonFiniteLossError, lambda here: run())


def _bad_parameter() -> nn.Module:
    model = dense()
    model[2].bias.data[1] = math.inf
    return model


def _rectified(*more: nn.Module) -> nn.Module:
    """A network through which inf passes."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8).double(), *more, nn.Linear(8, 3).double())


def _dropped() -> nn.Module:
    """Fails in the first pass only, as with a mask that happens once."""
    passes: list[int] = []

    def once(x: Tensor) -> Tensor:
        passes.append(1)
        return x * math.inf if len(passes) == 1 else x

    return _rectified(_Apply(once))


def _saved(spoil: Callable[[Trainer], object]) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    trainer = Trainer(model, TrainingSettings(epochs=1))
    trainer.fit(points())
    spoil(trainer)
    capture(trainer)


def _spoil_moment(trainer: Trainer) -> None:
    next(iter(trainer.optimizer.state.values()))["exp_avg_sq"].fill_(math.inf)


def _grown() -> None:
    """One step, longer than float32 goes: RMSprop's first is ten times the learning rate."""
    model, data = dense(dtype=torch.float32), points(24, torch.float32)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e38)
    settings = TrainingSettings(epochs=1, batch_size=24)
    Trainer(model, settings, optimizer=optimizer).fit(data)


INFINITE = Examples(points().inputs.index_fill(0, torch.tensor(5), math.inf), points().labels)
ASTRAY = [
    _astray("the inputs", lambda: _fit(_rectified(), INFINITE)),
    _astray("a parameter", lambda: _fit(_bad_parameter(), points())),
    _astray("a layer", lambda: _fit(_rectified(_Apply(lambda x: x / (x - x))), points())),
    _astray("a layer, once", lambda: _fit(_dropped(), points())),
    _astray("the model itself", lambda: _fit(_Whole(), points())),
    _astray(
        "the loss function",
        lambda: _fit(dense(), points(), loss_function=lambda y, labels: (y - y).sum() / 0),
    ),
    _astray(
        "a gradient",
        lambda: _fit(
            dense(), points(), loss_function=lambda y, labels: (y - y).sqrt().sum(), clip_norm=1.0
        ),
    ),
    _astray("a weight, after an epoch", _grown),
    _astray("the validation", lambda: _fit(_rectified(), points(), INFINITE)),
    _astray("a weight, when saved", lambda: _saved(lambda t: t.model[0].bias.data.fill_(math.nan))),
    _astray(
        "a buffer, when saved", lambda: _saved(lambda t: t.model[1].running_var.fill_(math.nan))
    ),
    _astray("a moment, when saved", lambda: _saved(_spoil_moment)),
]


class _Whole(nn.Module):
    """The fault is in the model's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body = dense()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) / 0


TRAINING_CASES = [*SETTINGS, *MAKING, *ASTRAY]

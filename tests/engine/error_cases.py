"""Every public error about a model and its taps: how to provoke it, and what its text must say."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import fdfa
from fdfa.errors import (
    ConfigError,
    DistributedError,
    FDFAError,
    ProbeError,
    UnsupportedModelError,
)
from tests.engine.refused_models import (
    Checkpointed,
    Detached,
    NoForwardDerivative,
    Remembered,
    Returning,
    Sidetracked,
    Skipping,
    Switched,
    TimeFirst,
    Wide,
    mlp,
)
from tests.engine.tap_case import frozen, noise

__all__ = ["MODEL_ERRORS", "ErrorCase"]


@dataclasses.dataclass(frozen=True)
class ErrorCase:
    """One way to be refused: ``run`` must raise ``error``, with all of ``says`` in its text."""

    name: str
    error: type[Exception]
    run: Callable[[], object]
    says: tuple[str, ...]


def _refused(
    name: str,
    model: Callable[[], Any],
    *says: str,
    method: str = "dfa",
    error: type[Exception] = UnsupportedModelError,
    inputs: Callable[[], Tensor] = lambda: noise(6, 4),
    **options: Any,
) -> ErrorCase:
    """Refused when constructed, or on its first forward pass."""
    return ErrorCase(name, error, lambda: fdfa.wrap(method, model(), **options)(inputs()), says)


def _later(
    name: str, way: str, error: type[Exception], *says: str, method: str = "fdfa"
) -> ErrorCase:
    """Refused on the second step, whose inputs have the same shapes as the first step's."""

    def run() -> None:
        learner = fdfa.wrap(method, Switched(way))
        learner(torch.ones(6, 4, dtype=torch.float64))
        learner(-torch.ones(6, 4, dtype=torch.float64))

    return ErrorCase(name, error, run, says)


def _other_length() -> None:
    model = nn.Sequential(
        nn.Conv1d(1, 2, 3), nn.Tanh(), nn.Conv1d(2, 3, 3), nn.AdaptiveAvgPool1d(1)
    )
    learner = fdfa.DFA(nn.Sequential(model, nn.Flatten()))
    learner(torch.ones(2, 1, 8))
    learner(torch.ones(2, 1, 9))


def _loss_from_elsewhere() -> None:
    learner = fdfa.DFA(Returning(lambda y, h: {"y": y, "hidden": h}), output="y")
    learner(noise(6, 4))["hidden"].sum().backward()


def no_module(name: str, module: nn.Module) -> bool:
    """A predicate for no module at all."""
    return False


def _compiled_in_place() -> nn.Module:
    model = mlp()
    model[2].compile(backend="eager")
    return model


TAPS = [
    _refused("bypassed tap", Skipping, "'second'", "'act1'", "around it", taps=["second"]),
    _refused("bypassed taps of a type", Skipping, "'second'", "'act1'", taps=nn.Linear),
    _refused("tap that is the output", mlp, "'4'", "output", "Leave it out", taps=["1", "4"]),
    _refused("tap never called", Sidetracked, "'idle'", "never calls", taps=["idle"]),
    _refused("tap that leads nowhere", Sidetracked, "'gauge'", "Leave it out", taps=["gauge"]),
    _refused("tap that returns a tuple", Sidetracked, "'lstm'", "no single tensor", taps="lstm"),
    _refused(
        "tap without the batch in front",
        TimeFirst,
        *("'act1'", "(3, 6, 5)", "sample_dims"),
        inputs=lambda: noise(6, 3, 4),
        taps=["act1"],
    ),
    _refused(
        "unknown tap",
        Skipping,
        *("'secnd'", "Did you mean 'second'?", "first, second, head"),
        error=ConfigError,
        taps=["act1", "secnd"],
    ),
    _refused("taps that match nothing", mlp, "taps=Conv2d", "taps=[]", taps=nn.Conv2d),
    _refused("predicate that matches nothing", mlp, "taps=no_module", "taps=[]", taps=no_module),
    _refused(
        "taps that are frozen away",
        lambda: nn.Sequential(frozen(mlp()[0]), *mlp()[1:]),
        "taps=[]",
        taps=["1"],
    ),
    _refused(
        "depth with named taps", mlp, "depth=2", "'auto'", error=ConfigError, taps=["1"], depth=2
    ),
    _refused("depth of zero", mlp, "depth=0", error=ConfigError, depth=0),
    _refused("depth that is no number", mlp, "depth='2'", error=ConfigError, depth="2"),
    _refused("depth of true", mlp, "depth=True", error=ConfigError, depth=True),
    _refused("taps that is a number", mlp, "taps=3", "'auto'", error=TypeError, taps=3),
    _refused("taps that is None", mlp, "taps=None", error=TypeError, taps=None),
    _refused("taps that holds a number", mlp, "taps holds 1", error=TypeError, taps=["1", 1]),
    _refused("taps that is a module", mlp, "Tanh", error=TypeError, taps=nn.Tanh()),
    _refused("taps that is another type", mlp, "int", error=TypeError, taps=int),
    _refused("tapped tensor used beside the tap", Remembered, "'act1'", "beside", taps=["act1"]),
    _later(
        "tap skipped for other values",
        "skipped layer",
        UnsupportedModelError,
        "'act2'",
        "did not fire",
    ),
    _later(
        "tap of another shape for other values",
        "cropped",
        UnsupportedModelError,
        "'act2'",
        "(5, 5)",
    ),
]

MODELS = [
    _refused("class", lambda: nn.Linear, "is a class", "Linear(...)", error=TypeError),
    _refused("function", lambda: torch.tanh, "torch.nn.Module", error=TypeError),
    _refused("no parameters", nn.Tanh, "Tanh has no parameters"),
    _refused("all frozen", lambda: frozen(mlp()), "requires_grad=True"),
    _refused("lazy", lambda: nn.Sequential(nn.LazyLinear(3)), "lazy", "model(x)"),
    _refused(
        "no weight layer",
        lambda: nn.Sequential(nn.BatchNorm1d(4), nn.PReLU(), nn.BatchNorm1d(4)).double(),
        *("no tap was found", "taps=[]"),
    ),
    _refused("one layer", lambda: nn.Linear(4, 3).double(), "no tap was found", "taps=[]"),
    _refused("detached in the middle", Detached, "'first.weight'", "'first.bias'", "detach()"),
    _refused(
        "reentrant checkpoint",
        lambda: Checkpointed(reentrant=True),
        "'middle.0.weight'",
        "use_reentrant=False",
    ),
    _refused(
        "checkpoint under forward AD",
        Checkpointed,
        "'middle'",
        "checkpoint(learner",
        "finite-difference",
        method="fdfa",
    ),
    _refused(
        "tap inside a checkpoint", Checkpointed, "'middle.0'", "last module", taps=["middle.0"]
    ),
    _refused(
        "compiled module",
        lambda: nn.Sequential(torch.compile(mlp(), backend="eager"), nn.Linear(3, 2)),
        "'0'",
        "learner.compile()",
    ),
    _refused("module compiled in place", _compiled_in_place, "'2'", "learner.compile()"),
    _refused(
        "wrapped for several devices",
        lambda: nn.DataParallel(mlp()),
        "DataParallel",
        "DistributedDataParallel(learner)",
        error=DistributedError,
    ),
    _refused(
        "no forward derivative",
        NoForwardDerivative,
        "'body.quirk' (Quirk)",
        "probe='finite-difference'",
        method="fdfa",
        error=ProbeError,
    ),
    _later("tangent lost by detach", "detached", ProbeError, "'act2'", "detach()"),
    _later("tangent lost by .data", "data", ProbeError, "'act2'", ".data"),
    _later("tangent lost on the way through numbers", "around", ProbeError, "'act2'"),
    _later("output without a tangent", "detached output", ProbeError, "the output"),
]

OUTPUTS = [
    _refused(
        "output that is a number", lambda: Returning(lambda y, h: 3), "type int", "output=NAME"
    ),
    _refused("output that is None", lambda: Returning(lambda y, h: None), "NoneType"),
    _refused(
        "output in a tuple",
        lambda: Returning(lambda y, h: (y, h)),
        "type tuple",
        "output=NAME",
        "0, 1",
    ),
    _refused(
        "output in a dict",
        lambda: Returning(lambda y, h: {"logits": y, "hidden": h}),
        "logits, hidden",
    ),
    _refused(
        "output without components", lambda: Returning(lambda y, h: y[:, 0]), "(6,)", "(N, 1)"
    ),
    _refused(
        "output of class numbers",
        lambda: Returning(lambda y, h: y.argmax(1)),
        "torch.int64",
        "logits",
    ),
    _refused("output without positions", mlp, "(6, 3)", "2 sample dimension(s)", sample_dims=2),
    _refused(
        "unknown output",
        lambda: Returning(lambda y, h: {"logits": y, "hidden": h}),
        *("'logit'", "Did you mean 'logits'?", "logits, hidden"),
        output="logit",
    ),
    _refused(
        "output number out of range",
        lambda: Returning(lambda y, h: (y, h)),
        "'2'",
        "0, 1",
        output=2,
    ),
    _refused(
        "name for a bare output", mlp, "output='logits'", "Leave output= out", output="logits"
    ),
    ErrorCase(
        "loss from another tensor",
        FDFAError,
        _loss_from_elsewhere,
        ("beside its output", "output="),
    ),
]

MAPS = [
    _refused(
        "map over the limit",
        mlp,
        "'1'",
        "3 x 5",
        "depth=",
        "feedback_size_limit",
        feedback_size_limit=119,
    ),
    _refused(
        "map that no memory holds",
        Wide,
        "1000000 x 1000000",
        "GiB",
        inputs=lambda: torch.ones(1, 1),
        taps=["widen"],
    ),
    ErrorCase(
        "map for another length",
        UnsupportedModelError,
        _other_length,
        ("'0.1'", "14 units", "12 units", "sample_dims=2"),
    ),
]

MODEL_ERRORS = [*TAPS, *MODELS, *OUTPUTS, *MAPS]

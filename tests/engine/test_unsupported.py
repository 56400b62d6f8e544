"""What must be refused is, with a text that names place and remedy; refusal does no damage."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.errors import UnsupportedModelError
from tests.engine.error_cases import MODEL_ERRORS, ErrorCase
from tests.engine.option_error_cases import OPTION_ERRORS
from tests.engine.refused_models import (
    Checkpointed,
    Detached,
    NoForwardDerivative,
    Skipping,
    Switched,
    Wide,
    mlp,
)
from tests.engine.tap_case import noise


@pytest.mark.parametrize("case", [*MODEL_ERRORS, *OPTION_ERRORS], ids=lambda case: case.name)
def test_is_refused_in_words(case: ErrorCase) -> None:
    with pytest.raises(case.error) as caught:
        case.run()
    assert type(caught.value) is case.error
    for words in case.says:
        assert words in str(caught.value)


def test_all_problems_are_reported_at_once() -> None:
    class Broken(Detached):
        def forward(self, x: Tensor) -> Tensor:
            h = self.cut(self.act1(self.first(x)))
            return self.head(self.act2(self.second(h)) + h)

    with pytest.raises(UnsupportedModelError) as caught:
        fdfa.DFA(Broken(), taps=["head", "act1"])(noise(6, 4))
    problems = caught.value.problems
    for words in ("'first.weight'", "'first.bias'", "'head' is the model's output", "'act1' does"):
        assert sum(words in problem for problem in problems) == 1


def test_a_compiled_module_is_refused_before_it_runs() -> None:
    """Compiling takes minutes, and a traced module does not see the taps."""
    ran = []
    inner = torch.compile(nn.Linear(4, 4), backend=lambda graph, example: ran.append(1) or graph)
    with pytest.raises(UnsupportedModelError, match="is compiled"):
        fdfa.DFA(nn.Sequential(inner, nn.Tanh(), nn.Linear(4, 3)))(torch.ones(2, 4))
    assert not ran


def test_a_module_compiled_after_wrapping_is_refused_on_the_next_step() -> None:
    model = mlp()
    learner = fdfa.DFA(model)
    learner(noise(6, 4))
    model[1].compile(backend="eager")
    with pytest.raises(UnsupportedModelError, match="'1' is compiled"):
        learner(noise(6, 4))


def test_a_map_that_is_too_large_is_never_allocated() -> None:
    """It would take four terabytes; the model itself is fine, as one block."""
    x = torch.ones(1, 1)
    learner = fdfa.DFA(Wide(), taps=["widen"])
    with pytest.raises(UnsupportedModelError, match="feedback_size_limit"):
        learner(x)
    assert not learner.feedback.names()
    fdfa.DFA(Wide(), taps=[])(x).sum().backward()


def test_the_limit_is_in_bytes_and_inclusive() -> None:
    """A map of 3 x 5 in double precision has 120 bytes; the table has the case one byte below."""
    fdfa.DFA(mlp(), feedback_size_limit=120)(noise(6, 4))


SWITCHED = ["skipped layer", "cropped", "detached", "around"]


@pytest.mark.parametrize("method", ["dfa", "fdfa"])
@pytest.mark.parametrize("way", SWITCHED)
def test_after_a_refused_step_the_learner_goes_on(way: str, method: str) -> None:
    """The step that failed leaves no hook, no dual level, no half-updated map."""
    model = Switched(way)
    learner, twin = (fdfa.wrap(method, m, seed=1) for m in (model, Switched(way)))
    twin.load_state_dict(learner.state_dict())
    x = noise(6, 4).abs()
    learner(x).sum().backward()
    model.zero_grad()
    before = {key: value.clone() for key, value in learner.state_dict().items()}
    if method == "fdfa" or way in ("skipped layer", "cropped"):
        with pytest.raises(fdfa.errors.FDFAError):
            learner(-x)
    after = learner.state_dict()
    for key, value in before.items():
        assert key == "_extra_state" or torch.equal(after[key], value)
    assert all("forward" not in module.__dict__ for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    learner(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_finite_differences_serve_what_has_no_forward_derivative() -> None:
    """The remedy that the error names works: it measures d = p J^T, J being found by hand."""
    model, x = NoForwardDerivative(), noise(6, 4)
    learner = fdfa.FDFA(model, probe="finite-difference", feedback_rate=1.0, seed=3)
    learner(x).sum().backward()
    (tap,) = learner.plan(x).taps[:1]
    assert tap.name == "act"
    taps = learner.plan(x).taps
    probes = learner.probe.draw(
        [tap.shape for tap in taps],
        [torch.float64] * len(taps),
        [torch.device("cpu")] * len(taps),
        *(3, 0, 0),
    )
    assert [tap.name for tap in taps] == ["act", "body.quirk"]
    with torch.no_grad():
        h = model.act(model.first(x))
        cubed = 3 * model.body.fc(h) ** 2
        into_quirk = (probes[0] @ model.body.fc.weight.T) * cubed + probes[1]
        d = into_quirk @ model.head.weight.T
    for tap, p in zip(taps, probes, strict=True):
        expected = d.T @ p / 6
        # a central difference with step 1e-5 is exact to about 1e-10 / 1e-5 of rounding
        torch.testing.assert_close(learner.feedback[tap].weight, expected, rtol=1e-6, atol=1e-8)


class StraightThrough(nn.Module):
    """Signs forward, identity backward: detach() drops tangent and gradient alike."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h = self.second(h + (h.sign() - h).detach())
        return self.head(h)


def test_a_straight_through_estimator_is_no_lost_tangent() -> None:
    model, x = StraightThrough(), noise(6, 4)
    learner = fdfa.FDFA(model, taps=["first"], feedback_rate=1.0, seed=3)
    learner(x).sum().backward()
    probe = learner.probe.draw([(6, 5)], [torch.float64], [torch.device("cpu")], 3, 0, 0)
    p = probe[0]
    d = p @ model.second.weight.T @ model.head.weight.T
    torch.testing.assert_close(
        learner.feedback["first"].weight, d.T @ p / 6, rtol=1e-10, atol=1e-12
    )


class Plain(Checkpointed):
    """The same network without checkpoints."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.middle(self.act1(self.first(x)))))


@pytest.mark.parametrize(
    "build",
    [
        lambda model: fdfa.DFA(model, seed=1),
        lambda model: fdfa.DFA(model, seed=1, taps=["act1", "last"]),
        lambda model: fdfa.FDFA(model, seed=1, probe="finite-difference"),
    ],
    ids=["dfa", "dfa, one region inside a block", "fdfa by finite differences"],
)
def test_checkpointed_regions_that_end_at_taps_are_exact(build: Callable[..., nn.Module]) -> None:
    """What is recomputed for backward must be what the forward pass computed."""
    model, plain = Checkpointed(), Plain()
    plain.load_state_dict(model.state_dict())
    learners = build(model), build(plain)
    x = noise(6, 4)
    for _ in range(2):  # FDFA's maps start at zero: its hidden credits come with the second step
        for learner in learners:
            learner.zero_grad()
            learner(x).square().sum().backward()
        names = [[tap.name for tap in learner.plan(x).taps] for learner in learners]
        assert names[0] == names[1]
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-12)


def test_refused_models_are_let_go() -> None:
    """A graph that outlives its error would leak a model's activations."""
    learner = fdfa.DFA(Skipping(), taps=["second"])
    with pytest.raises(UnsupportedModelError):
        learner(noise(6, 4))
    gc.collect()
    graphs = [o for o in gc.get_objects() if type(o).__name__ == "AutogradGraph"]
    assert not graphs

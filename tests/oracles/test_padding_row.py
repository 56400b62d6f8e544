"""An embedding's row of padding gets no gradient from rules that perturb the weights either."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.engine.leaves import leaves_of
from tests.oracles.weight_space import directions, gradient

WORDS = torch.tensor([[0, 1, 2], [0, 0, 3], [2, 1, 0]]), torch.tensor([0, 1, 0])


def _words() -> nn.Module:
    return nn.Sequential(nn.Embedding(4, 2, padding_idx=-4), nn.Flatten(), nn.Linear(6, 2))


def _bags() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(4, 2, padding_idx=0), nn.Linear(2, 2))


@pytest.fixture(params=[_words, _bags], ids=["words", "bags"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    """With a row of padding that is not zero: it was learned elsewhere, say."""
    make: Callable[[], nn.Module] = request.param
    torch.manual_seed(0)
    made = make().double()
    nn.init.normal_(made[0].weight)
    return made


def _probe(model: nn.Module) -> dict[str, object]:
    """Of bags, torch has no forward derivative."""
    return {"probe": "finite-difference"} if isinstance(model[0], nn.EmbeddingBag) else {}


@pytest.mark.parametrize("tangents", ["normal", "rademacher", "orthonormal", "angle"])
def test_as_many_tangents_as_there_are_free_weights(model: nn.Module, tangents: str) -> None:
    """They give autograd's gradient; as many are taken, and the lengths are of that dimension."""
    free = sum(p.numel() for p in model.parameters()) - 2
    learner = fdfa.MultiTangent(
        copy.deepcopy(model), count=99, tangents=tangents, angle=60, seed=3, **_probe(model)
    )
    found, g = gradient(learner, WORDS), gradient(model, WORDS)
    torch.testing.assert_close(found, g, rtol=1e-7, atol=1e-7 if _probe(model) else 1e-10)
    assert not found[:2].any()
    V = directions(learner, 0)
    assert V.shape[0] == free
    if tangents != "normal":
        torch.testing.assert_close(V.square().sum(1), torch.full((free,), float(free)).double())


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *(("fg-w", {"noise": noise}) for noise in ("normal", "rademacher", "sphere")),
        ("fg-w", {"direction": lambda model: dict(model.named_parameters())}),
        *(("multi-tangent", {"count": 2, "combine": way}) for way in ("projection", "mean")),
        ("spsa", {}),
        ("pseudo-zeroth-order", {"window": 2, "decay": 1.0}),
    ],
)
def test_the_row_rests_and_all_others_learn(
    model: nn.Module, method: str, options: dict[str, object]
) -> None:
    if method in ("fg-w", "multi-tangent"):
        options = options | _probe(model)
    learner = fdfa.wrap(method, model, seed=3, **options)
    for _ in range(3):
        found = gradient(learner, WORDS)
        assert not found[:2].any()
        assert found[2:].all()
    if options.get("noise") == "sphere":
        (v,) = directions(learner, 0)
        torch.testing.assert_close(v.square().sum(), torch.tensor(len(v) - 2.0).double())


class _Tied(nn.Module):
    """The row of padding learns: the last layer has it too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 2, padding_idx=0)
        self.last = nn.Linear(2, 4, bias=False)
        self.last.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.last(self.embedding(words).tanh().sum(1))


@pytest.mark.parametrize("probe", ["forward-ad", "finite-difference"])
def test_a_weight_that_another_layer_shares(probe: str) -> None:
    """The row learns from that one, and nothing from being looked up, as in backpropagation."""
    torch.manual_seed(0)
    model = _Tied().double()
    nn.init.normal_(model.embedding.weight)
    assert [leaf.row for leaf in leaves_of(model)] == [None]
    learner = fdfa.MultiTangent(copy.deepcopy(model), count=99, seed=3, probe=probe)
    torch.testing.assert_close(learner(WORDS[0]), model(WORDS[0]), rtol=0, atol=0)
    found, g = gradient(learner, WORDS), gradient(model, WORDS)
    torch.testing.assert_close(found, g, rtol=1e-7, atol=1e-10 if probe == "forward-ad" else 1e-7)
    assert found[:2].any()

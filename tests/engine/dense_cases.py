"""Dense structures in a chain, with the taps that the rule gives, found by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tests.engine.tap_case import TapCase, frozen, noise

__all__ = ["DENSE"]


class FunctionalMLP(nn.Module):
    def __init__(
        self, activation: Callable[[Tensor], Tensor], middle: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.activation = activation
        self.fc1, self.fc2, self.fc3 = nn.Linear(4, 5), middle or nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.fc1(x))
        return self.fc3(self.activation(self.fc2(h)))


class KeywordMLP(FunctionalMLP):
    """Its layers are given their input by name."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.fc1(input=x))
        return self.fc3(input=self.activation(self.fc2(input=h)))


class Optional(nn.Module):
    """A parameter for missing values, and none are missing."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.missing = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(torch.where(x.isnan(), self.missing, x) if x.isnan().any() else x)


class SharedActivation(nn.Module):
    """One activation module and one hidden layer, each called more than once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.act = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.stem(x))
        for _ in range(2):
            h = self.act(self.fc(h))
        return self.head(h)


class SharedLayer(nn.Module):
    """One Linear in two places, with functional activations: the cuts lie at inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.stem(x))
        for _ in range(2):
            h = torch.tanh(self.fc(h))
        return self.head(h)


def tied_weights() -> nn.Module:
    """Two Linear modules that hold one and the same weight."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))
    model[2].weight = model[0].weight
    return model


class Matrix(nn.Module):
    """A weight layer of the user's own, with its activation inside."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.kernel)


class Gain(nn.Module):
    """A block that holds a matrix of its own beside its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 5), nn.Linear(5, 5)
        self.gain = nn.Parameter(torch.rand(1, 5))

    def forward(self, h: Tensor) -> Tensor:
        return torch.tanh(self.fc2(torch.tanh(self.fc1(h)))) * self.gain


class SharedScale(nn.Module):
    """A parameter that two blocks use as it is: a leaf is no path between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.scale = nn.Parameter(torch.rand(5))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.fc1(x)) * self.scale
        return self.head(torch.tanh(self.fc2(h)) * self.scale)


class SharedExponential(SharedScale):
    """A tensor computed from a parameter: it goes around whatever lies between its two uses."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale.exp()
        h = torch.tanh(self.fc1(x)) * scale
        return self.head(torch.tanh(self.fc2(h)) * scale)


def parametrised(parametrise: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    """An MLP whose first two layers are parametrised."""

    def build() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the old forms are deprecated, not gone
            return nn.Sequential(
                parametrise(nn.Linear(4, 6)),
                nn.ReLU(),
                parametrise(nn.Linear(6, 5)),
                nn.Tanh(),
                nn.Linear(5, 3),
            )

    return build


def _x() -> tuple[Tensor]:
    return (noise(7, 4),)


DENSE = [
    TapCase(
        "mlp of modules",
        lambda: nn.Sequential(
            nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
        ),
        _x,
        ["1", "3"],
    ),
    TapCase(
        "mlp with functional relu", lambda: FunctionalMLP(F.relu), _x, ["fc2:input", "fc3:input"]
    ),
    TapCase(
        "layers called by keyword",
        lambda: KeywordMLP(torch.tanh),
        _x,
        ["fc2:input", "fc3:input"],
    ),
    TapCase("a parameter that goes unused", Optional, _x, ["body.1"]),
    TapCase(
        "mlp with functional in-place relu",
        lambda: FunctionalMLP(torch.relu_),
        _x,
        ["fc2:input", "fc3:input"],
    ),
    TapCase(
        "mlp with in-place relu modules",
        lambda: nn.Sequential(
            nn.Linear(4, 6),
            nn.ReLU(inplace=True),
            nn.Linear(6, 5),
            nn.ReLU(inplace=True),
            nn.Linear(5, 3),
        ),
        _x,
        ["1", "3"],
    ),
    TapCase(
        "linear layers without activation",
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)),
        _x,
        ["0", "1"],
    ),
    TapCase(
        "batch norm before the activation, then dropout",
        lambda: nn.Sequential(
            *(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3)),
            *(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.3)),
            nn.Linear(5, 3),
        ),
        _x,
        ["3", "7"],
    ),
    TapCase(
        "batch norm after the activation and dropout",
        lambda: nn.Sequential(
            *(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.3), nn.BatchNorm1d(6)),
            *(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.3), nn.BatchNorm1d(5)),
            nn.Linear(5, 3),
        ),
        _x,
        ["3", "7"],
    ),
    TapCase(
        # The first norm and relu lie before any weight layer: they belong to the first block.
        "normalisation and activation before each layer",
        lambda: nn.Sequential(
            *(nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 6)),
            *(nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5)),
            *(nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
        ),
        _x,
        ["4", "7"],
    ),
    TapCase(
        "nested containers",
        lambda: nn.Sequential(
            nn.Sequential(nn.Linear(4, 6), nn.ReLU()),
            nn.Sequential(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)), nn.ReLU()),
            nn.Linear(5, 3),
        ),
        _x,
        ["0.1", "1.1"],
    ),
    TapCase(
        # Not its own matrix makes runs of layers, but the layers in it: no cut before the product.
        "a block with a matrix of its own",
        lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), Gain(), nn.Tanh(), nn.Linear(5, 3)),
        _x,
        ["1", "2.fc2:input", "3"],
    ),
    TapCase(
        "a block with a matrix of its own, functional input",
        lambda: FunctionalMLP(torch.tanh, middle=Gain()),
        _x,
        ["fc2:input", "fc2.fc2:input", "fc3:input"],
    ),
    TapCase("activation called three times", SharedActivation, _x, ["act", "act#2", "act#3"]),
    TapCase("layer called twice", SharedLayer, _x, ["fc:input", "fc:input#2", "head:input"]),
    TapCase("tied weights", tied_weights, _x, ["1", "3"]),
    TapCase(
        "layers of the user's own",
        lambda: nn.Sequential(Matrix(4, 6), Matrix(6, 5), Matrix(5, 3)),
        _x,
        ["0", "1"],
    ),
    TapCase(
        "frozen first layers",
        lambda: nn.Sequential(
            *(frozen(nn.Linear(4, 6)), nn.ReLU(), frozen(nn.Linear(6, 6)), nn.ReLU()),
            *(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)),
        ),
        _x,
        ["5", "7"],
    ),
    TapCase(
        # A frozen layer learns nothing and needs no credit: it joins the block that it follows.
        "frozen layer in the middle",
        lambda: nn.Sequential(
            *(nn.Linear(4, 6), nn.ReLU(), frozen(nn.Linear(6, 6)), nn.ReLU()),
            *(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)),
        ),
        _x,
        ["3", "5"],
    ),
    TapCase("a parameter of two blocks", SharedScale, _x, ["fc2:input", "head:input"]),
    # Behind fc2's input lies exp(scale), which reaches the output later too; not so behind fc1's
    # output.
    TapCase("a computed tensor of two blocks", SharedExponential, _x, ["fc1", "head:input"]),
    *(
        TapCase(name, parametrised(parametrise), _x, ["1", "3"])
        for name, parametrise in {
            "weight_norm": parametrizations.weight_norm,
            "weight_norm of old": nn.utils.weight_norm,
            "spectral_norm": parametrizations.spectral_norm,
            "spectral_norm of old": nn.utils.spectral_norm,
            "orthogonal": parametrizations.orthogonal,
        }.items()
    ),
]

"""Convolutional structures, with the taps that the rule gives, found by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.tap_case import TapCase, noise

__all__ = ["IMAGES", "ResNet"]


class FunctionalLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.fc1, self.fc2, self.fc3 = nn.Linear(16, 6), nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.conv1(x)), 2)
        h = F.max_pool2d(F.relu(self.conv2(h)), 2)
        h = F.relu(self.fc1(torch.flatten(h, 1)))
        return self.fc3(F.relu(self.fc2(h)))


def lenet_of_modules() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)),
    )


class AlexNet(nn.Module):
    """AlexNet's layout: pooling after convolutions 1, 2 and 5, dropout before dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(5, 5, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(5, 4, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            *(nn.Dropout(0.5), nn.Linear(4, 6), nn.ReLU(inplace=True)),
            *(nn.Dropout(0.5), nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class Residual(nn.Module):
    """Two convolutions beside a shortcut, which is a convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, two stages of two blocks, the second with a down-sampling path."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU()
        )
        self.layer1 = nn.Sequential(Residual(3, 3, 1), Residual(3, 3, 1))
        self.layer2 = nn.Sequential(Residual(3, 4, 2), Residual(4, 4, 1))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class FunctionalStem(ResNet):
    """The stem's relu is a function: what block and shortcut share is no module's output."""

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.stem[1](self.stem[0](x)))
        return self.fc(self.layer2(self.layer1(h)).mean((2, 3)))


class UNet(nn.Module):
    """Two levels of skips: only the first encoder's result and the last join are cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2 = self._convolution(1, 3), self._convolution(3, 4)
        self.bottom = self._convolution(4, 4)
        self.dec2, self.dec1 = self._convolution(8, 4), self._convolution(7, 3)
        self.head = nn.Linear(3, 3)

    @staticmethod
    def _convolution(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        e1 = self.enc1(x)
        e2 = self.enc2(F.max_pool2d(e1, 2))
        h = self.bottom(F.max_pool2d(e2, 2))
        h = self.dec2(torch.cat([F.interpolate(h, scale_factor=2), e2], 1))
        h = self.dec1(torch.cat([F.interpolate(h, scale_factor=2), e1], 1))
        return self.head(h.mean((2, 3)))


class VisionTransformer(nn.Module):
    """Class token and positions are parameters of the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True)
                for _ in range(2)
            )
        )
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.patch(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(x), -1, -1), h], 1) + self.positions
        return self.head(self.norm(self.blocks(h))[:, 0])


def _grey() -> tuple[Tensor]:
    return (noise(5, 1, 8, 8),)


IMAGES = [
    TapCase(
        "lenet, functional",
        FunctionalLeNet,
        _grey,
        ["conv2:input", "fc1:input", "fc2:input", "fc3:input"],
    ),
    TapCase("lenet of modules", lenet_of_modules, _grey, ["2", "6", "8", "10"]),
    TapCase(
        "alexnet",
        AlexNet,
        lambda: (noise(5, 3, 16, 16),),
        [
            *("features.2", "features.5", "features.7", "features.9"),  # pool, pool, relu, relu
            *("classifier.0", "classifier.3", "classifier.5"),  # dropout, dropout, relu
        ],
    ),
    TapCase(
        "resnet",
        ResNet,
        _grey,
        ["stem.2", "layer1.0", "layer1.1", "layer2.0", "fc:input"],
    ),
    # No module made what block and shortcut share, but both run inside layer1.
    TapCase(
        "resnet with a functional stem",
        FunctionalStem,
        _grey,
        ["layer1:input", "layer1.0", "layer1.1", "layer2.0", "fc:input"],
    ),
    TapCase("u-net", UNet, _grey, ["enc1.1", "dec1:input", "head:input"]),
    # Token and positions join after the patches: they belong to the first block.
    TapCase(
        "vision transformer", VisionTransformer, _grey, ["blocks:input", "blocks.0", "head:input"]
    ),
]

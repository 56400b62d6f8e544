"""Convolutional networks: the paper's two, and LeNet-5.

All are plain sequences in which pooling follows the activation, so that each block ends in what
the next one reads.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from fdfa.models.sizes import check_at_least, check_image

__all__ = ["alexnet", "convolutional", "lenet"]


def convolutional(*, image: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> nn.Sequential:
    """Builds the paper's small network in the form of its authors' code.

    Convolution 5 x 5 (15), convolution 5 x 5 (40), one 2 x 2 max pooling, linear (128), linear
    (classes); batch norm and ReLU after all but the last. The paper's text announces a pooling
    after each convolution instead (Bacho & Chu, arXiv:2212.07282).

    Args:
        image: (channels, height, width) of one input; at least 10 x 10 pixels.
        classes: number of outputs, K.

    Returns:
        A network from (N, C, H, W) to (N, K).

    Raises:
        ConfigError: if the image is too small or a size is not positive.

    Example:
        >>> convolutional(image=(1, 28, 28)).linear1
        Linear(in_features=4000, out_features=128, bias=True)
    """
    check_image(image, network="convolutional", smallest=10)
    check_at_least(1, classes=classes)
    channels, height, width = image
    flat = 40 * ((height - 8) // 2) * ((width - 8) // 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, 15, kernel_size=5),
        norm1=nn.BatchNorm2d(15),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(15, 40, kernel_size=5),
        norm2=nn.BatchNorm2d(40),
        relu2=nn.ReLU(),
        pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        linear1=nn.Linear(flat, 128),
        norm3=nn.BatchNorm1d(128),
        relu3=nn.ReLU(),
        output=nn.Linear(128, classes),
    )
    return nn.Sequential(layers)


def lenet(*, image: tuple[int, int, int] = (1, 28, 28), classes: int = 10) -> nn.Sequential:
    """Builds LeNet-5 with ReLU and max pooling, without batch norm.

    Convolution 5 x 5 (6, padded by 2), convolution 5 x 5 (16), each followed by 2 x 2 pooling, then
    linear 120, 84, classes (LeCun et al., Proc. IEEE 86, 1998; 61,706 parameters on MNIST).

    Args:
        image: (channels, height, width) of one input; at least 12 x 12 pixels.
        classes: number of outputs, K.

    Returns:
        A network from (N, C, H, W) to (N, K).

    Raises:
        ConfigError: if the image is too small or a size is not positive.

    Example:
        >>> lenet().linear1
        Linear(in_features=400, out_features=120, bias=True)
    """
    check_image(image, network="lenet", smallest=12)
    check_at_least(1, classes=classes)
    channels, height, width = image
    flat = 16 * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, 6, kernel_size=5, padding=2),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, 16, kernel_size=5),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        linear1=nn.Linear(flat, 120),
        relu3=nn.ReLU(),
        linear2=nn.Linear(120, 84),
        relu4=nn.ReLU(),
        output=nn.Linear(84, classes),
    )
    return nn.Sequential(layers)


def alexnet(*, image: tuple[int, int, int] = (3, 64, 64), classes: int = 200) -> nn.Sequential:
    """Builds AlexNet with batch norm in the form of the paper's authors' code.

    Five convolutions (64, 192, 384, 256, 256) with batch norm and ReLU, max pooling after the
    first, second and fifth, adaptive average pooling to 6 x 6, linear 4096, 4096, classes; no
    dropout. The paper trains it on CIFAR-100 at 224 x 224 and on Tiny ImageNet.

    Args:
        image: (channels, height, width) of one input; at least 63 x 63 pixels.
        classes: number of outputs, K.

    Returns:
        A network from (N, C, H, W) to (N, K).

    Raises:
        ConfigError: if the image is too small or a size is not positive.

    Example:
        >>> alexnet().linear1
        Linear(in_features=9216, out_features=4096, bias=True)
    """
    check_image(image, network="alexnet", smallest=63)
    check_at_least(1, classes=classes)
    convolutions = [
        nn.Conv2d(image[0], 64, kernel_size=11, stride=4, padding=2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
    ]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, convolution in enumerate(convolutions, 1):
        layers[f"conv{number}"] = convolution
        layers[f"norm{number}"] = nn.BatchNorm2d(convolution.out_channels)
        layers[f"relu{number}"] = nn.ReLU()
        if number in (1, 2, 5):
            layers[f"pool{number}"] = nn.MaxPool2d(kernel_size=3, stride=2)
    layers["average"] = nn.AdaptiveAvgPool2d(6)
    layers["flatten"] = nn.Flatten()
    for number, units in ((1, 256 * 6 * 6), (2, 4096)):
        layers[f"linear{number}"] = nn.Linear(units, 4096)
        layers[f"norm{number + 5}"] = nn.BatchNorm1d(4096)
        layers[f"relu{number + 5}"] = nn.ReLU()
    layers["output"] = nn.Linear(4096, classes)
    return nn.Sequential(layers)

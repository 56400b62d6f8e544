"""Convolutional networks: the paper's two, LeNet-5, and VGG.

All are plain sequences in which pooling follows the activation, so that each block ends in what
the next one reads.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final, Literal

from torch import nn

from fdfa.models.sizes import check_at_least, check_choice, check_image

__all__ = ["alexnet", "convolutional", "lenet", "vgg"]

# Convolutions in each of the five stages.
VGG_STAGES: Final = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}


def convolutional(
    *,
    image: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    form: Literal["code", "announced"] = "code",
) -> nn.Sequential:
    """Builds the paper's small network: two convolutions 5 x 5 (15, 40), linear (128), output.

    Batch norm and ReLU follow all but the last (Bacho & Chu, arXiv:2212.07282). The paper announces
    15C5-P2-40C5-P2-128-10, with a 2 x 2 max pooling after each convolution; its authors' code pools
    after the second alone.

    Args:
        image: (channels, height, width) of one input; at least 10 x 10 pixels, or 16 x 16 in the
            form announced.
        classes: number of outputs, K.
        form: that of the authors' code, or the one announced.

    Returns:
        A network from (N, C, H, W) to (N, K), with layers named ``conv1``, ``norm1``, ``relu1``,
        ..., ``output``.

    Raises:
        ConfigError: if the image is too small, a size is not positive, or there is no such form.

    Example:
        >>> convolutional(image=(1, 28, 28)).linear1
        Linear(in_features=4000, out_features=128, bias=True)
        >>> convolutional(image=(1, 28, 28), form="announced").linear1
        Linear(in_features=640, out_features=128, bias=True)
    """
    check_choice(("code", "announced"), form=form)
    announced = form == "announced"
    check_image(image, network="convolutional", smallest=16 if announced else 10)
    check_at_least(1, classes=classes)
    channels, *sides = image
    if announced:
        sides = [((side - 4) // 2 - 4) // 2 for side in sides]
    else:
        sides = [(side - 8) // 2 for side in sides]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, 15, kernel_size=5), norm1=nn.BatchNorm2d(15), relu1=nn.ReLU()
    )
    if announced:
        layers["pool1"] = nn.MaxPool2d(2)
    layers.update(
        conv2=nn.Conv2d(15, 40, kernel_size=5),
        norm2=nn.BatchNorm2d(40),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        linear1=nn.Linear(40 * math.prod(sides), 128),
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


def alexnet(
    *, image: tuple[int, int, int] = (3, 64, 64), classes: int = 200, resize: int | None = None
) -> nn.Sequential:
    """Builds AlexNet with batch norm in the form of the paper's authors' code.

    Five convolutions (64, 192, 384, 256, 256) with batch norm and ReLU, max pooling after the
    first, second and fifth, adaptive average pooling to 6 x 6, linear 4096, 4096, classes; no
    dropout. The paper trains it on CIFAR-100 at 224 x 224 and on Tiny ImageNet.

    Args:
        image: (channels, height, width) of one input; at least 63 x 63 pixels, or any with
            ``resize``.
        classes: number of outputs, K.
        resize: side to which images are brought first, bilinearly: 224 for CIFAR-100.

    Returns:
        A network from (N, C, H, W) to (N, K).

    Raises:
        ConfigError: if the image is too small or a size is not positive.

    Example:
        >>> alexnet().linear1
        Linear(in_features=9216, out_features=4096, bias=True)
    """
    check_image(image, network="alexnet", smallest=63 if resize is None else 1)
    check_at_least(1, classes=classes)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if resize is not None:
        check_at_least(63, resize=resize)
        layers["resize"] = nn.Upsample(resize, mode="bilinear")
    convolutions = [
        nn.Conv2d(image[0], 64, kernel_size=11, stride=4, padding=2),
        nn.Conv2d(64, 192, kernel_size=5, padding=2),
        nn.Conv2d(192, 384, kernel_size=3, padding=1),
        nn.Conv2d(384, 256, kernel_size=3, padding=1),
        nn.Conv2d(256, 256, kernel_size=3, padding=1),
    ]
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


def vgg(
    *,
    image: tuple[int, int, int] = (3, 32, 32),
    classes: int = 10,
    depth: Literal[11, 13, 16] = 11,
    width: int = 64,
) -> nn.Sequential:
    """Builds VGG with batch norm in its usual form for small images, with one linear layer.

    Five stages of 3 x 3 convolutions with batch norm and ReLU, ``width`` channels in the first,
    twice as many in each next one up to 8 times; 2 x 2 max pooling after each, which rounds up, so
    that any image will do; average pooling, linear (Simonyan & Zisserman, arXiv:1409.1556). Of the
    three linear layers that the authors gave it for 224 x 224 pixels one is left: on CIFAR-10 it
    has 9,231,114 parameters with ``depth=11``, 9,416,010 with 13 and 14,728,266 with 16.

    Args:
        image: (channels, height, width) of one input.
        classes: number of outputs, K.
        depth: 11, 13 or 16, as the authors count: 8, 10 or 13 convolutions and three linear layers.
        width: channels in the first stage.

    Returns:
        A network from (N, C, H, W) to (N, K), with layers named ``conv1``, ``norm1``, ``relu1``,
        ``pool1``, ..., ``output``.

    Raises:
        ConfigError: if there is no such depth or a size is not positive.

    Example:
        >>> network = vgg(image=(1, 8, 8), width=8)
        >>> [name for name, _ in network.named_children()][:8]
        ['conv1', 'norm1', 'relu1', 'pool1', 'conv2', 'norm2', 'relu2', 'pool2']
        >>> network.output
        Linear(in_features=64, out_features=10, bias=True)
    """
    check_image(image, network="vgg", smallest=1)
    check_choice(tuple(VGG_STAGES), depth=depth)
    check_at_least(1, classes=classes, width=width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, number = image[0], 0
    for stage, convolutions in enumerate(VGG_STAGES[depth]):
        for _ in range(convolutions):
            number += 1
            wider = width * min(2**stage, 8)
            layers[f"conv{number}"] = nn.Conv2d(channels, wider, kernel_size=3, padding=1)
            layers[f"norm{number}"] = nn.BatchNorm2d(wider)
            layers[f"relu{number}"] = nn.ReLU()
            channels = wider
        layers[f"pool{number}"] = nn.MaxPool2d(2, ceil_mode=True)
    layers |= {"average": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    layers["output"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)

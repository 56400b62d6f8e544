"""Multiply-adds that the weight layers of a network take in one step, counted from real shapes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from fdfa.engine.intercept import Forward, Interception

__all__ = ["LayerCall", "LayerProducts", "Products", "recorded_calls", "weight_layers"]


@dataclasses.dataclass(frozen=True)
class LayerProducts:
    """Multiply-adds of one weight layer in one step.

    Attributes:
        name: dotted name of the module.
        forward: of the forward pass.
        weight_gradient: of the weights' gradient; 0 where they are frozen.
        input_gradient: of gradients passed on; 0 where the layer begins a block that none passes.
        tangent: of carrying a probe through the layer; 0 before the first tap.
    """

    name: str
    forward: int
    weight_gradient: int
    input_gradient: int
    tangent: int


@dataclasses.dataclass(frozen=True)
class Products:
    """Multiply-adds of one step of a method, and of backpropagation on the same network.

    Attributes:
        layers: of each weight layer.
        credit: ``e B`` at all taps.
        teaching: ``d^T p`` at all taps, on a step that probes; or ``e^T h``, where that teaches.
        probing_share: share of the steps that probe.
        backpropagation: all multiply-adds of one step of backpropagation.

    Example:
        >>> layer = LayerProducts("fc", forward=8, weight_gradient=8, input_gradient=0, tangent=8)
        >>> products = Products((layer,), 2, 2, probing_share=0.5, backpropagation=24)
        >>> products.step, products.ratio
        (23.0, 0.9583333333333334)
    """

    layers: tuple[LayerProducts, ...]
    credit: int
    teaching: int
    probing_share: float
    backpropagation: int

    @property
    def step(self) -> float:
        """Multiply-adds of a step, averaged over steps that probe and that do not."""
        always = self.credit + sum(
            layer.forward + layer.weight_gradient + layer.input_gradient for layer in self.layers
        )
        probing = self.teaching + sum(layer.tangent for layer in self.layers)
        return always + self.probing_share * probing

    @property
    def ratio(self) -> float:
        """Of :attr:`step` to backpropagation's."""
        return self.step / self.backpropagation if self.backpropagation else math.nan


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """One call of a weight layer during a forward pass.

    Attributes:
        name: dotted name of the module.
        forward: multiply-adds of the call.
        inner: those of them whose input is computed inside the layer, so that it has a gradient in
            any case (recurrent products, attention's output projection).
        trainable: whether any of its weights is.
        input_needs_gradient: whether the gradient is passed on behind the layer.
        relayed: credits for blocks before that are pulled back through it.
    """

    name: str
    forward: int
    inner: int
    trainable: bool
    input_needs_gradient: bool
    relayed: int = 0

    @property
    def weight_gradient(self) -> int:
        """Multiply-adds of the weights' gradient."""
        return self.forward if self.trainable else 0

    @property
    def input_gradient(self) -> int:
        """Multiply-adds of the gradient passed on, within the layer and behind it."""
        relayed = self.relayed * self.forward
        if self.input_needs_gradient:
            return self.forward + relayed
        return (self.inner if self.trainable else 0) + relayed


def weight_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Modules that hold weight matrices of their own and multiply by them.

    Args:
        model: any module.

    Returns:
        Dotted name to module.

    Example:
        >>> list(weight_layers(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))))
        ['0']
    """
    return {
        name: module
        for name, module in model.named_modules()
        if _matrices(module)
        and not isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        and "parametrizations" not in name.split(".")
    }


@contextlib.contextmanager
def recorded_calls(model: nn.Module) -> Iterator[list[LayerCall]]:
    """Record every call of a weight layer while the context is open.

    A layer of an unknown kind is taken to apply its matrices once at every position of its input,
    the first tensor among its arguments; one without any multiplies nothing.

    Args:
        model: any module.

    Yields:
        A list that fills in the order of the calls.
    """
    calls: list[LayerCall] = []

    def around(name: str, module: nn.Module) -> Forward:
        forward = module.forward

        def recorded(*args: Any, **kwargs: Any) -> Any:
            x = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)
            needs_gradient = x is not None and x.requires_grad
            output = forward(*args, **kwargs)
            positions = 0 if x is None else _positions(module, x, output)
            calls.append(
                LayerCall(
                    name=name,
                    forward=positions * sum(matrix.numel() for matrix in _matrices(module)),
                    inner=positions * sum(matrix.numel() for matrix in _inner_matrices(module)),
                    trainable=any(p.requires_grad for p in module.parameters()),
                    input_needs_gradient=needs_gradient,
                )
            )
            return output

        return recorded

    with Interception({m: around(name, m) for name, m in weight_layers(model).items()}):
        yield calls


def _matrices(module: nn.Module) -> list[Tensor]:
    """The matrices that a module multiplies by itself."""
    own: list[Tensor] = [p for p in module.parameters(recurse=False) if p.dim() > 1]
    parametrizations = getattr(module, "parametrizations", None)
    if isinstance(parametrizations, nn.ModuleDict):
        own += [getattr(module, name) for name in parametrizations]
    if isinstance(module, nn.MultiheadAttention):
        own.append(module.out_proj.weight)  # which it reads without calling out_proj
    return [matrix for matrix in own if matrix.dim() > 1]


def _inner_matrices(module: nn.Module) -> list[Tensor]:
    """Those whose input is made inside the module."""
    if isinstance(module, nn.MultiheadAttention):
        return [module.out_proj.weight]
    if isinstance(module, nn.RNNBase):
        first = {"weight_ih_l0", "weight_ih_l0_reverse"}
        return [p for name, p in module.named_parameters() if p.dim() > 1 and name not in first]
    return []


def _positions(module: nn.Module, x: Tensor, output: Any) -> int:
    """How often each weight is used; a module may know that itself."""
    known: Any = getattr(module, "positions", None)
    if callable(known):
        return int(known(x))
    if isinstance(module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        return x.numel() // module.in_channels
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return int(output.numel()) // module.out_channels
    return math.prod(x.shape[:-1])

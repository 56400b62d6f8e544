"""Two passes in which layers learn from the difference of their activations, one by one.

The first keeps every layer's activation, and no graph. In the second each layer learns as soon as
its activation is there; only the last layers' graph lives until the loss has been computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fdfa.engine.graph import leaves_behind
from fdfa.engine.layer_calls import Layer, Layers, LayerWatch, map_arguments
from fdfa.errors import UnsupportedModelError

__all__ = ["KeepingPass", "LearningPass"]


class _KnownPass(LayerWatch):
    """A pass of which the layers are known."""

    def __init__(self, model: nn.Module, layers: Layers) -> None:
        super().__init__(model)
        self._layers = layers.each

    def _known(self, number: int, met: Layer) -> Layer:
        known = self._layers[number] if number < len(self._layers) else None
        if known is None or (known.parameters, known.function) != (met.parameters, met.function):
            raise UnsupportedModelError(
                f"layer {number} of this pass uses '{met.parameters[0]}', and for inputs like these"
                f" it used {'none' if known is None else repr(known.parameters[0])} before: the"
                " model's structure depends on more than the shapes of its inputs. Choose another"
                " method, or make the structure a function of the shapes."
            )
        return known


class KeepingPass(_KnownPass):
    """Keeps the activations of hidden layers.

    Attributes:
        kept: by number of the layer; what a layer without activation puts out is its own.
    """

    def __init__(self, model: nn.Module, layers: Layers) -> None:
        super().__init__(model, layers)
        self.kept: dict[int, Tensor] = {}

    def call(self, number: int, layer: Layer, func: Any, args: Any, kwargs: Any) -> Any:
        """Run it and let the graph go."""
        known = self._known(number, layer)
        returned = map_arguments(func(*args, **kwargs), Tensor.detach)
        if not known.last and not known.activated:
            self.kept[number] = returned.clone()
        return returned

    def activated(self, number: int, h: Tensor) -> None:
        """Keep a copy: the model may write into its own."""
        if not self._layers[number].last:
            self.kept[number] = h.detach().clone()


class LearningPass(_KnownPass):
    """Hands every hidden layer the difference of its activations, on its own output.

    Args:
        model: that runs within.
        layers: of the pass.
        kept: activations of the first pass, by number of the layer.
        shares: how much each sample counts, a number for all of them or (N,).
        samples: N.
        wanted: parameters that need a gradient, by name.
        source: the model's input, where it needs one.

    Attributes:
        gradients: by name; the input's under ``""``.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Layers,
        *,
        kept: Mapping[int, Tensor],
        shares: Tensor,
        samples: int,
        wanted: Mapping[str, Tensor],
        source: Tensor | None,
    ) -> None:
        super().__init__(model, layers)
        self.gradients: dict[str, Tensor] = {}
        self._kept, self._shares, self._samples = kept, shares, samples
        # not the parameters themselves, whose hooks are for the gradient that they get
        self._wanted = {name: p.detach().requires_grad_() for name, p in wanted.items()}
        self.aliases = {id(p): self._wanted[name] for name, p in wanted.items()}
        self._own = {id(alias) for alias in self._wanted.values()}
        if source is not None:
            self._wanted[""] = source
        self._inputs = set() if source is None else {id(source)}
        self._edges: dict[int, torch.autograd.graph.GradientEdge] = {}

    def call(self, number: int, layer: Layer, func: Any, args: Any, kwargs: Any) -> Any:
        """Run it on inputs without a graph; only the last layers' own goes on."""
        known = self._known(number, layer)
        if known.is_product:
            args, kwargs = map_arguments((args, kwargs), self._constant)
        returned = func(*args, **kwargs)
        if known.last:
            return returned
        if returned.requires_grad:
            # taken now: the model may write into what it gets
            self._edges[number] = torch.autograd.graph.get_gradient_edge(returned)
        z: Tensor = returned.detach()
        if not known.activated:
            self.activated(number, z)
        return z

    def activated(self, number: int, h: Tensor) -> None:
        """The layer learns."""
        edge = self._edges.pop(number, None)
        if edge is None:
            return
        credit = self._kept[number] - h.detach()
        shared = credit.numel() / (self._samples * self._layers[number].units)  # positions
        shares = self._shares / shared
        if shares.dim():
            self._check_samples(number, h)
            shares = shares.view(-1, *(1 for _ in h.shape[1:]))
        self.learn([edge], [credit * shares.to(credit.dtype)], self._layers[number].parameters)

    def learn(
        self, ends: Sequence[Any], credits: Sequence[Tensor], parameters: Iterable[str]
    ) -> None:
        """Add what credits say to the gradients.

        Args:
            ends: tensors, or edges of the graph.
            credits: one each.
            parameters: names of those that may lie behind.
        """
        wanted = {name: self._wanted[name] for name in (*parameters, "") if name in self._wanted}
        if not wanted:
            return
        found = torch.autograd.grad(ends, list(wanted.values()), credits, allow_unused=True)
        for name, gradient in zip(wanted, found, strict=True):
            if gradient is not None:
                before = self.gradients.get(name)
                self.gradients[name] = gradient if before is None else before + gradient

    def _constant(self, value: Tensor) -> Tensor:
        """An input without the graph of a layer before it; the model's own input stays."""
        if not value.requires_grad or id(value) in self._own or self._learned(value):
            return value
        return value if leaves_behind(value) <= self._inputs else value.detach()

    def _check_samples(self, number: int, h: Tensor) -> None:
        if h.shape[:1] != (self._samples,):
            raise UnsupportedModelError(
                f"'{self._layers[number].parameters[0]}' puts out {tuple(h.shape)}, without the"
                f" {self._samples} samples in front, so that a loss a sample cannot weigh them."
                " Pass a loss function that returns one number."
            )

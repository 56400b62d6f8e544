"""Forward gradients in weight space: one directional derivative times its direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fdfa.engine.directions import (
    Direction,
    Directions,
    DrawnDirection,
    KeptDirection,
    norm_of,
)
from fdfa.engine.leaves import Leaf
from fdfa.engine.weight_probe import WeightProbeEstimator
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

__all__ = ["RECORDS", "ForwardGradient"]

_NOISES = ("normal", "rademacher", "sphere")

Guess = Mapping[str, Tensor] | Callable[[nn.Module], Mapping[str, Tensor]]


class ForwardGradient(WeightProbeEstimator):
    """The forward gradient ``(v . g) v`` (Baydin et al. 2022, arXiv:2202.08587).

    v is drawn over all weights, one for the whole batch; ``d`` is the output's derivative along it,
    taken by forward-mode AD beside the forward pass, and ``v . g = e . d``. No graph is kept.
    Unbiased; with P weights the total variance is ``(P + 1) |g|^2`` with ``noise="normal"``,
    ``(P - 1) |g|^2`` with ``"rademacher"`` and ``"sphere"``.

    With ``direction``, a guess u of one's own (after Silver et al. 2022): the gradient is then its
    projection on u, ``(u . g) u / |u|^2``, which never points uphill.

    Args:
        model: any module.
        output: which entry of the model's return value is the output (N, K, ...).
        noise: ``"normal"``, ``"rademacher"`` (+-1, drawn again for backward instead of kept), or
            ``"sphere"`` (a uniform direction of length sqrt(P)).
        direction: u: tensors by the parameters' names, or a function of the model that returns
            them, called at every learning forward pass. What is not named gets zero.
        probe: ``"forward-ad"`` or, for what has no forward derivative, ``"finite-difference"``.
        difference_step: length of a finite difference; None takes 1e-3, or 1e-5 in float64.
        seed: of the directions; by default torch's seed.

    Raises:
        ConfigError: if an option is unknown or out of range, or a direction does not fit.

    Example:
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = ForwardGradient(model, noise="rademacher")
        >>> learner(torch.ones(3, 4)).sum().backward()
        >>> model[0].weight.grad.abs().unique().numel()
        1
    """

    method = "fg-w"

    def __init__(
        self,
        model: nn.Module,
        *,
        output: str | int | None = None,
        noise: Literal["normal", "rademacher", "sphere"] = "normal",
        direction: Guess | None = None,
        probe: Literal["forward-ad", "finite-difference"] = "forward-ad",
        difference_step: float | None = None,
        seed: int | None = None,
    ) -> None:
        if noise not in _NOISES:
            raise ConfigError(unknown_name("noise", str(noise), _NOISES))
        if direction is not None and not callable(direction) and not isinstance(direction, Mapping):
            raise ConfigError(
                f"direction={direction!r}: pass tensors by the parameters' names, or a function of"
                " the model that returns them."
            )
        super().__init__(
            model, output=output, derivative=probe, difference_step=difference_step, seed=seed
        )
        self.noise = noise
        self.direction = direction
        if isinstance(direction, Mapping):
            _check(direction, dict(model.named_parameters()))

    def directions(self, leaves: Sequence[Leaf], seeds: Sequence[int]) -> Directions:
        """One: drawn, or the user's guess."""
        if self.direction is not None:
            return self._guessed(leaves)
        name = "rademacher" if self.noise == "rademacher" else "normal"
        drawn = DrawnDirection(name, leaves, seeds)
        if self.noise == "rademacher":  # bits: cheaper to draw again than to keep
            return Directions([drawn], _itself)
        kept: Direction = drawn.kept()
        if self.noise == "sphere":
            parts = [kept.leaf(number) for number in range(len(leaves))]
            scale = math.sqrt(sum(leaf.dimension for leaf in leaves)) / norm_of(parts)
            kept = KeptDirection([part.mul_(scale) for part in parts])
        return Directions([kept], _itself)

    def _guessed(self, leaves: Sequence[Leaf]) -> Directions:
        guess = self.direction
        if callable(guess):
            with torch.no_grad():
                guess = guess(self.model)
        guess = guess or {}
        _check(guess, dict(self.model.named_parameters()))
        parts = [
            leaf.at_rest(guess[leaf.name].detach().to(leaf.device, leaf.dtype, copy=True))
            if leaf.name in guess
            else torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device)
            for leaf in leaves
        ]
        length = norm_of(parts)
        if not length:
            raise ConfigError(
                "the guess direction is zero on all parameters that learn: it has no projection."
                " Leave direction= away where there is no guess."
            )
        return Directions([KeptDirection(parts)], lambda slopes: slopes / length**2)


def _itself(slopes: Tensor) -> Tensor:
    return slopes


def _check(guess: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    for name, tensor in guess.items():
        if name not in parameters:
            raise ConfigError(unknown_name("parameter", str(name), list(parameters)))
        if not isinstance(tensor, Tensor) or tensor.shape != parameters[name].shape:
            shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ConfigError(
                f"direction[{name!r}] is {shape}, and the parameter is"
                f" {tuple(parameters[name].shape)}: pass a tensor of its shape."
            )


RECORDS = (
    Method(
        "fg-w",
        ForwardGradient,
        "one directional derivative in weight space, times its direction",
        "Baydin et al. 2022, arXiv:2202.08587",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="none",
        products="3",
        aliases=(
            "forward-gradient",
            "weight-perturbed-forward-gradient",
            "weight-perturbation",
        ),
    ),
)

"""DFA and FDFA once more: loops over layers and samples, the cut and the tangents done by hand.

Shares no code with ``src``. Networks are [Linear -> batch norm in training mode -> ReLU -> tap] * L
-> Linear in float64, the hidden Linears without bias: batch norm takes it out again, and Adam would
blow its rounding noise up.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-5  # of nn.BatchNorm1d


@dataclasses.dataclass
class Block:
    """Weights of one hidden layer, as leaves of their own."""

    W: Tensor
    gamma: Tensor
    beta: Tensor
    running_mean: Tensor
    running_var: Tensor

    def learned(self) -> list[Tensor]:
        return [self.W, self.gamma, self.beta]


class NaiveNetwork:
    """Copies the weights of a ``Sequential(Linear, BatchNorm1d, ReLU, ..., Linear)``."""

    def __init__(self, model: nn.Sequential) -> None:
        def leaf(parameter: Tensor) -> Tensor:
            return parameter.detach().clone().requires_grad_()

        layers = list(model)
        self.blocks = [
            Block(
                leaf(linear.weight),
                leaf(norm.weight),
                leaf(norm.bias),
                norm.running_mean.clone(),
                norm.running_var.clone(),
            )
            for linear, norm in zip(layers[0:-1:3], layers[1:-1:3], strict=True)
        ]
        self.W, self.b = leaf(layers[-1].weight), leaf(layers[-1].bias)

    def parameters(self) -> list[Tensor]:
        """In the order of ``model.parameters()``."""
        return [*(p for block in self.blocks for p in block.learned()), self.W, self.b]

    def train_step(
        self, x: Tensor, target: Tensor, maps: list[Tensor], probe: list[Tensor] | None = None
    ) -> list[Tensor] | None:
        """Fill ``.grad`` by direct feedback; the mean of d^T p for each tap if it probes."""
        samples = len(x)
        h, t = x, None  # t: tangent of h
        taps: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            a = h @ block.W.T
            mean, var = a.mean(0), a.var(0, correction=0)
            z = (a - mean) / (var + EPS).sqrt()
            h = (z * block.gamma + block.beta).clamp(min=0)
            with torch.no_grad():
                block.running_mean.lerp_(mean, 0.1)
                block.running_var.lerp_(var * samples / (samples - 1), 0.1)
                if probe is not None:
                    if t is not None:
                        ta = t @ block.W.T
                        tz = ta - ta.mean(0) - z * (z * ta).mean(0)
                        t = tz / (var + EPS).sqrt() * block.gamma * (h > 0)
                    t = probe[number] if t is None else t + probe[number]
            taps.append(h)
            h = h.detach()  # the cut: from here on nothing reaches the blocks before
        y = h @ self.W.T + self.b

        e = torch.autograd.grad(F.cross_entropy(y, target), y, retain_graph=True)[0]  # (N, K)
        for p, gradient in zip(
            (self.W, self.b), torch.autograd.grad(y, (self.W, self.b), e), strict=True
        ):
            p.grad = gradient
        for block, tap, B in zip(self.blocks, taps, maps, strict=True):
            credit = torch.stack([e[n] @ B for n in range(samples)])
            for p, gradient in zip(
                block.learned(), torch.autograd.grad(tap, block.learned(), credit), strict=True
            ):
                p.grad = gradient
        if t is None:
            return None
        with torch.no_grad():
            d = t @ self.W.T
            return [sum(torch.outer(d[n], p[n]) for n in range(samples)) / samples for p in probe]


def dense_network(*widths: int) -> nn.Sequential:
    """The same network as a plain model, its batch-norm weights away from their trivial start."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1])).double()
    for module in model:
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model

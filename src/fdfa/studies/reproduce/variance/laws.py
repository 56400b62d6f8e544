"""Mean and variance that theory gives a rule's gradient, at fixed weights, on one batch.

All of it follows from the batch's own Jacobians, so the laws are exact for these very networks,
with ReLUs too, where every sample has another Jacobian. Samples are s, n in 1 ... N; a tap has the
units i, the output the components k; q = e J is the exact credit, over all taps together.

Bacho & Chu 2024, arXiv:2212.07282; Ren et al. 2023, arXiv:2210.03310; Baydin et al. 2022,
arXiv:2202.08587; Fluegel et al. 2025, arXiv:2410.17764.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = [
    "HiddenLayer",
    "Law",
    "Linearized",
    "fastest_rate",
    "fg_a",
    "fg_w",
    "innovation",
    "linearized",
    "momentum",
    "projection",
    "tangent_mean",
]


@dataclasses.dataclass(frozen=True)
class HiddenLayer:
    """A linear layer with a tap behind its activation, on one batch.

    Attributes:
        name: of the layer.
        inputs: x (N, m), and a last column of ones for the bias: (N, m + 1).
        gates: f'(a) (N, n).
        jacobian: dy/dh (N, K, n) of every sample.
    """

    name: str
    inputs: Tensor
    gates: Tensor
    jacobian: Tensor


@dataclasses.dataclass(frozen=True)
class Linearized:
    """A network of linear layers, on one batch.

    Attributes:
        error: e (N, K), of the mean cross-entropy.
        hidden: the layers with a tap.
        output: name of the last layer.
        output_inputs: what it reads, and ones: (N, m + 1).
    """

    error: Tensor
    hidden: Sequence[HiddenLayer]
    output: str
    output_inputs: Tensor

    @property
    def units(self) -> int:
        """n: of all taps together."""
        return sum(layer.jacobian.shape[2] for layer in self.hidden)

    def sizes(self) -> dict[str, int]:
        """How many weights each layer has, its bias among them.

        Returns:
            By the layer's name.
        """
        K = self.error.shape[1]
        found = {h.name: h.inputs.shape[1] * h.jacobian.shape[2] for h in self.hidden}
        return {**found, self.output: self.output_inputs.shape[1] * K}

    def credits(self) -> list[Tensor]:
        """q_l = e J_l, sample by sample: the exact credits.

        Returns:
            (N, n_l) for each tap.
        """
        return [torch.einsum("nk,nki->ni", self.error, h.jacobian) for h in self.hidden]

    def gradient(self, credits: Sequence[Tensor]) -> dict[str, Tensor]:
        """What blocks make of these credits; the last layer always has its exact error.

        Args:
            credits: (N, n_l) for each tap.

        Returns:
            (n, m + 1) by the layer's name, the bias last.
        """
        found = {
            h.name: (g * h.gates).T @ h.inputs for h, g in zip(self.hidden, credits, strict=True)
        }
        return {**found, self.output: self.error.T @ self.output_inputs}


@dataclasses.dataclass(frozen=True)
class Law:
    """What is to be expected of an estimate of the gradient.

    Attributes:
        mean: of it, (n, m + 1) by the layer's name, the bias last.
        variance: of all its components in a layer together.
    """

    mean: Mapping[str, Tensor]
    variance: Mapping[str, float]


def linearized(network: nn.Sequential, inputs: Tensor, labels: Tensor) -> Linearized:
    """Activations and Jacobians of a network, by the chain rule, in float64.

    Args:
        network: linear layers, each but the last with a ReLU behind it or nothing.
        inputs: (N, ...).
        labels: (N,).

    Returns:
        Everything that the laws need.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> found = linearized(network, torch.ones(4, 2), torch.tensor([0, 1, 1, 0]))
        >>> found.hidden[0].jacobian.shape
        torch.Size([4, 2, 3])
    """
    h = inputs.double().flatten(1)
    names, read, gates, weights = [], [], [], []
    for name, module in network.named_children():
        if isinstance(module, nn.Linear):
            weights.append(module.weight.detach().double())
            names.append(name)
            read.append(torch.cat([h, torch.ones_like(h[:, :1])], dim=1))
            h = torch.addmm(module.bias.detach().double(), h, weights[-1].T)
            gates.append(torch.ones_like(h))
        elif isinstance(module, nn.ReLU):
            gates[-1] = (h > 0).double()
            h = h * gates[-1]
    N, K = h.shape
    error = (h.softmax(1) - nn.functional.one_hot(labels, K)) / N
    jacobians = [weights[-1].expand(N, -1, -1)]  # dy/dh, from the last tap to the first
    for weight, gate in zip(weights[-2:0:-1], gates[-2:0:-1], strict=True):
        jacobians.append((jacobians[-1] * gate[:, None]) @ weight)
    hidden = map(HiddenLayer, names, read, gates, reversed(jacobians))
    return Linearized(error, list(hidden), names[-1], read[-1])


def fg_w(network: Linearized) -> Law:
    """``(v . g) v``, v normal: covariance ``|g|^2 I + g g^T``.

    Args:
        network: on its batch.

    Returns:
        The law.
    """
    return tangent_mean(network, 1)


def tangent_mean(network: Linearized, count: int) -> Law:
    """The mean of independent forward gradients.

    Args:
        network: on its batch.
        count: of them.

    Returns:
        The law.
    """
    g = network.gradient(network.credits())
    squares = {name: part.square().sum().item() for name, part in g.items()}
    whole = sum(squares.values())
    sizes = network.sizes()
    return Law(g, {name: (sizes[name] * whole + squares[name]) / count for name in g})


def projection(network: Linearized, count: int) -> Law:
    """The gradient's projection on a uniform random subspace.

    Of all P weights its share is ``s = |Pg|^2 / |g|^2 ~ Beta(k/2, (P - k)/2)``: s g, and beside it
    a vector of the squared length ``s (1 - s) |g|^2`` in any direction at right angles to g.

    Args:
        network: on its batch.
        count: k, dimensions of the subspace, fewer than weights.

    Returns:
        The law; the mean is k/P of the gradient.
    """
    g, sizes = network.gradient(network.credits()), network.sizes()
    squares = {name: part.square().sum().item() for name, part in g.items()}
    whole, P, k = sum(squares.values()), sum(sizes.values()), count
    mean, second = k / P, k * (k + 2) / (P * (P + 2))
    aside = (mean - second) / (P - 1)
    variance = {
        name: (second - mean**2) * squares[name] + aside * (sizes[name] * whole - squares[name])
        for name in g
    }
    return Law({name: mean * part for name, part in g.items()}, variance)


def fg_a(network: Linearized) -> Law:
    """``(e_n . d_n) p_n``, p normal: ``sum_n x_nj^2 f'_ni^2 (|q_n|^2 + q_ni^2)``.

    Args:
        network: on its batch.

    Returns:
        The law; the last layer is exact.
    """
    credits = network.credits()
    slopes = torch.stack([q.square().sum(1) for q in credits]).sum(0)  # |q_n|^2, (N,)
    variance = {network.output: 0.0}
    for h, q in zip(network.hidden, credits, strict=True):
        of_credit = h.gates.square() * (slopes[:, None] + q.square())  # (N, n)
        variance[h.name] = (h.inputs.square().sum(1) @ of_credit.sum(1)).item()
    return Law(network.gradient(credits), variance)


def momentum(network: Linearized, rate: float) -> Law:
    """``g = e B``, B the running average of ``d^T p / N``, in its stationary state.

    ``Cov(B_ki, B_k'i) = a / ((2 - a) N^2) sum_s ((J J^T)_kk' + J_ki J_k'i)``, with the Jacobian of
    sample s, in the first product over all taps.

    Args:
        network: on its batch.
        rate: a, of the average.

    Returns:
        The law. With ReLUs the mean is not the gradient: all samples share the mean Jacobian.
    """
    N = len(network.error)
    shared = _products(network, [h.jacobian for h in network.hidden])
    scale = rate / ((2 - rate) * N**2)
    covariances = [scale * (shared + _by_unit(h.jacobian)) for h in network.hidden]
    return _through_maps(network, covariances, 1.0)


def innovation(network: Linearized, rate: float, probes: int) -> Law:
    """``g = e B``, B from zero by ``B += (a / N) (d - sum_m p_m B_m^T)^T p``.

    With W = sum_s p p^T / N, J the mean Jacobian and D_s what sample s has beside it, the error
    E = J - B moves by ``E (I - a W) - (a / N) sum_s D_s p p^T``. Its second moments
    ``S_i = E[E_ki E_k'i]`` then follow

    ``S_i <- (1 - 2 a + a^2 (1 + 1/N)) S_i + (a^2 / N) sum_j S_j + (a / N)^2 C_i``,
    ``C_i = sum_s (D_ki D_k'i + (D D^T)_kk')``,

    and the sum over all n units by ``r = 1 - 2 a + a^2 (1 + (n + 1) / N)``. In a linear network
    D = 0, and the noise vanishes at that rate.

    Args:
        network: on its batch.
        rate: a.
        probes: that have taught the maps, t.

    Returns:
        The law; the mean is ``1 - (1 - a)^t`` of that with exact maps.
    """
    a, t, N, n = rate, probes, len(network.error), network.units
    means = [h.jacobian.mean(0) for h in network.hidden]
    spreads = [h.jacobian - mean for h, mean in zip(network.hidden, means, strict=True)]
    own = 1 - 2 * a + a**2 * (1 + 1 / N)
    mixing = a**2 / N
    total = own + n * mixing
    shared = _products(network, spreads) * (a / N) ** 2
    start = _products(network, [mean[None] for mean in means])
    fed = (n + 1) * shared  # what one probe adds to the sum over all units
    # geometric sums over u < t: of own^u, of total^u own^(t-1-u), and of all before
    of_own = (1 - own**t) / (1 - own)
    of_total = (total**t - own**t) / (total - own)
    mixed = mixing * (start * of_total + fed * (of_own - of_total) / (1 - total))
    covariances = []
    for mean, spread in zip(means, spreads, strict=True):
        squares = _by_unit(mean[None])
        noise = shared + (a / N) ** 2 * _by_unit(spread)
        covariances.append((own**t - (1 - a) ** (2 * t)) * squares + of_own * noise + mixed)
    return _through_maps(network, covariances, 1 - (1 - a) ** t)


def fastest_rate(network: Linearized) -> float:
    """``N / (N + n + 1)``, at which the innovation forgets its errors soonest.

    Args:
        network: on its batch.

    Returns:
        The rate; from twice that on the innovation is unstable.
    """
    N = len(network.error)
    return N / (N + network.units + 1)


def _through_maps(network: Linearized, covariances: Sequence[Tensor], learned: float) -> Law:
    """The law of ``e B``: Cov(B_ki, B_k'i) for every tap (n, K, K), and B = J to this share."""
    e = network.error
    credits = [learned * (e @ h.jacobian.mean(0)) for h in network.hidden]
    variance = {network.output: 0.0}
    for h, covariance in zip(network.hidden, covariances, strict=True):
        # The gradient is sum_k A_kij B_ki with A_kij = sum_n e_nk f'_ni x_nj.
        gated = h.gates.T[:, :, None] * e  # (n, N, K)
        squares = gated.mT @ (h.inputs @ h.inputs.T) @ gated  # sum_j A_kij A_k'ij
        variance[h.name] = (squares * covariance).sum().item()
    return Law(network.gradient(credits), variance)


def _by_unit(jacobian: Tensor) -> Tensor:
    """``sum_s J_ki J_k'i`` for every unit, (n, K, K)."""
    by_unit = jacobian.permute(2, 1, 0)  # (n, K, N)
    return by_unit @ by_unit.mT


def _products(network: Linearized, jacobians: Sequence[Tensor]) -> Tensor:
    """``sum_s J J^T`` over all taps, (K, K)."""
    K = network.error.shape[1]
    total = torch.zeros(K, K, dtype=torch.float64)
    for jacobian in jacobians:
        flat = jacobian.transpose(0, 1).flatten(1)  # (K, N n)
        total += flat @ flat.T
    return total

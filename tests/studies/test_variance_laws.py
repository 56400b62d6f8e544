"""The laws of ``fdfa reproduce variance``, against loops, and against naive draws."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from fdfa.studies.reproduce.variance import laws

N, INPUTS, WIDTH, K = 5, 4, 6, 3
RATE, TANGENTS, DRAWS = 0.2, 4, 20_000
FAST = 0.5  # of an average that is soon stationary


@dataclasses.dataclass(frozen=True)
class Net:
    """A network of two hidden layers on a batch, in the words of this file alone."""

    network: nn.Sequential
    inputs: Tensor
    labels: Tensor

    @staticmethod
    def of(kind: str) -> Net:
        torch.manual_seed(5)
        layers: list[nn.Module] = []
        for fan_in in (INPUTS, WIDTH):
            layers += [nn.Linear(fan_in, WIDTH), *([nn.ReLU()] if kind == "relu" else [])]
        network = nn.Sequential(*layers, nn.Linear(WIDTH, K)).double()
        return Net(network, torch.randn(N, INPUTS).double(), torch.randint(K, (N,)))

    def cut(self) -> list[nn.Sequential]:
        """The blocks: each hidden layer with its activation, and the last layer."""
        modules = list(self.network)
        size = (len(modules) - 1) // 2
        return [nn.Sequential(*modules[i : i + size]) for i in (0, size)] + [
            nn.Sequential(modules[-1])
        ]

    def taps(self) -> list[Tensor]:
        """h_1, h_2 and the output, each leaf of a graph of its own."""
        found, h = [], self.inputs
        for block in self.cut():
            h = block(h)
            found.append(h)
        return found

    def jacobians(self) -> list[Tensor]:
        """dy/dh (N, K, n) of each tap, sample by sample, by autograd."""
        blocks, found = self.cut(), []
        for number, h in enumerate(self.taps()[:-1]):
            behind = nn.Sequential(*blocks[number + 1 :])
            found.append(
                torch.stack([torch.autograd.functional.jacobian(behind, one) for one in h.detach()])
            )
        return found

    def error(self) -> Tensor:
        y = self.network(self.inputs).detach().requires_grad_()
        return torch.autograd.grad(nn.functional.cross_entropy(y, self.labels), y)[0]

    def gradient(self, credits: list[Tensor]) -> list[Tensor]:
        """Weight and bias of each hidden layer side by side, by autograd in each block."""
        found, h = [], self.inputs
        for block, g in zip(self.cut(), credits, strict=False):
            out = block(h)
            weight, bias = torch.autograd.grad(out, list(block.parameters()), g)
            found.append(torch.cat([weight, bias[:, None]], dim=1))
            h = out.detach()
        return found

    def exact(self) -> list[Tensor]:
        loss = nn.functional.cross_entropy(self.network(self.inputs), self.labels)
        flat = torch.autograd.grad(loss, list(self.network.parameters()))
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return [torch.cat([weight, bias[:, None]], dim=1) for weight, bias in pairs]

    def linear_in_credits(self) -> list[Tensor]:
        """For each hidden layer the gradient of every unit credit, (N, n, n, m + 1)."""
        found = []
        for number in (0, 1):
            rows = []
            for sample in range(N):
                for unit in range(WIDTH):
                    credits = [torch.zeros(N, WIDTH).double() for _ in range(2)]
                    credits[number][sample, unit] = 1.0
                    rows.append(self.gradient(credits)[number])
            found.append(torch.stack(rows).view(N, WIDTH, WIDTH, -1))
        return found


def draws_of(rule: str, net: Net, probes: int) -> list[Tensor]:
    """Gradients (R, n, m + 1) of each layer, all at once."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(DRAWS, *shape, generator=generator, dtype=torch.float64)

    e = net.error()
    if rule in ("mean", "projection"):
        exact = net.exact()
        g = torch.cat([part.flatten() for part in exact])
        V = normal(TANGENTS, len(g))
        c = V @ g
        weights = c / TANGENTS
        if rule == "projection":
            weights = torch.linalg.solve(V @ V.mT, c)
        flat = torch.einsum("rk,rkp->rp", weights, V)
        parts = flat.split([part.numel() for part in exact], dim=1)
        return [part.view(DRAWS, *like.shape) for part, like in zip(parts, exact, strict=True)]
    J = torch.cat(net.jacobians(), dim=2)  # (N, K, all units)
    B = torch.zeros(DRAWS, K, 2 * WIDTH, dtype=torch.float64)
    if rule == "momentum":  # whose mean need not be waited for
        B += J.mean(0)
    for _ in range(probes):
        p = normal(N, 2 * WIDTH)
        d = torch.einsum("nku,rnu->rnk", J, p)
        if rule == "momentum":
            B = (1 - FAST) * B + FAST / N * d.mT @ p
        elif rule == "innovation":
            B = B + RATE / N * (d - p @ B.mT).mT @ p
    credits = e @ B  # (R, N, units)
    if rule == "fg-a":
        credits = (e * d).sum(2, keepdim=True) * p
    return [
        torch.einsum("rsu,suij->rij", credit, linear)
        for credit, linear in zip(credits.split(WIDTH, dim=2), net.linear_in_credits(), strict=True)
    ]


LAWS = {
    "fg-a": (laws.fg_a, 1),
    "momentum": (lambda network: laws.momentum(network, FAST), 6),  # 0.5^12 is not seen
    "innovation": (lambda network: laws.innovation(network, RATE, 4), 4),
    "mean": (lambda network: laws.tangent_mean(network, TANGENTS), 0),
    "projection": (lambda network: laws.projection(network, TANGENTS), 0),
}


def standard_errors(law: laws.Law, drawn: list[Tensor]) -> tuple[list[float], list[float]]:
    """How far mean squares and means lie from the law, layer by layer."""
    of_squares, of_means = [], []
    for name, draws in zip(law.mean, drawn, strict=False):
        off = draws - law.mean[name]
        squares = off.square().sum((1, 2))
        error = squares.std().item() / math.sqrt(DRAWS)
        of_squares.append((squares.mean().item() - law.variance[name]) / error)
        # along one fixed direction: many components would have a large one among them
        along = off.sum((1, 2))
        of_means.append((along.mean() / along.std()).item() * math.sqrt(DRAWS))
    return of_squares, of_means


@pytest.mark.parametrize("kind", ["linear", "relu"])
@pytest.mark.parametrize("rule", LAWS)
def test_naive_draws_have_the_mean_and_the_variance(rule: str, kind: str) -> None:
    net = Net.of(kind)
    make, probes = LAWS[rule]
    network = laws.linearized(net.network, net.inputs, net.labels)
    law = make(network)
    drawn = draws_of(rule, net, probes)
    of_squares, of_means = standard_errors(law, drawn)
    assert max(map(abs, of_squares)) < 4
    assert max(map(abs, of_means)) < 4
    # and of a law that is 10 % off they have not
    wrong = dataclasses.replace(law, variance={n: 1.1 * v for n, v in law.variance.items()})
    assert max(standard_errors(wrong, drawn)[0], key=abs) < -4


def test_the_innovation_settles_where_samples_disagree() -> None:
    """After many probes its noise is that which the spread of the Jacobians feeds."""
    net = Net.of("relu")
    network = laws.linearized(net.network, net.inputs, net.labels)
    law = laws.innovation(network, RATE, 10)
    of_squares, of_means = standard_errors(law, draws_of("innovation", net, 10))
    assert max(map(abs, (*of_squares, *of_means))) < 4
    settled, later = (laws.innovation(network, RATE, t).variance for t in (100, 1000))
    assert later == pytest.approx(settled, rel=1e-6)
    assert later["0"] > 1e-6
    # the last tap's Jacobian is one matrix, yet noise comes to it from the other tap
    assert later["2"] > 1e-6


def test_in_a_linear_network_its_noise_vanishes_at_the_rate_of_the_law() -> None:
    net = Net.of("linear")
    network = laws.linearized(net.network, net.inputs, net.labels)
    rate = laws.fastest_rate(network)
    assert rate == N / (N + 2 * WIDTH + 1)
    early, late = (sum(laws.innovation(network, rate, t).variance.values()) for t in (100, 110))
    # r = 1 - 2 a + a^2 (N + n + 1) / N, which is 1 - a at the fastest rate
    assert late / early == pytest.approx((1 - rate) ** 10, rel=1e-2)


@pytest.mark.parametrize("kind", ["linear", "relu"])
def test_derivatives_are_autograds(kind: str) -> None:
    net = Net.of(kind)
    network = laws.linearized(net.network, net.inputs, net.labels)
    torch.testing.assert_close(network.error, net.error())
    for layer, jacobian in zip(network.hidden, net.jacobians(), strict=True):
        torch.testing.assert_close(layer.jacobian, jacobian)
    found = network.gradient(network.credits()).values()
    for part, exact in zip(found, net.exact(), strict=True):
        torch.testing.assert_close(part, exact)


def test_every_component_of_a_linear_network_obeys_the_bound() -> None:
    """Component by component as METHODS has them; the laws are their sums."""
    net = Net.of("linear")
    network = laws.linearized(net.network, net.inputs, net.labels)
    e, J = net.error(), [jacobian[0] for jacobian in net.jacobians()]  # (K, n) of each tap
    inputs = [net.inputs, net.taps()[0].detach()]
    sums = {"fg-a": [0.0, 0.0], "momentum": [0.0, 0.0]}
    share = RATE / (2 - RATE)
    for number, x in enumerate(inputs):
        x = torch.cat([x, torch.ones(N, 1)], dim=1)
        for j in range(x.shape[1]):
            C = sum(x[n, j] * e[n] for n in range(N))  # (K,)
            along = torch.cat([C @ tap for tap in J])
            for i in range(WIDTH):
                fg_a = 0.0
                for n in range(N):
                    q = torch.cat([e[n] @ tap for tap in J])
                    own = e[n] @ J[number][:, i]
                    fg_a += (x[n, j] ** 2 * (q @ q + own**2)).item()
                ours = (share / N * (along @ along + (C @ J[number][:, i]) ** 2)).item()
                assert ours <= share * fg_a
                sums["fg-a"][number] += fg_a
                sums["momentum"][number] += ours
    hidden = [layer.name for layer in network.hidden]
    for law, by_layer in (
        (laws.fg_a(network), sums["fg-a"]),
        (laws.momentum(network, RATE), sums["momentum"]),
    ):
        assert [law.variance[name] for name in hidden] == pytest.approx(by_layer, rel=1e-12)
        assert law.variance[network.output] == 0.0


def test_of_a_single_sample_the_bound_is_met_with_equality() -> None:
    net = Net.of("relu")
    network = laws.linearized(net.network, net.inputs[:1], net.labels[:1])
    theirs = laws.fg_a(network).variance
    bound = {name: RATE / (2 - RATE) * variance for name, variance in theirs.items()}
    assert laws.momentum(network, RATE).variance == pytest.approx(bound)


def test_totals_of_the_rules_that_perturb_weights() -> None:
    """(P + 1) |g|^2 / k for means, k/P (1 - k/P) |g|^2 for projections, (1 - k/P)^2 its bias."""
    net = Net.of("relu")
    network = laws.linearized(net.network, net.inputs, net.labels)
    g = torch.cat([part.flatten() for part in net.exact()])
    P, square = len(g), g.square().sum().item()
    assert sum(network.sizes().values()) == P
    assert sum(laws.fg_w(network).variance.values()) == pytest.approx((P + 1) * square)
    mean = laws.tangent_mean(network, 4)
    assert sum(mean.variance.values()) == pytest.approx((P + 1) * square / 4)
    projection = laws.projection(network, 4)
    assert sum(projection.variance.values()) == pytest.approx(4 / P * (1 - 4 / P) * square)
    off = torch.cat([part.flatten() for part in projection.mean.values()]) - g
    assert off.square().sum().item() == pytest.approx((1 - 4 / P) ** 2 * square)

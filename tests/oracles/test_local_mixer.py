"""LocalMixer: its formula by loops, and a loss for every patch and group with all copies made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa import models
from fdfa.engine.probes import Probe
from tests.oracles.statistics import LIMIT, mean_deviation, variance_deviation

PATCHES, GROUPS, WIDTH, CLASSES = 4, 2, 3, 5
PASSES = 4000
Stage = Callable[[Tensor, Tensor], Tensor]


def mixer(depth: int = 2) -> nn.Module:
    network = models.local_mixer(
        image=(2, 4, 4), classes=CLASSES, patch=2, dim=GROUPS * WIDTH, depth=depth, groups=GROUPS
    )
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network.double()


def with_heads(network: nn.Module, x: Tensor) -> fdfa.LocalHeads:
    heads = fdfa.LocalHeads(network, x)
    for parameter in heads.heads.parameters():
        nn.init.normal_(parameter)
    return heads


def batch(size: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 2, 4, 4).double(), torch.randint(CLASSES, (size,))


def normalised(v: Tensor) -> Tensor:
    """One vector less its mean, by its standard deviation."""
    v = v - v.mean()
    return v / (v.square().mean() + 1e-5).sqrt()


def test_the_network_is_the_formula() -> None:
    """Vector by vector: norms over a token's channels, in grouped layers over the group's."""
    network, (x, _) = mixer(), batch(1)
    first, second = network.blocks
    corners = [(top, left) for top in (0, 2) for left in (0, 2)]
    tokens = [x[0, :, top : top + 2, left : left + 2].flatten() for top, left in corners]

    def across_channels(layer: nn.Module, v: Tensor) -> Tensor:
        return normalised(layer.weight @ normalised(v) + layer.bias).view(GROUPS, WIDTH)

    def within_groups(layer: nn.Module, v: Tensor) -> Tensor:
        biases = layer.bias.view(GROUPS, WIDTH)
        return torch.stack(
            [
                normalised(normalised(v[g]) @ layer.weight[g] + biases[g])  # z_j = sum_i w_ij x_i
                for g in range(GROUPS)
            ]
        )

    h = [across_channels(first.mix_channels, token).relu() for token in tokens]
    h = [within_groups(first.mix_group, v).relu() for v in h]
    flat = torch.stack([normalised(v.flatten()) for v in h])
    mixed = second.mix_tokens.weight @ flat + second.mix_tokens.bias[:, None]
    y = [normalised(v).relu() for v in mixed]
    y = [across_channels(second.mix_channels, v).relu() for v in y]
    y = [within_groups(second.mix_group, v) for v in y]
    y = [(v + before).relu() for v, before in zip(y, h, strict=True)]
    mean = torch.stack([v.flatten() for v in y]).mean(0)
    expected = network.output.weight @ normalised(mean) + network.output.bias
    torch.testing.assert_close(network(x)[0], expected, rtol=1e-10, atol=1e-12)


NAMED = {
    "S/1/1": (271_892, {"image": (1, 28, 28), "patch": 28, "dim": 256, "depth": 1, "groups": 1}),
    "M/1/16": (429_076, {"image": (1, 28, 28), "patch": 28, "dim": 512, "depth": 1}),
    "M/8/16": (918_770, {}),
    "L/8/64": (13_074_674, {"dim": 2048, "groups": 64}),
    "L/32/64": (
        17_335_796,
        {"image": (3, 224, 224), "classes": 100, "patch": 7, "dim": 2048, "groups": 64},
    ),
}
PAPER = {"S/1/1": 272e3, "M/1/16": 429e3, "M/8/16": 919e3, "L/8/64": 13.1e6, "L/32/64": 17.3e6}


@pytest.mark.parametrize("name", NAMED)
def test_the_papers_numbers_of_parameters(name: str) -> None:
    """With the heads; of ImageNet with its 100 classes."""
    count, sizes = NAMED[name]
    with torch.device("meta"):
        network = models.local_mixer(**sizes)
        parts = (network, *network.local_heads().values())
    assert sum(p.numel() for part in parts for p in part.parameters()) == count
    digits = 1e3 if PAPER[name] < 1e6 else 1e5
    assert round(count / digits) == round(PAPER[name] / digits)


def test_the_start_of_the_weights() -> None:
    network = models.local_mixer(dim=1024)
    linear = network.blocks[1]
    for layer, fan_in in ((linear.mix_tokens, 64), (linear.mix_channels, 1024)):
        deviation = min(2 / fan_in**0.5, 0.1)
        assert abs(layer.weight.std() / deviation - 1) < 4 / (2 * layer.weight.numel()) ** 0.5
    assert abs(linear.mix_group.weight.std() / 0.1 - 1) < 4 / (2 * 16 * 64 * 64) ** 0.5
    head = network.local_heads()["blocks.0"]
    zeros = [linear.mix_group.bias, network.output.weight, *head.parameters()]
    assert not any(parameter.any() for parameter in zeros)


def all_copies(head: nn.Module, h: Tensor) -> Tensor:
    """(N, P, G, K): the result for each patch and group, which alone passes derivatives on."""
    z = (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    copies = []
    for patch in range(z.shape[1]):
        for group in range(z.shape[2]):
            own = torch.zeros(z.shape[1:], dtype=z.dtype)
            own[patch, group] = 1
            kept = z * own + (z * (1 - own)).detach()
            averaged = kept.flatten(2).mean(1)
            copies.append(averaged @ head.weight.T + head.bias)
    return torch.stack(copies, 1).unflatten(1, z.shape[1:3])


def errors(y: Tensor, target: Tensor) -> Tensor:
    """Of the result, the gradient of the mean loss."""
    y = y.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(y, target), y)[0]


def test_replicated_aggregation_without_its_copies() -> None:
    """Equal values; in reverse the sum of all copies; forwards one derivative a copy."""
    (head,) = mixer(1).local_heads().values()
    for parameter in head.double().parameters():
        nn.init.normal_(parameter)
    h = torch.randn(3, PATCHES, GROUPS, WIDTH).double().requires_grad_()
    t, (_, target) = torch.randn_like(h), batch()
    copies = all_copies(head, h)
    for patch in range(PATCHES):
        for group in range(GROUPS):
            torch.testing.assert_close(copies[:, patch, group], head(h), rtol=1e-10, atol=1e-12)
    e = errors(head(h), target)
    (expected,) = torch.autograd.grad((copies * e[:, None, None]).sum(), h, retain_graph=True)
    (found,) = torch.autograd.grad((head(h) * e).sum(), h)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    _, d = torch.func.jvp(lambda h: all_copies(head, h), (h.detach(),), (t,))
    _, tangent = torch.func.jvp(head.parts, (h.detach(),), (t,))
    slopes = (d * e[:, None, None]).sum(-1)
    torch.testing.assert_close(head.slopes(tangent, e), slopes, rtol=1e-10, atol=1e-12)
    assert torch.equal(head.spread(slopes, 4)[..., 0], slopes)
    assert torch.equal(head.spread(slopes, 3)[..., 0], slopes[:, :, 0] + slopes[:, :, 1])


def stages(block: nn.Module) -> list[Stage]:
    """From tap to tap; each also gets what entered the block."""
    if not hasattr(block, "mix_tokens"):
        return [
            lambda h, _: block.relu1(block.mix_channels(h)),
            lambda h, _: block.relu2(block.mix_group(h)),
        ]
    return [
        lambda h, _: block.relu1(block.mix_tokens(h.flatten(2))),
        lambda h, _: block.relu2(block.mix_channels(h)),
        lambda h, start: block.relu3(block.mix_group(h) + start),
    ]


def drawn(shapes: list[torch.Size], seed: int, noise: str) -> list[Tensor]:
    """The perturbations of (seed, first step, rank 0), as the probe's docstring promises them."""
    count = len(shapes)
    return Probe(noise=noise).draw(
        shapes, [torch.float64] * count, [torch.device("cpu")] * count, seed, 0, 0
    )


@pytest.mark.parametrize("masked", [False, True], ids=["all units", "active units"])
def test_lg_fg_a_is_the_naive_loop_over_copies(masked: bool) -> None:
    """Each unit's noise times the slope of its copy, before the channels mix of its patch's."""
    network, (x, target) = mixer(3), batch()
    heads = with_heads(network, x)
    learner = fdfa.wrap("lg-fg-a", heads, seed=5, mask_inactive=masked)
    learner.criterion(F.cross_entropy)(learner(x), target).backward()
    plan = learner.plan(x)
    noises = iter(drawn([torch.Size(tap.shape) for tap in plan.taps], 5, "normal"))
    total, start = torch.zeros(()).double(), F.unfold(x, 2, stride=2).transpose(1, 2)
    for block, head in zip(network.blocks, heads.heads, strict=True):
        maps, h, tapped, p = stages(block), start, [], []
        for stage in maps:
            h = stage(h.detach(), start)
            tapped.append(h)
            noise = next(noises)
            p.append(noise * (h != 0) if masked else noise)

        def copies(*moves: Tensor, maps=maps, start=start, head=head) -> Tensor:
            h = start
            for stage, move in zip(maps, moves, strict=True):
                h = stage(h, start) + move
            return all_copies(head, h)

        y, d = torch.func.jvp(copies, tuple(map(torch.zeros_like, p)), tuple(p))
        e = errors(y[:, 0, 0], target)
        c = (d.detach() * e[:, None, None]).sum(-1)  # (N, P, G)
        for h, noise in zip(tapped, p, strict=True):
            slope = c[..., None] if h.dim() == 4 else c.sum(2, keepdim=True)
            total = total + (h * slope * noise).sum()
        start = tapped[-1].detach()
        total = total + F.cross_entropy(head(start), target)
    last = start.flatten(2).mean(1)
    total = total + F.cross_entropy(network.output(F.layer_norm(last, last.shape[-1:])), target)
    expected = torch.autograd.grad(total, list(heads.parameters()))
    found = [parameter.grad for parameter in heads.parameters()]
    torch.testing.assert_close(found, list(expected), rtol=1e-8, atol=1e-10)


class Watched(nn.Module):
    """A layer that keeps the gradient of what it returns: at a tap, the credit."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.seen = torch.empty(0)

    def keep(self, gradient: Tensor) -> None:
        self.seen = gradient.clone()

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if y.requires_grad:
            y.register_hook(self.keep)
        return y


def test_lg_fg_a_is_l_bp_in_the_mean_and_its_variance_that_of_a_copy() -> None:
    network, (x, target) = mixer(), batch(1)
    block = network.blocks[1]
    start = network.blocks[0](F.unfold(x, 2, stride=2).transpose(1, 2)).detach()
    maps, h, tapped = stages(block), start, []
    for stage in maps:
        h = stage(h, start)
        h.retain_grad()
        tapped.append(h)
    heads = with_heads(network, x)
    head = heads.heads[1]
    copies, e = all_copies(head, h), errors(head(h), target)
    losses = (copies * e[:, None, None]).sum(-1)  # of each copy, up to a constant
    places = {"all": losses.sum(), "one": losses[0, 1, 0]}
    truth = {k: torch.autograd.grad(loss, tapped, retain_graph=True) for k, loss in places.items()}
    block.relu1, block.relu2 = watched = Watched(block.relu1), Watched(block.relu2)
    taps = ["blocks.1.relu1", "blocks.1.relu2"]
    learner = fdfa.wrap("lg-fg-a", heads, seed=5, taps=taps)
    criterion = learner.criterion(lambda y, t: F.cross_entropy(y, t, reduction="sum"))
    criterion(learner(x.expand(PASSES, 2, 4, 4)), target.expand(PASSES)).backward()
    for layer, expected in zip(watched, truth["all"], strict=False):
        assert mean_deviation(layer.seen, expected[0]) < LIMIT
        assert mean_deviation(layer.seen, expected[0] * 1.5) > LIMIT
    q = truth["one"]
    own = q[1][0, 1, 0]
    variance = sum(each.square().sum() for each in q) + own.square()
    assert variance_deviation(watched[1].seen[:, 1, 0], variance) < LIMIT

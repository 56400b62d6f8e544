"""Random perturbations at the taps.

Drawn from a counter, so that a seed and a step number say them all.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fdfa.errors import ConfigError, unknown_name

__all__ = ["Probe", "draw_noise", "generator_for"]

_IN_CACHE = 2**15


@dataclasses.dataclass(frozen=True)
class Probe:
    """How a method perturbs the taps and measures what that does to the output.

    Attributes:
        noise: ``"normal"`` (the paper's) or ``"rademacher"`` (+-1: a lower variance, and drawn as
            bits).
        derivative: ``"forward-ad"``, exact; or ``"finite-difference"``, a second forward pass, for
            what has no forward derivative.
        every: probe one learning step in this many; the first one probes.
        first: probe each of the first so many steps.
        difference_step: length of the finite difference; None takes 1e-3, or 1e-5 in float64.
        active_only: units at zero are not perturbed.

    Raises:
        ConfigError: if a value is not among those listed.

    Example:
        >>> Probe(noise="rademacher", every=4).due(step=8)
        True
    """

    noise: Literal["normal", "rademacher"] = "normal"
    derivative: Literal["forward-ad", "finite-difference"] = "forward-ad"
    every: int = 1
    difference_step: float | None = None
    active_only: bool = False
    first: int = 0

    def __post_init__(self) -> None:
        """Check every value."""
        if self.noise not in _DRAWS:
            raise ConfigError(unknown_name("noise", str(self.noise), list(_DRAWS)))
        if self.derivative not in ("forward-ad", "finite-difference"):
            raise ConfigError(
                unknown_name("probe", str(self.derivative), ["forward-ad", "finite-difference"])
            )
        if isinstance(self.first, bool) or not isinstance(self.first, int) or self.first < 0:
            raise ConfigError(
                f"probe_first={self.first!r}: how many steps, from the first on, probe each? Pass a"
                " whole number from 0 up."
            )
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ConfigError(
                f"probe_every={self.every!r}: one step in how many probes? Pass a whole number from"
                " 1 up."
            )
        step = self.difference_step
        if step is not None and not (isinstance(step, (int, float)) and 0 < step < math.inf):
            raise ConfigError(
                f"difference_step={self.difference_step!r}: pass a positive length, such as 1e-3."
            )

    def due(self, step: int) -> bool:
        """Whether this learning step probes."""
        return step < self.first or step % self.every == 0

    def draw(
        self,
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[torch.dtype],
        devices: Sequence[torch.device],
        *seeds: int,
    ) -> list[Tensor]:
        """Independent perturbations for all taps: a function of the seeds alone.

        Args:
            shapes: of the taps, in order.
            dtypes: of the perturbations, float32 or float64.
            devices: of the taps.
            *seeds: integers such as seed, step and process.

        Returns:
            One perturbation p_l a tap, of its shape, with zero mean and unit variance.
        """
        sizes = [math.prod(shape) for shape in shapes]
        kinds = list(zip(dtypes, devices, strict=True))
        places = enumerate(dict.fromkeys(devices))  # no two devices draw the same numbers
        generators = {device: generator_for(device, *seeds, n) for n, device in places}
        streams = {}
        for kind in dict.fromkeys(kinds):  # all taps of one kind are drawn by one call
            dtype, device = kind
            wanted = [size for size, other in zip(sizes, kinds, strict=True) if other == kind]
            drawn = _DRAWS[self.noise](sum(wanted), dtype, generators[device])
            streams[kind] = iter(torch.split(drawn, wanted))
        return [next(streams[kind]).view(*shape) for kind, shape in zip(kinds, shapes, strict=True)]


def draw_noise(
    noise: str,
    shape: Sequence[int],
    dtype: torch.dtype,
    generator: torch.Generator,
    scale: float | Tensor | None = None,
) -> Tensor:
    """Independent numbers of zero mean and unit variance.

    Args:
        noise: ``"normal"`` or ``"rademacher"``.
        shape: of the tensor.
        dtype: float32 or float64.
        generator: draws them, where it lives.
        scale: a factor on all of them, at no cost; None for none.

    Returns:
        The tensor, contiguous.
    """
    return _DRAWS[noise](math.prod(shape), dtype, generator, scale).view(*shape)


def _normal(
    count: int,
    dtype: torch.dtype,
    generator: torch.Generator,
    scale: float | Tensor | None = None,
) -> Tensor:
    drawn = torch.empty(count, dtype=dtype, device=generator.device)
    # torch goes over them twice: on a CPU in pieces that stay in its cache
    on_cpu = generator.device.type == "cpu"
    for part in torch.split(drawn, _IN_CACHE) if on_cpu else [drawn]:
        part.normal_(generator=generator)
        if scale is not None:
            part.mul_(scale)
    return drawn


def _rademacher(
    count: int,
    dtype: torch.dtype,
    generator: torch.Generator,
    scale: float | Tensor | None = None,
) -> Tensor:
    """Signs, unpacked from random words by a table: a fraction of the cost of normal numbers."""
    words = torch.empty(-(-count // 64), dtype=torch.int64, device=generator.device)
    words.random_(-(2**63), None, generator=generator)
    table = _sign_table(dtype, generator.device)
    if scale is not None:
        table = table * scale
    return torch.embedding(table, words.view(torch.uint8).int()).view(-1)[:count]


@functools.lru_cache(maxsize=16)
def _sign_table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Row b holds the eight bits of the byte b as -1 and +1."""
    bits = torch.arange(256)[:, None] >> torch.arange(8)
    return ((bits & 1) * 2 - 1).to(dtype=dtype, device=device)


_DRAWS = {"normal": _normal, "rademacher": _rademacher}


def generator_for(device: torch.device, *numbers: int) -> torch.Generator:
    """A generator that is a function of these numbers alone (seed, step, rank, ...).

    Args:
        device: where it draws.
        numbers: any integers; neighbours give unrelated streams.

    Returns:
        A freshly seeded generator.
    """
    state = 0
    for number in numbers:
        state = _mix(state ^ (number & _MASK))
    return torch.Generator(device).manual_seed(state)


_MASK = (1 << 64) - 1


def _mix(z: int) -> int:
    """One step of splitmix64 (Steele, Lea & Flood 2014)."""
    z = (z + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)

"""Several tangents for one gradient: how they lie to each other, and how they are put together."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor

from fdfa.errors import ConfigError, ProbeError, unknown_name

__all__ = ["REDRAWS", "TangentSet", "independent"]

REDRAWS = 100
_COMBINATIONS = ("projection", "mean", "sum")
_TANGENTS = ("normal", "rademacher", "orthonormal", "angle")


@dataclasses.dataclass(frozen=True)
class TangentSet:
    """What a method does with k tangents V (k, n) and ``c = V g``.

    Attributes:
        count: k.
        combine: ``"projection"``, ``V^T (V V^T)^{-1} c``; ``"mean"``, ``V^T c / k``; or ``"sum"``.
        unbiased: multiply the projection by n/k.
        tangents: ``"normal"``; ``"rademacher"``; ``"orthonormal"``, a uniform set at right angles,
            of length sqrt(n); or ``"angle"``: the first uniform, every other one at ``angle`` to
            it, of the same length.
        angle: degrees, in (0, 90].
        length_correction: divide the projection by the share of the gradient's length that it has
            on average, chi_k / chi_n for a uniform span.

    Raises:
        ConfigError: if an option is unknown or out of range.

    Example:
        >>> set = TangentSet(count=2, tangents="orthonormal")
        >>> V = set.shaped(torch.randn(2, 8, dtype=torch.float64))
        >>> bool(torch.allclose(V @ V.T, 8 * torch.eye(2).double()))
        True
    """

    count: int = 4
    combine: Literal["projection", "mean", "sum"] = "projection"
    unbiased: bool = False
    tangents: Literal["normal", "rademacher", "orthonormal", "angle"] = "normal"
    angle: float = 90.0
    length_correction: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise ConfigError(
                f"count={self.count!r}: how many tangents a step? Pass a number from 1 up."
            )
        if self.combine not in _COMBINATIONS:
            raise ConfigError(unknown_name("combine", str(self.combine), _COMBINATIONS))
        if self.tangents not in _TANGENTS:
            raise ConfigError(unknown_name("tangents", str(self.tangents), _TANGENTS))
        if self.unbiased and self.combine != "projection":
            raise ConfigError(
                "unbiased=True goes with combine='projection' only, not with"
                f" {self.combine!r}: the mean is unbiased as it is. Leave unbiased= away."
            )
        if self.length_correction and (self.unbiased or self.combine != "projection"):
            raise ConfigError(
                "length_correction=True is for combine='projection' without unbiased=True: one"
                " factor at a time. Leave one of them away."
            )
        if not isinstance(self.angle, (int, float)) or not 0 < self.angle <= 90:
            raise ConfigError(
                f"angle={self.angle!r}: the degrees between tangents lie in (0, 90]. Pass 90 for"
                " right angles to the first."
            )

    @property
    def noise(self) -> Literal["normal", "rademacher"]:
        """Of what it is made."""
        return "rademacher" if self.tangents == "rademacher" else "normal"

    @property
    def lies_as_drawn(self) -> bool:
        """Whether :meth:`shaped` has nothing to do."""
        return self.tangents in ("normal", "rademacher")

    @property
    def needs_gram(self) -> bool:
        """Whether a set must be known to be independent."""
        return self.combine == "projection" or self.tangents == "rademacher"

    def scale(self, k: int, n: int) -> float:
        """The factor on ``V^T c``, or on the projection.

        Args:
            k: tangents taken.
            n: the dimension of the space.

        Returns:
            1/k for the mean; for the projection n/k if unbiased, chi_n / chi_k with its length
            corrected; else 1.
        """
        if self.combine == "mean":
            return 1.0 / k
        if self.length_correction:
            return _chi(n) / _chi(k)
        return n / k if self.unbiased else 1.0

    def shaped(self, V: Tensor) -> Tensor:
        """Normal tangents brought to the angles of this set.

        Args:
            V: (..., k, n), float64 where the device has it.

        Returns:
            Of the same shape.
        """
        length = math.sqrt(V.shape[-1])
        if self.tangents == "orthonormal":
            return _orthonormal(V) * length
        if self.tangents == "angle":
            return _at_angle(V, self.angle) * length
        return V

    def dependent(self, k: int) -> ProbeError:
        """What to raise where a set of k has no Cholesky factor."""
        return ProbeError(
            f"the {k} tangents ({self.tangents}) are linearly dependent: their Gram matrix has no"
            " Cholesky factor. Pass fewer (count=), another kind (tangents='orthonormal'), or"
            " combine='mean', which needs none."
        )


def _chi(dimensions: int) -> float:
    """The mean length of a normal vector."""
    return math.sqrt(2) * math.exp(math.lgamma((dimensions + 1) / 2) - math.lgamma(dimensions / 2))


def _orthonormal(V: Tensor) -> Tensor:
    """A uniform orthonormal set: QR with the signs of R's diagonal taken out (Mezzadri 2007)."""
    Q, R = torch.linalg.qr(V.mT)
    uniform: Tensor = (Q * R.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]).mT
    return uniform


def _at_angle(V: Tensor, degrees: float) -> Tensor:
    first = V[..., :1, :]
    first = first / first.norm(dim=-1, keepdim=True)
    rest = V[..., 1:, :]
    rest = rest - (rest @ first.mT) * first
    rest = rest / rest.norm(dim=-1, keepdim=True)
    alpha = math.radians(degrees)
    return torch.cat([first, math.cos(alpha) * first + math.sin(alpha) * rest], -2)


def independent(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The Cholesky factor of Gram matrices, and which of them have one.

    Args:
        gram: ``V V^T`` (..., k, k).

    Returns:
        The factors, and for each whether the set is independent (...).
    """
    factor, failed = torch.linalg.cholesky_ex(gram)
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    # a pivot is what of a tangent is new, beside its length: rounding leaves 1e-8 of it
    new = (diagonal > 1e-6 * diagonal.amax(-1, keepdim=True)).all(-1)
    return factor, (failed == 0) & new

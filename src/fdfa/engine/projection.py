"""One projection of the output error on few dimensions, shared by all feedback maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from fdfa.engine.distributed import sum_over_processes
from fdfa.engine.feedback import WideBuffers, in_bytes
from fdfa.engine.subspace import check_projection, correlate, oja_step, orthonormal_rows
from fdfa.errors import ConfigError, UnsupportedModelError

__all__ = ["Projection", "make_projection", "projection_conflicts"]


class Projection(WideBuffers):
    """P of shape (r, K), with orthonormal rows, made on the first forward pass.

    Feedback maps then hold r rows instead of K: a map's credit is ``(e P^T) B``, and what it learns
    from is projected as e is.

    Args:
        rank: r; all K dimensions where they are fewer.
        learns: by Oja's subspace rule on the output error; else P stays as drawn.
        rate: of the rule, in (0, 1).

    Example:
        >>> projection = Projection(rank=2)
        >>> projection.ensure(5, like=torch.ones(1), generator=torch.Generator(), size_limit=2**20)
        2
        >>> projection(torch.ones(3, 5)).shape
        torch.Size([3, 2])
    """

    def __init__(self, *, rank: int, learns: bool = False, rate: float = 0.05) -> None:
        super().__init__()
        self.rank = rank
        self.learns = learns
        self.rate = rate

    @property
    def weight(self) -> Tensor:
        """Buffer P, never narrower than float32."""
        return cast(Tensor, self._buffers["weight"])

    def ensure(
        self, outputs: int, *, like: Tensor, generator: torch.Generator, size_limit: int
    ) -> int:
        """Make P if it is not there yet; check its shape if it is.

        Args:
            outputs: K.
            like: a tensor with the device and dtype that it goes with.
            generator: draws it.
            size_limit: bytes that it may take.

        Returns:
            Its number of rows.

        Raises:
            UnsupportedModelError: if it would be larger than the limit, or if it was made for
                another number of outputs.
        """
        rows = min(self.rank, outputs)
        if "weight" in self._buffers:
            known = self.weight.shape[1]
            if known != outputs:
                raise UnsupportedModelError(
                    f"the output has {outputs} components, but the projection before the feedback"
                    f" maps was made for {known}: it is tied to one number. Use another learner, or"
                    " sample_dims=2 for sequences."
                )
            return rows
        wide = torch.promote_types(like.dtype, torch.float32)
        size = rows * outputs * wide.itemsize
        if size > size_limit:
            raise UnsupportedModelError(
                f"the projection of the output error would hold {rows} x {outputs} numbers,"
                f" {in_bytes(size)}, over the limit of {in_bytes(size_limit)}. Pass a smaller rank,"
                " sample_dims=2 for dense outputs, or raise feedback_size_limit (bytes)."
            )
        self._buffers["weight"] = orthonormal_rows(
            (rows, outputs), like=like.to(wide), generator=generator
        )
        return rows

    def forward(self, e: Tensor) -> Tensor:
        """``e P^T``, (N, r), of a matrix (N, K), as wide as P whatever autocast is in force."""
        with torch.autocast(e.device.type, enabled=False):
            return torch.mm(e.to(self.weight.dtype), self.weight.T)

    def learn(self, e: Tensor) -> None:
        """Turn P by the output errors (N, K) of all processes, where it learns."""
        if self.learns:
            P = self.weight
            _, (sums,) = sum_over_processes(1, [lambda: correlate(P, e)], like=P)
            self._buffers["weight"] = oja_step(P, sums, self.rate)

    def fits(self, P: Tensor) -> bool:
        """Whether a saved P can be this projection's."""
        here = self._buffers.get("weight")
        if here is not None:
            return P.shape == here.shape
        return P.dim() == 2 and P.shape[0] == min(self.rank, P.shape[1])

    def adopt(self, state: Mapping[str, Tensor], like: Tensor) -> None:
        """Make room for exactly what a state brings.

        Args:
            state: entries of a learner's state dict.
            like: a tensor with the device and dtype that it goes with.
        """
        self._buffers.clear()
        P = state.get("projection.weight")
        if P is not None:
            wide = torch.promote_types(like.dtype, torch.float32)
            self._buffers["weight"] = torch.empty_like(P, dtype=wide, device=like.device)


def make_projection(rank: int | None, *, learns: bool, rate: float) -> Projection | None:
    """The projection that a method's options ask for.

    Args:
        rank: r; None for no projection.
        learns: whether P learns.
        rate: of Oja's rule.

    Returns:
        The projection, if any.

    Raises:
        ConfigError: if an option is out of range.
    """
    if not isinstance(learns, bool):
        raise ConfigError(f"learn_p={learns!r}: pass True or False.")
    if rank is None:
        if learns:
            raise ConfigError(
                "learn_p=True: without rank= there is no projection that could learn. Pass the"
                " number of dimensions, such as rank=32."
            )
        return None
    check_projection(rank, rate)
    return Projection(rank=rank, learns=learns, rate=rate)


def projection_conflicts(projection: Projection | None, state: Mapping[str, Tensor]) -> list[str]:
    """Why a learner's state cannot be that of one with this projection.

    Args:
        projection: of the learner, if it has one.
        state: entries of a state dict.

    Returns:
        One text a problem; empty if it can.
    """
    P = state.get("projection.weight")
    maps = [key for key in state if key.startswith("feedback.") and key.endswith(".weight")]
    if projection is None:
        return [] if P is None else ["'projection.weight' is unknown here: pass rank=."]
    if P is None:
        return ["'projection.weight' is missing: it was saved without rank=."] if maps else []
    if not projection.fits(P):
        return [
            f"'projection.weight' is {tuple(P.shape)} in the state; here rank={projection.rank}."
        ]
    return [
        f"'{key}' is {tuple(state[key].shape)}, and the projection has {P.shape[0]} rows."
        for key in maps
        if state[key].shape[:1] != P.shape[:1]
    ]

"""Local backpropagation: a loss at each block, and no error from one block to another."""

from __future__ import annotations

from torch import nn

from fdfa.engine.cut import CutPass
from fdfa.engine.heads import check_head
from fdfa.engine.local import LocalEstimator, LocalPass
from fdfa.engine.taps import TapPlan
from fdfa.methods.record import Method

__all__ = ["RECORDS", "LocalBackpropagation"]


class LocalBackpropagation(LocalEstimator):
    """Backpropagation inside each block, of a loss of its own (Ren et al., arXiv:2210.03310).

    A head makes of the activation h_b that ends block b an output y_b, and the block and its head
    learn from the gradient of L(y_b, t), the user's loss with the user's targets. Between blocks
    gradients stop; the last block learns from L(y, t). (Where the paper tells variants apart, this
    is its LG-BP.)

    Wrap the model by :class:`fdfa.LocalHeads` first. The loss must come from :meth:`criterion`,
    which says it for every head.

    Args:
        model: with heads.
        seed: kept with the state; nothing is drawn.

    Raises:
        UnsupportedModelError: if the model has no heads.

    Example:
        >>> import fdfa, torch
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        ... )
        >>> learner = LocalBackpropagation(fdfa.LocalHeads(model, torch.ones(3, 4)))
        >>> criterion = learner.criterion(torch.nn.functional.cross_entropy)
        >>> criterion(learner(torch.ones(3, 4)), torch.tensor([0, 1, 1])).backward()
        >>> all(parameter.grad is not None for parameter in learner.parameters())
        True
    """

    method = "l-bp"

    def __init__(self, model: nn.Module, *, seed: int | None = None) -> None:
        super().__init__(model, taps=[], seed=seed)

    def local_pass(self, plan: TapPlan, run: CutPass) -> LocalPass:
        """Heads behind their blocks, and autograd through both."""
        return LocalPass(
            [
                check_head(self.head(tap)(h), plan.output_shape, tap.name)
                for tap, h in zip(plan.taps, run.taps, strict=True)
            ]
        )


RECORDS = (
    Method(
        "l-bp",
        LocalBackpropagation,
        "a loss at each block, by a head of its own, and backpropagation inside the block",
        "Ren, Kornblith, Liao & Hinton 2023, arXiv:2210.03310",
        weight_transport_free=False,
        backward_pass_free=False,
        probes=False,
        extra_state="K n_l",
        products="2 to 3",
        aliases=("local-backpropagation",),
    ),
)

"""Random models: programs of a stack machine whose values are activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.engine.tap_case import TapCase, noise

__all__ = ["PROGRAMS", "ProgramModel", "case_of"]

WIDTH = 4
UNARY = (
    *("linear", "shared_linear", "functional_linear", "keyword_linear", "linear_in_place"),
    *("tanh", "tanh_module", "shared_tanh", "elu_in_place", "layer_norm", "scale"),
    *("identity", "dropout_0", "monitor", "rows", "block", "pair", "glu", "swap_halves"),
    *("detached", "exp_scale", "hooked", "remember", "recall"),
)
STACK = ("duplicate", "over", "swap", "input")
BINARY = ("add", "multiply", "concatenate")
# Layers and joins more often than the rest: a model of skips alone has no cuts to test.
PROGRAMS = st.lists(
    st.one_of(
        st.sampled_from(("linear", "shared_linear", "tanh_module", "tanh")),
        st.sampled_from(UNARY),
        st.sampled_from(STACK),
        st.sampled_from(BINARY),
    ),
    max_size=14,
).map(lambda steps: ("linear", "tanh_module", "linear", *steps))


class Rows(nn.Module):
    """A matrix that is added; its input is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, h: Tensor) -> Tensor:
        return self.rows[:1]


class Block(nn.Module):
    """A residual block with a shortcut module that passes its input through."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.shortcut = nn.Linear(WIDTH, WIDTH), nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        return torch.tanh(self.fc(h)) + self.shortcut(h)


class Pair(nn.Module):
    """Returns two tensors, of which the program uses both."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.left(h), self.right(h)


def hooked() -> nn.Module:
    """A module whose input and output the user's own hooks replace."""
    module = nn.Linear(WIDTH, WIDTH)
    module.register_forward_pre_hook(lambda m, args: (args[0] * 0.5,))
    module.register_forward_hook(lambda m, args, y: y * 2)
    return module


class ProgramModel(nn.Module):
    """Runs its program on a stack that starts with the input; adds up what is left in the end."""

    def __init__(self, program: Sequence[str]) -> None:
        super().__init__()
        self.program = tuple(program)
        self.shared_linear, self.shared_tanh = nn.Linear(WIDTH, WIDTH), nn.Tanh()
        self.dropout_0, self.monitor = nn.Dropout(0.0), nn.Identity()
        self.memory, self.kept = nn.Tanh(), []
        self.memory.register_forward_hook(lambda m, args, y: self.kept.append(y))
        if "functional_linear" in self.program:
            self.matrix = nn.Parameter(torch.randn(WIDTH, WIDTH))
        if {"scale", "exp_scale"} & set(self.program):
            self.scales = nn.Parameter(torch.rand(WIDTH))
        self.steps = nn.ModuleDict()
        for i, step in enumerate(self.program):
            if (module := self._module_for(step)) is not None:
                self.steps[str(i)] = module
        self.head = nn.Linear(WIDTH, 3)

    @staticmethod
    def _module_for(step: str) -> nn.Module | None:
        if step in ("linear", "keyword_linear", "linear_in_place"):
            return nn.Linear(WIDTH, WIDTH)
        if step == "elu_in_place":
            return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ELU(inplace=True))
        makers: dict[str, Any] = {
            "concatenate": lambda: nn.Linear(2 * WIDTH, WIDTH),
            "glu": lambda: nn.Linear(WIDTH, 2 * WIDTH),
            "tanh_module": nn.Tanh,
            "layer_norm": lambda: nn.LayerNorm(WIDTH),
            "identity": nn.Identity,
            "rows": Rows,
            "block": Block,
            "pair": Pair,
            "hooked": hooked,
        }
        return makers[step]() if step in makers else None

    def forward(self, x: Tensor) -> Tensor:
        stack = [x]
        self.kept.clear()
        for i, step in enumerate(self.program):
            module = dict(self.steps.items()).get(str(i))
            if step == "input":
                stack.append(x)
            elif step == "duplicate":
                stack.append(stack[-1])
            elif step == "over":
                stack.append(stack[-2 % len(stack)])
            elif step == "swap":
                stack[-1], stack[-2 % len(stack)] = stack[-2 % len(stack)], stack[-1]
            elif step in BINARY:
                if len(stack) > 1:
                    stack.append(self._binary(step, stack.pop(), stack.pop(), module))
                elif module is not None:
                    stack.append(module(torch.cat([stack.pop(), x], 1)))
            else:
                stack.append(self._unary(step, stack.pop(), module))
        return self.head(torch.stack(stack).sum(0))

    def _binary(self, step: str, a: Tensor, b: Tensor, module: Any) -> Tensor:
        if step == "add":
            return a + b
        return a * b if step == "multiply" else module(torch.cat([a, b], 1))

    def _unary(self, step: str, h: Tensor, module: Any) -> Tensor:
        if step == "pair":
            left, right = module(h)
            return left * right
        if step == "glu":
            value, gate = module(h).chunk(2, 1)
            return value * gate.sigmoid()
        if step == "swap_halves":
            left, right = h.chunk(2, 1)
            return torch.cat([right, left], 1)
        if step == "keyword_linear":
            return module(input=h)
        if step == "linear_in_place":
            return module(h).tanh_()
        if step == "rows":
            return h + module(h)
        if step == "remember":  # a hook of the user's keeps what the module returned ...
            return self.memory(h)
        if step == "recall":  # ... and it is used once more, far from the module
            return h + self.kept[-1] if self.kept else h
        if step == "monitor":
            self.monitor(h)
            return h
        functions: dict[str, Any] = {
            "shared_linear": self.shared_linear,
            "shared_tanh": self.shared_tanh,
            "dropout_0": self.dropout_0,
            "functional_linear": lambda h: F.linear(h, self.matrix),
            "tanh": torch.tanh,
            "scale": lambda h: h * self.scales,
            "exp_scale": lambda h: h * self.scales.exp(),
            "detached": lambda h: h + 0.1 * h.detach(),
        }
        return (module or functions[step])(h)


def case_of(program: Sequence[str], **options: Any) -> TapCase:
    """The program's model, with an input of five samples; which taps it has is not foreseen."""
    return TapCase(
        " ".join(program),
        lambda: ProgramModel(program),
        lambda: (noise(5, WIDTH),),
        (),
        options=options,
    )

"""Train any ``torch.nn.Module`` without a backward pass through it.

Example:
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> learner = fdfa.FDFA(model)
    >>> loss = torch.nn.functional.cross_entropy(learner(torch.ones(2, 4)), torch.tensor([0, 2]))
    >>> loss.backward()
    >>> all(parameter.grad is not None for parameter in model.parameters())
    True
"""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fdfa import errors
from fdfa.engine.estimator import Estimator
from fdfa.methods import Method, methods, wrap

if TYPE_CHECKING:
    from fdfa.engine.heads import LocalHeads
    from fdfa.methods import (
        ADFA,
        DFA,
        DRTP,
        FDFA,
        IFA,
        SPSA,
        Backpropagation,
        ForwardGradient,
        MultiTangent,
    )
    from fdfa.methods.recommendation import recommended

__version__ = version("fdfa")

__all__ = [
    "ADFA",
    "DFA",
    "DRTP",
    "FDFA",
    "IFA",
    "SPSA",
    "Backpropagation",
    "Estimator",
    "ForwardGradient",
    "LocalHeads",
    "Method",
    "MultiTangent",
    "__version__",
    "errors",
    "methods",
    "recommended",
    "wrap",
]

_HOMES = {"LocalHeads": "fdfa.engine.heads", "recommended": "fdfa.methods.recommendation"}


def __getattr__(name: str) -> Any:
    # Rules are imported when they are asked for; `fdfa.methods` here is the function of that name.
    if name not in __all__:
        raise AttributeError("fdfa: " + errors.unknown_name("name", name, __all__))
    return getattr(importlib.import_module(_HOMES.get(name, "fdfa.methods")), name)


def __dir__() -> list[str]:
    return __all__

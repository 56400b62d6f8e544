"""Train any ``torch.nn.Module`` without a backward pass through it.

Example:
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> learner = fdfa.FDFA(model)
    >>> loss = torch.nn.functional.cross_entropy(learner(torch.ones(2, 4)), torch.tensor([0, 2]))
    >>> loss.backward()
    >>> all(parameter.grad is not None for parameter in model.parameters())
    True
"""

from importlib.metadata import version

from fdfa import errors
from fdfa.engine.estimator import Estimator
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
    Method,
    MultiTangent,
    methods,
    wrap,
)

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
    "wrap",
]

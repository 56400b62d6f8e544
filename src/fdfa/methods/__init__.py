"""Every learning rule by name: one file a method, one line here."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

from torch import nn

from fdfa.engine.estimator import Estimator
from fdfa.errors import ConfigError, unknown_name
from fdfa.methods.record import Method

if TYPE_CHECKING:
    from fdfa.methods.adfa import ADFA
    from fdfa.methods.backpropagation import Backpropagation
    from fdfa.methods.dfa import DFA
    from fdfa.methods.dkp import DKP
    from fdfa.methods.drtp import DRTP
    from fdfa.methods.fdfa import FDFA
    from fdfa.methods.feedback_alignment import FeedbackAlignment
    from fdfa.methods.fg_a import FGA
    from fdfa.methods.forward_gradient import ForwardGradient
    from fdfa.methods.grape import GrAPE
    from fdfa.methods.ifa import IFA
    from fdfa.methods.kolen_pollack import KolenPollack
    from fdfa.methods.l_bp import LocalBackpropagation
    from fdfa.methods.lg_fg_a import LGFGA
    from fdfa.methods.low_dimensional import LowDimensionalFeedback
    from fdfa.methods.multi_tangent import MultiTangent
    from fdfa.methods.multi_tangent_a import MultiTangentA
    from fdfa.methods.opzo import OPZO
    from fdfa.methods.pepita import PEPITA
    from fdfa.methods.pseudo_zeroth_order import PseudoZerothOrder
    from fdfa.methods.sign_symmetric import (
        BatchwiseRandomSignSymmetric,
        FixedRandomSignSymmetric,
        UniformSignSymmetric,
    )
    from fdfa.methods.spsa import SPSA
    from fdfa.methods.weight_mirror import WeightMirror

__all__ = [
    "ADFA",
    "DFA",
    "DKP",
    "DRTP",
    "FDFA",
    "FGA",
    "IFA",
    "LGFGA",
    "OPZO",
    "PEPITA",
    "SPSA",
    "Backpropagation",
    "BatchwiseRandomSignSymmetric",
    "FeedbackAlignment",
    "FixedRandomSignSymmetric",
    "ForwardGradient",
    "GrAPE",
    "KolenPollack",
    "LocalBackpropagation",
    "LowDimensionalFeedback",
    "Method",
    "MultiTangent",
    "MultiTangentA",
    "PseudoZerothOrder",
    "UniformSignSymmetric",
    "WeightMirror",
    "canonical",
    "described",
    "methods",
    "wrap",
]


# Class to file, in the order of the documentation. A file is imported when it is asked for: all of
# them take several times as long as the rest of `import fdfa`.
_CLASSES = {
    "Backpropagation": "backpropagation",
    "DFA": "dfa",
    "ADFA": "adfa",
    "IFA": "ifa",
    "DRTP": "drtp",
    "PEPITA": "pepita",
    "FDFA": "fdfa",
    "FGA": "fg_a",
    "MultiTangentA": "multi_tangent_a",
    "DKP": "dkp",
    "GrAPE": "grape",
    "OPZO": "opzo",
    "FeedbackAlignment": "feedback_alignment",
    "BatchwiseRandomSignSymmetric": "sign_symmetric",
    "FixedRandomSignSymmetric": "sign_symmetric",
    "UniformSignSymmetric": "sign_symmetric",
    "KolenPollack": "kolen_pollack",
    "LowDimensionalFeedback": "low_dimensional",
    "WeightMirror": "weight_mirror",
    "ForwardGradient": "forward_gradient",
    "MultiTangent": "multi_tangent",
    "SPSA": "spsa",
    "PseudoZerothOrder": "pseudo_zeroth_order",
    "LocalBackpropagation": "l_bp",
    "LGFGA": "lg_fg_a",
}


def __getattr__(name: str) -> Any:
    if name not in _CLASSES:
        raise AttributeError("fdfa.methods: " + unknown_name("name", name, list(_CLASSES)))
    return getattr(importlib.import_module(f"{__name__}.{_CLASSES[name]}"), name)


def __dir__() -> list[str]:
    return __all__


@functools.cache
def _registry() -> tuple[Method, ...]:
    files = dict.fromkeys(_CLASSES.values())
    modules = [importlib.import_module(f"{__name__}.{file}") for file in files]
    return tuple(record for module in modules for record in module.RECORDS)


@functools.cache
def _names() -> dict[str, str]:
    return {n: method.name for method in _registry() for n in (method.name, *method.aliases)}


def methods() -> dict[str, Method]:
    """Every method by name, in the order of the documentation.

    Returns:
        Name to description.

    Example:
        >>> list(methods())[:5]
        ['backpropagation', 'dfa', 'adfa', 'ifa', 'drtp']
    """
    return {method.name: method for method in _registry()}


def described(name: str) -> Method:
    """The method of a name, or of one of its other names, in capitals or not.

    Args:
        name: as the registry or a paper has it.

    Returns:
        Its description.

    Raises:
        ConfigError: if there is none; the text lists the valid ones and the nearest.

    Example:
        >>> described("MeZO").name
        'spsa'
    """
    if (found := methods().get(canonical(name))) is None:
        others = [alias for method in _registry() for alias in method.aliases]
        raise ConfigError(unknown_name("method", name, list(methods()), also=others))
    return found


def canonical(name: str) -> str:
    """The registry's name of a method for any of its names; what is unknown stays as it is.

    Args:
        name: as the registry or a paper has it.

    Returns:
        The name to compare by.

    Raises:
        ConfigError: if it is no string.

    Example:
        >>> canonical("KP"), canonical("no such method")
        ('kolen-pollack', 'no such method')
    """
    if not isinstance(name, str):
        raise ConfigError(
            f"the name of a method is a string, and an object of type {type(name).__name__} was"
            " given. Pass a name of fdfa.methods(), such as 'dfa'."
        )
    return _names().get(name.lower().replace("_", "-"), name)


def wrap(method: str, model: nn.Module, **options: Any) -> Estimator:
    """Wrap a model by a method's name.

    Args:
        method: a name of :func:`methods`, or one of its other names.
        model: any module.
        **options: of the method's class.

    Returns:
        The estimator.

    Raises:
        ConfigError: if the method or an option is unknown; the text lists the valid ones and the
            nearest.

    Example:
        >>> wrap(
        ...     "dfa",
        ...     torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)),
        ... ).method
        'dfa'
    """
    found = described(method)
    return found.estimator(model, **{**found.preset, **options})

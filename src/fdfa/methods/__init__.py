"""Every learning rule by name: one file a method, one line here."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from fdfa.engine.estimator import Estimator
from fdfa.errors import ConfigError, unknown_name
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
    "methods",
    "wrap",
]


@dataclasses.dataclass(frozen=True)
class Method:
    """What there is to know of a method before using it.

    Attributes:
        name: for :func:`wrap` and the command line.
        estimator: the class.
        summary: one line.
        source: the paper.
        weight_transport_free: no feedback path reads a forward weight's transpose.
        backward_pass_free: no error travels backwards through the network.
        probes: it perturbs the forward pass.
        extra_state: numbers kept beside the weights, for each tap or layer l; K outputs, n_l units,
            m_l inputs, N samples.
        products: matrix products a layer and step, a forward pass counting one; s is the share of
            steps that probe, k the number of tangents.
        preset: options of the class that this name stands for, where they are not its defaults.
        rate_share: learning rate that suits it, as a share of backpropagation's.
    """

    name: str
    estimator: type[Estimator]
    summary: str
    source: str
    weight_transport_free: bool
    backward_pass_free: bool
    probes: bool
    extra_state: str
    products: str
    preset: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rate_share: float = 1.0

    def options(self) -> dict[str, Any]:
        """The keyword options of the estimator with their defaults."""
        parameters = inspect.signature(self.estimator).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {**defaults, **self.preset}


_REGISTRY = (
    Method(
        "backpropagation",
        Backpropagation,
        "the exact gradient, by a backward pass through the whole network",
        "Rumelhart, Hinton & Williams 1986",
        weight_transport_free=False,
        backward_pass_free=False,
        probes=False,
        extra_state="none",
        products="3",
    ),
    Method(
        "dfa",
        DFA,
        "fixed random connections carry the output error to every block",
        "Nokland 2016, arXiv:1609.01596",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K n_l",
        products="2",
    ),
    Method(
        "adfa",
        ADFA,
        "DFA with any function of the pre-activation in place of the activation's derivative",
        "Nakajima et al. 2022, arXiv:2204.13991",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K n_l",
        products="2",
    ),
    Method(
        "ifa",
        IFA,
        "the error enters at the first hidden layer and travels forward through the weights",
        "Nokland 2016, arXiv:1609.01596",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K n_1",
        products="4",
    ),
    Method(
        "drtp",
        DRTP,
        "fixed random connections carry the targets, not the error, to every hidden block",
        "Frenkel, Lefebvre & Bol 2021, arXiv:1909.01311",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K n_l",
        products="2",
    ),
    Method(
        "pepita",
        PEPITA,
        "a second forward pass, on an input that the error has moved, in place of a backward pass",
        "Dellaferrera & Kreiman 2022",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K m_1 once",
        products="3",
    ),
    Method(
        "fdfa",
        FDFA,
        "direct connections that forward-mode probes teach the mean Jacobian",
        "Bacho & Chu 2024, arXiv:2212.07282",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="K n_l",
        products="2 + s",
    ),
    Method(
        "fdfa-cv",
        FDFA,
        "forward gradients with FDFA's learned connections as a control variate: unbiased",
        "after Bacho & Chu 2024 and Arisaka & Li 2024, arXiv:2405.02952",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="K n_l",
        products="3",
        preset={"credit": "unbiased", "coefficient": "running"},
    ),
    Method(
        "fg-a",
        FGA,
        "forward gradients: a directional derivative for each sample, times its perturbation",
        "Ren, Kornblith, Liao & Hinton 2023, arXiv:2210.03310",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="none",
        products="3",
    ),
    Method(
        "multi-tangent-a",
        MultiTangentA,
        "k directional derivatives for each sample, averaged or projected on their span",
        "after Fluegel et al. 2024, arXiv:2410.17764",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="none",
        products="1 + 2 k",
    ),
    Method(
        "dkp",
        DKP,
        "direct connections that take the steps of a read-out of their tap",
        "Webster, Choi & Ahn 2021, OpenReview zgGmAx9ZcY",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="K n_l",
        products="2",
    ),
    Method(
        "grape",
        GrAPE,
        "direct connections that forward-mode probes turn by a cosine",
        "Caillon, Fagnou, Delattre & Allauzen 2026, OpenReview kasbbmwk3s",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="K n_l",
        products="2 + s",
    ),
    Method(
        "opzo",
        OPZO,
        "direct connections that finite noise at the taps teaches, without derivatives",
        "Xiao, Meng, Zhang, He & Lin 2024, arXiv:2407.12516",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="K n_l",
        products="2",
    ),
    Method(
        "fa",
        FeedbackAlignment,
        "the error travels back through fixed random weights",
        "Lillicrap et al. 2016",
        weight_transport_free=True,
        backward_pass_free=False,
        probes=False,
        extra_state="n_l m_l",
        products="3",
    ),
    Method(
        "usf",
        UniformSignSymmetric,
        "the error travels back through the signs of the weights",
        "Liao et al. 2016; Moskovitz et al. 2018",
        weight_transport_free=False,
        backward_pass_free=False,
        probes=False,
        extra_state="none",
        products="3",
    ),
    Method(
        "brsf",
        BatchwiseRandomSignSymmetric,
        "the weights' signs, with magnitudes drawn anew in every step",
        "Liao et al. 2016; Moskovitz et al. 2018",
        weight_transport_free=False,
        backward_pass_free=False,
        probes=False,
        extra_state="none",
        products="3",
    ),
    Method(
        "frsf",
        FixedRandomSignSymmetric,
        "the weights' signs, with fixed random magnitudes",
        "Liao et al. 2016; Moskovitz et al. 2018",
        weight_transport_free=False,
        backward_pass_free=False,
        probes=False,
        extra_state="n_l m_l",
        products="3",
    ),
    Method(
        "kolen-pollack",
        KolenPollack,
        "feedback weights that get the weights' own updates, and decay towards them",
        "Akrout et al. 2019, arXiv:1904.05391",
        weight_transport_free=True,
        backward_pass_free=False,
        probes=False,
        extra_state="n_l m_l",
        products="3",
    ),
    Method(
        "ldfa",
        LowDimensionalFeedback,
        "the error travels back through few dimensions, which learn to hold it",
        "Hanut & Kadmon 2025, arXiv:2502.20580",
        weight_transport_free=True,
        backward_pass_free=False,
        probes=False,
        extra_state="r (n_l + m_l)",
        products="3",
    ),
    Method(
        "ldfa-direct",
        DKP,
        "few dimensions of the output error go straight to every block",
        "Hanut & Kadmon 2025, arXiv:2502.20580",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=False,
        extra_state="r (K + n_l)",
        products="2",
        preset={
            "rank": 10,
            "learn_p": True,
            "feedback_update": "sgd",
            "feedback_rate": 0.05,
            "decay": 1e-3,
            "start": "uniform",
        },
    ),
    Method(
        "weight-mirror",
        WeightMirror,
        "feedback weights that noise through each layer teaches the layer's weights",
        "Akrout et al. 2019, arXiv:1904.05391",
        weight_transport_free=True,
        backward_pass_free=False,
        probes=False,
        extra_state="n_l m_l",
        products="3 + 2 s",
    ),
    Method(
        "fg-w",
        ForwardGradient,
        "one directional derivative in weight space, times its direction",
        "Baydin et al. 2022, arXiv:2202.08587",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="none",
        products="3",
    ),
    Method(
        "multi-tangent",
        MultiTangent,
        "k directional derivatives in weight space, averaged or projected on their span",
        "Fluegel et al. 2024, arXiv:2410.17764",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="none",
        products="3 k",
    ),
    Method(
        "spsa",
        SPSA,
        "differences of two forward passes with all weights moved at once",
        "Spall 1992; Malladi et al. 2023, arXiv:2305.17333",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="none",
        products="3",
    ),
    Method(
        "pseudo-zeroth-order",
        PseudoZerothOrder,
        "one-sided differences whose answers of earlier steps meet the error of this one",
        "Yue, Yang, Xiao & Lin 2025, OpenReview tM4cHBD7kD",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="window N K",
        products="2",
    ),
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
    ),
    Method(
        "lg-fg-a",
        LGFGA,
        "a loss at each block, and forward gradients inside the block",
        "Ren, Kornblith, Liao & Hinton 2023, arXiv:2210.03310",
        weight_transport_free=True,
        backward_pass_free=True,
        probes=True,
        extra_state="K n_l",
        products="2 to 3",
    ),
)


def methods() -> dict[str, Method]:
    """Every method by name, in the order of the documentation.

    Returns:
        Name to description.

    Example:
        >>> list(methods())[:5]
        ['backpropagation', 'dfa', 'adfa', 'ifa', 'drtp']
    """
    return {method.name: method for method in _REGISTRY}


def wrap(method: str, model: nn.Module, **options: Any) -> Estimator:
    """Wrap a model by a method's name.

    Args:
        method: a name of :func:`methods`.
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
    known = methods()
    if method not in known:
        raise ConfigError(unknown_name("method", method, list(known)))
    found = known[method]
    return found.estimator(model, **{**found.preset, **options})

"""One-line faults of the measures of a rule's gradients that the tests must notice."""

from __future__ import annotations

from fault import Fault

__all__ = ["DIAGNOSIS_FAULTS"]

BY_HAND = (
    "tests/diagnostics/test_diagnose.py::test_equal_to_all_draws_put_together_by_hand[fg-a-normal]"
)
HOOKS = (
    "tests/diagnostics/test_diagnose.py::test_credits_are_what_hooks_on_the_tapped_activations_see"
)
MOMENTS = "tests/diagnostics/test_moments.py"

DIAGNOSIS_FAULTS = (
    Fault(
        "every draw of a diagnosis is the same",
        "engine/estimator.py",
        "return (*seeds, self.redraw) if self.redraw else seeds",
        "return seeds",
        ("tests/diagnostics/test_closed_forms.py::test_at_few_draws[fg-a rademacher]",),
    ),
    Fault(
        "all batches of a diagnosis meet the same noise",
        "diagnostics/diagnosis.py",
        "first = place * draws",
        "first = 0",
        ("tests/diagnostics/test_diagnose.py::test_every_batch_has_noise_of_its_own",),
    ),
    Fault(
        "the squared bias keeps the noise of the mean",
        "diagnostics/moments.py",
        "bias_square - V / max(R, 1)",
        "bias_square",
        (BY_HAND,),
    ),
    Fault(
        "half of a standard error",
        "diagnostics/moments.py",
        "return trace, self._noise.variance, at_mean",
        "return trace, self._noise.variance / 4, at_mean",
        (f"{MOMENTS}::test_intervals_hold_what_they_promise[normal]",),
    ),
    Fault(
        "a draw without a partner is forgotten",
        "diagnostics/gradient_moments.py",
        "m, left_over = m + step / (r + 1), step.square().sum() * (r / (r + 1))",
        "left_over = step.square().sum() * 0",
        (f"{MOMENTS}::test_few_draws_and_odd_ones",),
    ),
    Fault(
        "a credit is heard before it is there",
        "engine/tapped.py",
        "if h.requires_grad:  # after the hook that puts the credit there",
        "if False:",
        (HOOKS,),
    ),
    Fault(
        "a copy that stands alone leaves the noise out of its output",
        "methods/opzo.py",
        'self.moves_output = form in {"single-point", "centred"}',
        "self.moves_output = False",
        ("tests/diagnostics/test_diagnose.py::test_noise_in_the_output_is_the_rules_own",),
    ),
)

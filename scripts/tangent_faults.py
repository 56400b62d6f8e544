"""One-line faults of tangents, their rules and finite differences."""

from __future__ import annotations

from fault import Fault

__all__ = ["TANGENT_FAULTS"]

DERIVATIVES = "tests/oracles/test_forward_derivatives.py"
JACOBIAN = (
    f"{DERIVATIVES}::test_forward_derivative_is_the_jacobian_product_and_the_central_difference"
)
NAIVE = "tests/oracles/test_naive_loop.py"
RULES = "tests/engine/test_tangents.py"
IN_MODELS = "tests/engine/test_tangents_in_models.py"
WEIGHT_RULES = "tests/engine/test_weight_rules.py"
USER_CODE = "tests/engine/test_user_code.py"

TANGENT_FAULTS = (
    Fault(
        "a finite difference over half its length",
        "engine/differences.py",
        "/ (2 * step)",
        "/ step",
        (f"{DERIVATIVES}::test_lstm_by_finite_differences_is_the_jacobian_product",),
    ),
    Fault(
        "a finite difference advances torch's generator",
        "engine/intercept.py",
        "            back()\n",
        "",
        (f"{DERIVATIVES}::test_output_and_loss_are_bit_equal_with_and_without_a_probe",),
    ),
    Fault(
        "a bias in the tangent",
        "engine/tangent_rules.py",
        "return F.linear(t, m.weight)",
        "return F.linear(t, m.weight, m.bias)",
        (JACOBIAN,),
    ),
    Fault(
        "tangents travel plain past a user's hooks",
        "engine/handover.py",
        "        module._forward_hooks\n",
        "        False\n",
        (f"{USER_CODE}::test_hooks_registered_after_the_first_step_keep_every_tangent",),
    ),
    Fault(
        "a module that writes in place leaves its input's tangent",
        "engine/tangents.py",
        "    old.copy_(tangent)\n",
        "",
        (USER_CODE,),
    ),
    Fault(
        "batch norm's rule lacks its mean term",
        "engine/tangent_rules.py",
        "return aten.native_batch_norm_backward(*args)[0]",
        "return aten.native_batch_norm_backward(*args)[0] + t.mean(0)",
        (JACOBIAN,),
    ),
    Fault(
        "batch norm's rule reads the running statistics",
        "engine/tangent_rules.py",
        "if not m.training and m.running_mean is not None:",
        "if m.running_mean is not None:",
        (NAIVE,),
    ),
    Fault(
        "dropout's rule ignores the mask",
        "engine/tangent_rules.py",
        "return t * y.grad_fn._saved_other",
        "return t",
        (JACOBIAN,),
    ),
    Fault(
        "max-pool's rule takes the mean",
        "engine/tangent_rules.py",
        ".gather(-1, winners.flatten(-spatial))",
        ".mean(-1, keepdim=True).expand_as(winners.flatten(-spatial)).contiguous()",
        (JACOBIAN,),
    ),
    Fault(
        "layer norm's rule forgets the weight",
        "engine/tangent_rules.py",
        "return (t if m.weight is None else t * m.weight).to(y.dtype)\n",
        "return t.to(y.dtype)\n",
        (RULES,),
    ),
    Fault(
        "subclasses inherit the rule",
        "engine/tangents.py",
        "rule = RULES.get(type(module))",
        "rule = next((r for k, r in RULES.items() if isinstance(module, k)), None)",
        (IN_MODELS,),
    ),
    Fault(
        "a tangent along the weights alone, not along the layer's input",
        "engine/weight_rules.py",
        "through if tangent is None else tangent.add_(through)",
        "through if tangent is None else tangent",
        (f"{WEIGHT_RULES}::test_tangent_is_that_of_torch",),
    ),
)

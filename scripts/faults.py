"""One-line faults of the engine that the tests must notice; see ``break_it.py``."""

from __future__ import annotations

import dataclasses

__all__ = ["FAULTS", "Fault"]


@dataclasses.dataclass(frozen=True)
class Fault:
    """A mistake that someone could make."""

    name: str
    file: str  # below src/fdfa
    text: str  # stands there exactly once
    instead: str  # what the mistake puts in its place
    tests: tuple[str, ...]  # what should notice, as arguments of pytest


FIRST_STEP = "tests/oracles/test_first_step.py"
LEARNING = "tests/oracles/test_feedback_learning.py"
DERIVATIVES = "tests/oracles/test_forward_derivatives.py"
JACOBIAN = (
    f"{DERIVATIVES}::test_forward_derivative_is_the_jacobian_product_and_the_central_difference"
)
MONTE_CARLO = "tests/oracles/test_monte_carlo.py"
NAIVE = "tests/oracles/test_naive_loop.py"
EXACT = "tests/oracles/test_exact_feedback.py"
DFA = "tests/oracles/test_dfa.py"
PROBES = "tests/engine/test_probes.py"
RULES = "tests/engine/test_tangents.py"
IN_MODELS = "tests/engine/test_tangents_in_models.py"
LOCAL = "tests/oracles/test_local_losses.py"
TARGETS = "tests/oracles/test_drtp.py"
RELAYED = "tests/oracles/test_ifa.py"
PEPITA = "tests/oracles/test_pepita.py"
PEPITA_LAYERS = "tests/oracles/test_pepita_layers.py"
AUGMENTED = "tests/oracles/test_adfa.py"
LOW = "tests/oracles/test_low_dimensional.py"
EXCHANGED = "tests/oracles/test_feedback_weights.py"
SIGNS = "tests/oracles/test_sign_symmetric.py"
KOLEN_POLLACK = "tests/oracles/test_kolen_pollack.py"
MIRROR = "tests/oracles/test_weight_mirror.py"
WEIGHT_RULES = "tests/engine/test_weight_rules.py"
USER_CODE = "tests/engine/test_user_code.py"
TAPS = "tests/engine/test_taps_auto.py"

FAULTS = (
    Fault(
        "credit with the wrong sign",
        "engine/feedback.py",
        "return torch.mm(e.to(self.weight.dtype), self.weight)",
        "return -torch.mm(e.to(self.weight.dtype), self.weight)",
        (f"{DFA}::test_two_layer_closed_form",),
    ),
    Fault(
        "no detach at a tap",
        "engine/cut.py",
        "return tensor.detach()",
        "return tensor",
        (f"{NAIVE}::test_dfa_trains_as_the_naive_loop",),
    ),
    Fault(
        "no detach at a tap that is perturbed",
        "engine/cut.py",
        "self._carrier.join(primal.detach(),",
        "self._carrier.join(primal,",
        (f"{NAIVE}::test_fdfa_trains_as_the_naive_loop",),
    ),
    Fault(
        "credit from the map after its lesson",
        "engine/credit.py",
        "        payer = ctx.arrival.take(e)\n",
        "        payer = ctx.arrival.take(e)\n        ctx.arrival._finish()\n",
        (f"{FIRST_STEP}::test_credit_uses_the_map_from_before_the_step",),
    ),
    Fault(
        "a forward pass teaches at every backward pass",
        "engine/credit.py",
        "learn, self._learn = self._learn, None",
        "learn = self._learn",
        (f"{FIRST_STEP}::test_a_forward_pass_teaches_once_however_often_its_error_arrives",),
    ),
    Fault(
        "no 1/N in the lesson",
        "engine/lessons.py",
        "yield tap, summed.div_(total)",
        "yield tap, summed",
        (f"{FIRST_STEP}::test_rate_one_leaves_the_mean_of_d_p",),
    ),
    Fault(
        "perturbation of another sample in the lesson",
        "engine/lessons.py",
        "functools.partial(torch.mm, d.T, p)",
        "functools.partial(torch.mm, d.T, p.roll(1, 0))",
        (f"{MONTE_CARLO}::test_a_batch_in_train_mode_batch_norm_teaches_the_own_sample_block",),
    ),
    Fault(
        "perturbation of the first tap in every lesson",
        "engine/lessons.py",
        "functools.partial(torch.mm, d.T, p)",
        "functools.partial(torch.mm, d.T, lesson.perturbations[0])",
        (f"{FIRST_STEP}::test_rate_one_leaves_the_mean_of_d_p",),
    ),
    Fault(
        "a derivative that is not finite is learned from",
        "engine/lessons.py",
        "if not math.isfinite(d.sum().item()):",
        "if d.sum() is None:",
        (f"{LEARNING}::test_a_derivative_that_is_not_finite_teaches_nothing",),
    ),
    Fault(
        "innovation adds what the maps foretell",
        "engine/lessons.py",
        "feedback[tap].weight.T, alpha=-share)",
        "feedback[tap].weight.T, alpha=share)",
        (f"{LEARNING}::test_innovation_is_stable_up_to_the_bound_only",),
    ),
    Fault(
        "the average forgets at the wrong rate",
        "methods/fdfa.py",
        "feedback.weight.lerp_(correlation, rate)",
        "feedback.weight.lerp_(correlation, 1 - rate)",
        (f"{LEARNING}::test_the_average_approaches_the_jacobian_as_one_minus_a_power",),
    ),
    Fault(
        "Kaiming's bound for a normal start",
        "engine/feedback.py",
        "math.sqrt(6 / units)",
        "math.sqrt(2 / units)",
        (f"{DFA}::test_starts_are_uniform_within_their_bound",),
    ),
    Fault(
        "all taps start from one draw",
        "engine/tapped.py",
        "zlib.crc32(tap.name.encode())",
        "0",
        (f"{DFA}::test_maps_of_taps_and_seeds_are_independent",),
    ),
    Fault(
        "maps in the model's narrow dtype",
        "engine/feedback.py",
        "outputs, units, dtype=torch.promote_types(dtype, torch.float32), device=device",
        "outputs, units, dtype=dtype, device=device",
        (f"{DFA}::test_maps_of_a_bfloat16_model_are_float32",),
    ),
    Fault(
        "a lesson in autocast's precision",
        "engine/tapped.py",
        "with without_autocast([e.device]):\n                self.teach(lesson)",
        "if True:\n                self.teach(lesson)",
        (f"{FIRST_STEP}::test_autocast_leaves_the_map_and_its_lesson_in_float32",),
    ),
    Fault(
        "p replaces the tangent instead of being added",
        "engine/cut.py",
        "else tangent + p",
        "else p.clone()",
        (f"{FIRST_STEP}::test_rate_one_leaves_the_mean_of_d_p",),
    ),
    Fault(
        "the tangent is p itself, for a write in place to ruin",
        "engine/cut.py",
        "            p = p.clone()\n",
        "            pass\n",
        (USER_CODE,),
    ),
    Fault(
        "Rademacher bits whose topmost is always 0",
        "engine/probes.py",
        "words.random_(-(2**63), None, generator=generator)",
        "words.random_(generator=generator)",
        (PROBES,),
    ),
    Fault(
        "every step draws the same",
        "engine/tap_rule.py",
        "            step,\n            process_rank(),",
        "            0,\n            process_rank(),",
        (f"{FIRST_STEP}::test_each_step_and_each_process_draws_its_own_perturbation",),
    ),
    Fault(
        "every process draws the same",
        "engine/tap_rule.py",
        "            process_rank(),\n",
        "",
        (f"{FIRST_STEP}::test_each_step_and_each_process_draws_its_own_perturbation",),
    ),
    Fault(
        "probe_every is ignored",
        "engine/probes.py",
        "return step % self.every == 0",
        "return True",
        (f"{PROBES}::test_due_is_one_step_in_so_many_and_the_first",),
    ),
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
        "buffers are not put back",
        "engine/intercept.py",
        "                module._buffers[name] = buffer\n",
        "                pass\n",
        (f"{EXACT}::test_without_taps_every_method_is_autograd_bit_for_bit",),
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
        "every node is a valid cut",
        "engine/graph.py",
        "if i is None or node is self.output or self._crossings[i]:",
        "if i is None or node is self.output:",
        (f"{TAPS}::test_taps_are_those_of_the_rule",),
    ),
    Fault(
        "an input that something else uses is cut",
        "engine/selection.py",
        'candidate.kind == "input" and not all(',
        'candidate.kind == "input" and not any(',
        (f"{TAPS}::test_taps_are_those_of_the_rule",),
    ),
    Fault(
        "a replaced forward stays behind after an exception",
        "engine/intercept.py",
        "for own, _ in self._forwards:",
        "for own, _ in () if error[0] else self._forwards:",
        (f"{IN_MODELS}::test_the_dual_level_is_closed_after_an_exception",),
    ),
    Fault(
        "the step counter is not saved",
        "engine/estimator.py",
        '"steps": self.steps',
        '"steps": 0',
        ("tests/contract/test_state.py::test_resume_repeats_the_rest_of_a_run",),
    ),
    Fault(
        "a layer's own transpose carries the error",
        "engine/weight_exchange.py",
        "                return _Marked(self, weight, tensor)",
        "                pass",
        (f"{EXCHANGED}::test_three_layers_by_hand_over_several_steps",),
    ),
    Fault(
        "a tangent along the weights alone, not along the layer's input",
        "engine/weight_rules.py",
        "through if tangent is None else tangent.add_(through)",
        "through if tangent is None else tangent",
        (f"{WEIGHT_RULES}::test_tangent_is_that_of_torch",),
    ),
    Fault(
        "a factor that signs drawn anew do not get",
        "engine/probes.py",
        "        table = table * scale\n",
        "        pass\n",
        (f"{PROBES}::test_a_scale_is_a_factor",),
    ),
    Fault(
        "signs without their scale",
        "methods/sign_symmetric.py",
        "weight.sign().mul_(math.sqrt(2 / sum(fans(weight))))",
        "weight.sign()",
        (f"{SIGNS}::test_uniform_signs_are_backpropagation_where_all_magnitudes_are_s",),
    ),
    Fault(
        "Kolen-Pollack forgets nothing",
        "methods/kolen_pollack.py",
        "self.feedback[name] * (1 - self.decay)",
        "self.feedback[name] * 1",
        (f"{KOLEN_POLLACK}::test_kolen_pollack_is_the_papers_under_sgd",),
    ),
    Fault(
        "Q keeps its coordinates while the projection turns",
        "methods/low_dimensional.py",
        "(before - P) @",
        "(P - P) @",
        (f"{LOW}::test_the_rule_by_hand_over_several_steps",),
    ),
    Fault(
        "an unbiased credit hears of the projected error alone",
        "methods/fdfa.py",
        "            slope += lesson.beyond",
        "            pass",
        ("tests/oracles/test_projected_feedback.py::test_an_unbiased_credit_stays_unbiased",),
    ),
    Fault(
        "Oja's rule without its decay",
        "engine/subspace.py",
        "(PC - (PC @ P.mT) @ P)",
        "PC",
        (f"{LOW}::test_projections_find_the_principal_subspace",),
    ),
    Fault(
        "growth control that does nothing",
        "methods/weight_mirror.py",
        "                turned *= B.norm() / turned.norm()",
        "                pass",
        (f"{MIRROR}::test_the_mirror_turns_to_the_weight",),
    ),
    Fault(
        "a sample is centred on itself too",
        "methods/opzo.py",
        "return y - (y.sum(0) - y) / others if others else y",
        "return y - y.mean(0)",
        ("tests/oracles/test_opzo.py::test_trains_as_the_naive_loop",),
    ),
    Fault(
        "an antithetic pair divided by one distance",
        "methods/opzo.py",
        "run, answer = learning(), (ahead - behind) / 2",
        "run, answer = learning(), ahead - behind",
        ("tests/oracles/test_opzo.py::test_differences_that_are_exact_give_fdfas_maps",),
    ),
    Fault(
        "targets that count once a sample, not in the mean",
        "engine/targets.py",
        "return t * (weight.to(like.dtype).reshape(()) / count)",
        "return t * weight.to(like.dtype).reshape(())",
        (f"{TARGETS}::test_equals_the_naive_loop",),
    ),
    Fault(
        "a credit that enters behind the activation",
        "engine/relay.py",
        'dataclasses.replace(tap, kind="input")',
        "tap",
        (f"{RELAYED}::test_recursion_by_hand",),
    ),
    Fault(
        "other dropout masks when a pass is repeated",
        "engine/repetition.py",
        "            self._restore_random_state()\n",
        "",
        (f"{RELAYED}::test_recursion_by_hand",),
    ),
    Fault(
        "g without a part in the credit",
        "engine/activations.py",
        "return gradient * ctx.g(a).to(gradient.dtype), None, None",
        "return gradient, None, None",
        (f"{AUGMENTED}::test_closed_form",),
    ),
    Fault(
        "answers never fade",
        "methods/pseudo_zeroth_order.py",
        "weight = decay ** (step - earlier) if earlier < step else 0.0",
        "weight = 1.0 if earlier < step else 0.0",
        ("tests/oracles/test_pseudo_zeroth_order.py::test_trains_as_the_sum_by_hand",),
    ),
    Fault(
        "the window keeps one step too many",
        "methods/pseudo_zeroth_order.py",
        "most=window - 1",
        "most=window",
        ("tests/oracles/test_pseudo_zeroth_order.py::test_trains_as_the_sum_by_hand",),
    ),
    Fault(
        "one tap's own Gram matrix instead of all taps'",
        "methods/multi_tangent_a.py",
        "return torch.stack([gram.to(grams[0].device) for gram in grams]).sum(0)",
        "return grams[0]",
        ("tests/oracles/test_multi_tangent_a.py::test_every_combination_is_its_equation",),
    ),
    Fault(
        "passes of several tangents with masks of their own",
        "methods/multi_tangent_a.py",
        "with torch.no_grad(), untouched_state(self.model):",
        "with torch.no_grad():",
        (
            "tests/oracles/test_multi_tangent_a.py::test_as_many_tangents_as_units_give_the_gradient",
        ),
    ),
    Fault(
        "a tangent that passes a head",
        "engine/cut.py",
        "            return primal.detach()\n        if tangent is None",
        "            return self._carrier.join(primal.detach(), p, plain=plain)\n"
        "        if tangent is None",
        (f"{LOCAL}::test_lg_fg_a_is_the_naive_loop_over_blocks",),
    ),
    Fault(
        "local losses that count in full",
        "engine/local.py",
        "torch.autograd.grad(loss, y, weight)[0]",
        "torch.autograd.grad(loss.sum(), y)[0]",
        (
            "tests/engine/test_local_heads.py"
            "::test_heads_get_the_users_loss_however_it_is_called[in two parts]",
        ),
    ),
    Fault(
        "one slope for all groups of a patch",
        "models/aggregating_head.py",
        "(slopes if dims == 4 else",
        "(slopes.sum(2, keepdim=True).expand_as(slopes) if dims == 4 else",
        ("tests/oracles/test_local_mixer.py::test_lg_fg_a_is_the_naive_loop_over_copies",),
    ),
    Fault(
        "an error that still holds its share of the mean",
        "engine/modulation.py",
        "errors = torch.where(share == 0, 0, e.reshape(len(x), -1) / share)",
        "errors = e.reshape(len(x), -1)",
        (f"{PEPITA}::test_equals_the_naive_loop",),
    ),
    Fault(
        "a sum over positions",
        "engine/layer_passes.py",
        "shares = self._shares / shared",
        "shares = self._shares",
        (f"{PEPITA_LAYERS}::test_convolutions_take_the_mean_over_positions",),
    ),
    Fault(
        "an activation kept as the model overwrites it",
        "engine/layer_passes.py",
        "self.kept[number] = h.detach().clone()",
        "self.kept[number] = h.detach()",
        (f"{PEPITA_LAYERS}::test_an_activation_that_is_overwritten_later",),
    ),
)

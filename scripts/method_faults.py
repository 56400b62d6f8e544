"""One-line faults of single rules, and of what only they use of the engine."""

from __future__ import annotations

from fault import Fault

__all__ = ["METHOD_FAULTS"]

LEARNING = "tests/oracles/test_feedback_learning.py"
LOCAL = "tests/oracles/test_local_losses.py"
TARGETS = "tests/oracles/test_drtp.py"
ADAPTIVE = "tests/oracles/test_adaptive_rate.py"
ACTIVE = "tests/oracles/test_active_units.py"
RELAY = "tests/oracles/test_relay.py"
RELAYED = "tests/oracles/test_ifa.py"
PEPITA = "tests/oracles/test_pepita.py"
PEPITA_LAYERS = "tests/oracles/test_pepita_layers.py"
AUGMENTED = "tests/oracles/test_adfa.py"
LOW = "tests/oracles/test_low_dimensional.py"
EXCHANGED = "tests/oracles/test_feedback_weights.py"
SIGNS = "tests/oracles/test_sign_symmetric.py"
KOLEN_POLLACK = "tests/oracles/test_kolen_pollack.py"
MIRROR = "tests/oracles/test_weight_mirror.py"

METHOD_FAULTS = (
    Fault(
        "the average forgets at the wrong rate",
        "engine/feedback_update.py",
        "feedback.weight.lerp_(lesson.mean, a)",
        "feedback.weight.lerp_(lesson.mean, 1 - a)",
        (f"{LEARNING}::test_the_average_approaches_the_jacobian_as_one_minus_a_power",),
    ),
    Fault(
        "an adaptive rate takes the noise of half a batch for that of all",
        "engine/adaptive_rate.py",
        "weighed = both * n_1 * n_2 / (n_1 + n_2).clamp(min=1).square()",
        "weighed = both * n_1 / (n_1 + n_2).clamp(min=1)",
        (f"{ADAPTIVE}::test_halves_of_a_batch_are_what_is_measured",),
    ),
    Fault(
        "a lesson counts twice for the bias",
        "engine/feedback.py",
        "learned + rate * (1 - learned)",
        "learned + rate * (1 - learned) * 2",
        (f"{ADAPTIVE}::test_bias_correction_divides_by_what_is_learned",),
    ),
    Fault(
        "active units are averaged over all samples",
        "engine/lessons.py",
        "yield Correlation(tap, whole / times.clamp(min=1), seen, means)",
        "yield Correlation(tap, whole / total, seen, means)",
        (f"{ACTIVE}::test_the_mean_map_is_the_jacobian_given_an_active_unit",),
    ),
    Fault(
        "an optimiser moves the columns of resting units",
        "engine/feedback.py",
        "            weight[:, idle] = kept",
        "            pass",
        (f"{ACTIVE}::test_columns_of_units_that_rest_keep_their_values",),
    ),
    Fault(
        "a relayed credit enters one block too early",
        "engine/relay_routes.py",
        "len(way) <= relay:\n            way.append(plan.onward[way[-1]])\n        if way",
        "len(way) < relay:\n            way.append(plan.onward[way[-1]])\n        if way",
        (f"{RELAY}::test_gradients_are_those_of_the_uncut_network",),
    ),
    Fault(
        "hooks on a parameter meet its gradient twice",
        "engine/relayed_credit.py",
        "parameter._backward_hooks = None",
        "parameter._backward_hooks = parameter._backward_hooks",
        (f"{RELAY}::test_hooks_on_parameters_change_a_gradient_once",),
    ),
    Fault(
        "a map is compared uncorrected, though its credit is not",
        "methods/fdfa.py",
        "return self.feedback[tap].corrected(whole.clone()) if self.bias_correction else whole",
        "return whole",
        (
            "tests/oracles/test_adaptive_rate.py"
            "::test_the_map_that_is_compared_is_the_corrected_one",
        ),
    ),
    Fault(
        "places that share get the sum of their credits",
        "engine/tapped.py",
        "credit = shared.spread(credit).div_(shared.sharing)",
        "credit = shared.spread(credit)",
        ("tests/oracles/test_shared_shifts.py::test_a_credit_is_that_of_the_whole_map",),
    ),
    Fault(
        "places share whatever the stride",
        "engine/shared_shifts.py",
        "stride = min(height, width) // smallest",
        "stride = 1",
        (
            "tests/oracles/test_shared_shifts.py"
            "::test_the_map_is_the_mean_jacobian_over_the_places_that_share",
        ),
    ),
    Fault(
        "a first block that never rests",
        "engine/tapped.py",
        "rests = step % self.first_block_every and",
        "rests = step % 1 and",
        (
            "tests/oracles/test_first_block.py"
            "::test_it_gets_the_same_gradient_in_its_passes_and_none_between",
        ),
    ),
    Fault(
        "every tap is perturbed, with a map or without",
        "engine/tap_rule.py",
        "if number in sources)",
        "if number in sources or number >= 0)",
        (f"{RELAY}::test_only_taps_with_a_map_are_perturbed",),
    ),
    Fault(
        "a layer's own transpose carries the error",
        "engine/weight_exchange.py",
        "                return _Marked(self, weight, tensor)",
        "                pass",
        (f"{EXCHANGED}::test_three_layers_by_hand_over_several_steps",),
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
        "a sample that the loss ignores still teaches",
        "engine/targets.py",
        "return total.masked_fill((e == 0).all(sample_dims, keepdim=True), 0.0)",
        "return total",
        ("tests/contract/test_criterion.py::test_samples_without_an_error_rest",),
    ),
    Fault(
        "a credit that enters behind the activation",
        "engine/relay.py",
        "made = watch.made(tensor)",
        "made = None",
        (f"{RELAYED}::test_recursion_by_hand",),
    ),
    Fault(
        "another mode when a pass is repeated",
        "engine/repetition.py",
        "module.training = training\n            yield",
        "pass\n            yield",
        (f"{RELAYED}::test_the_modes_of_the_first_pass_hold_in_the_second",),
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
        "weight = decay**age if 0 < age < self.window else 0.0",
        "weight = 1.0 if 0 < age < self.window else 0.0",
        ("tests/oracles/test_pseudo_zeroth_order.py::test_trains_as_the_sum_by_hand",),
    ),
    Fault(
        "the window counts answers, not steps",
        "methods/pseudo_zeroth_order.py",
        "0 < age < self.window",
        "age > 0",
        ("tests/oracles/test_pseudo_zeroth_order.py::test_the_window_counts_steps",),
    ),
    Fault(
        "answers count whatever was perturbed",
        "engine/answers.py",
        "step >= 0 and of == origin and",
        "step >= 0 and",
        ("tests/oracles/test_pseudo_zeroth_order.py::test_parameters_that_rest_and_learn_again",),
    ),
    Fault(
        "the row of padding moves",
        "engine/leaves.py",
        "part.select(part.dim() - len(self.shape), self.row).zero_()",
        "pass",
        ("tests/oracles/test_padding_row.py",),
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
        "            return primal.detach()\n        entry",
        "            return self._carrier.join(primal.detach(), p, plain=plain)\n        entry",
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

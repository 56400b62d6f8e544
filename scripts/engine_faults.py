"""One-line faults of cuts, credit, probes, lessons and feedback maps."""

from __future__ import annotations

from fault import Fault

__all__ = ["ENGINE_FAULTS"]

FIRST_STEP = "tests/oracles/test_first_step.py"
LEARNING = "tests/oracles/test_feedback_learning.py"
MONTE_CARLO = "tests/oracles/test_monte_carlo.py"
NAIVE = "tests/oracles/test_naive_loop.py"
EXACT = "tests/oracles/test_exact_feedback.py"
DFA = "tests/oracles/test_dfa.py"
PROBES = "tests/engine/test_probes.py"
IN_MODELS = "tests/engine/test_tangents_in_models.py"
USER_CODE = "tests/engine/test_user_code.py"
TAPS = "tests/engine/test_taps_auto.py"

ENGINE_FAULTS = (
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
        "        if number is None:\n            return tensor.detach()",
        "        if number is None:\n            return tensor",
        (f"{NAIVE}::test_dfa_trains_as_the_naive_loop",),
    ),
    Fault(
        "no detach at a tap that is perturbed",
        "engine/cut.py",
        "entry = self._enter(tap, primal)",
        "entry = primal",
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
        "yield Correlation(tap, next(each).div_(total))",
        "yield Correlation(tap, next(each))",
        (f"{FIRST_STEP}::test_rate_one_leaves_the_mean_of_d_p",),
    ),
    Fault(
        "perturbation of another sample in the lesson",
        "engine/lessons.py",
        "torch.mm, d[part].T, p[part])",
        "torch.mm, d[part].T, p.roll(1, 0)[part])",
        (f"{MONTE_CARLO}::test_a_batch_in_train_mode_batch_norm_teaches_the_own_sample_block",),
    ),
    Fault(
        "perturbation of the first tap in every lesson",
        "engine/lessons.py",
        "torch.mm, d[part].T, p[part])",
        "torch.mm, d[part].T, lesson.perturbations[0][part])",
        (f"{FIRST_STEP}::test_rate_one_leaves_the_mean_of_d_p",),
    ),
    Fault(
        "a derivative that is not finite is learned from",
        "engine/lessons.py",
        "finite = math.isfinite(d.sum().item())",
        "finite = True",
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
        "engine/estimator.py",
        "seeds = (self.seed, step, 0 if self.alone else process_rank())",
        "seeds = (self.seed, 0, 0 if self.alone else process_rank())",
        (f"{FIRST_STEP}::test_each_step_and_each_process_draws_its_own_perturbation",),
    ),
    Fault(
        "every process draws the same",
        "engine/estimator.py",
        "seeds = (self.seed, step, 0 if self.alone else process_rank())",
        "seeds = (self.seed, step)",
        (f"{FIRST_STEP}::test_each_step_and_each_process_draws_its_own_perturbation",),
    ),
    Fault(
        "probe_every is ignored",
        "engine/probes.py",
        "return step < self.first or step % self.every == 0",
        "return True",
        (f"{PROBES}::test_due_is_one_step_in_so_many_and_the_first",),
    ),
    Fault(
        "buffers are not put back",
        "engine/intercept.py",
        "                module._buffers[name] = buffer\n",
        "                pass\n",
        (f"{EXACT}::test_without_taps_every_method_is_autograd_bit_for_bit",),
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
        "a factor that signs drawn anew do not get",
        "engine/probes.py",
        "        table = table * scale\n",
        "        pass\n",
        (f"{PROBES}::test_a_scale_is_a_factor",),
    ),
)

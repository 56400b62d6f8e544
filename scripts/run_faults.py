"""One-line faults of data, training and checkpoints that the tests must notice."""

from __future__ import annotations

from fault import Fault

__all__ = ["RUN_FAULTS"]

RESUME = "tests/training/test_resume.py::test_cut_at_every_step"
TABLE = "tests/studies/test_table.py"
LAWS = "tests/studies/test_variance_laws.py"
BY_HAND = "tests/training/test_trainer_by_hand.py"

RUN_FAULTS = (
    Fault(
        "a resumed epoch draws another order",
        "training/trainer.py",
        "self.order_generator.set_state(progress.order_state)",
        "progress.order_state",
        (RESUME,),
    ),
    Fault(
        "the running epoch's sums are forgotten",
        "training/trainer_state.py",
        "seen, progress.loss, correct = sums.tolist()",
        "seen, progress.loss, correct = 0, 0.0, 0",
        (RESUME,),
    ),
    Fault(
        "dropout goes on with other masks",
        "engine/random_state.py",
        'if name == "torch":',
        'if name == "torhc":',
        (RESUME,),
    ),
    Fault(
        "the optimiser starts anew",
        "training/optimizer_state.py",
        'optimizer.load_state_dict({"state": state, "param_groups": rates})',
        'optimizer.load_state_dict({"state": {}, "param_groups": rates})',
        (RESUME,),
    ),
    Fault(
        "lines written after the checkpoint stay",
        "training/line_files.py",
        "file.truncate(size)",
        "file.tell()",
        ("tests/training/test_metrics.py::test_lines_after_the_checkpoint_are_taken_back",),
    ),
    Fault(
        "lines are not on the disk when a checkpoint counts on them",
        "training/line_files.py",
        "os.fsync(file.fileno())",
        "file.fileno()",
        (
            "tests/training/test_metrics.py"
            "::test_lines_are_on_the_disk_before_a_checkpoint_counts_on_them",
        ),
    ),
    Fault(
        "a diagnosis leaves a trace in the run",
        "diagnostics/alignment.py",
        "twin = copy_alone(learner)  # other",
        "twin = learner  # other",
        ("tests/diagnostics/test_watch.py",),
    ),
    Fault(
        "lengths in float32, where squares vanish",
        "diagnostics/alignment.py",
        "row.copy_(piece)",
        "row.copy_(piece.square().sqrt() * piece.sign())",
        ("tests/diagnostics/test_watch.py::test_small_and_large_gradients_keep_their_angle",),
    ),
    Fault(
        "a run is diagnosed on its first examples, whatever their order",
        "studies/diagnosis_log.py",
        "manual_seed(seed))",
        "manual_seed(0))",
        ("tests/studies/test_diagnosis_log.py",),
    ),
    Fault(
        "a damaged line of a diagnosis is not counted",
        "studies/diagnosis_curves.py",
        "            damaged += 1\n",
        "            pass\n",
        ("tests/studies/test_diagnosis_pictures.py",),
    ),
    Fault(
        "a band around a single seed",
        "studies/diagnosis_pictures.py",
        "if band.seeds > 1:",
        "if band.seeds > 0:",
        ("tests/studies/test_diagnosis_pictures.py::test_one_seed_has_no_band",),
    ),
    Fault(
        "the plain estimate of CKA, which calls all alike where units are many",
        "diagnostics/representations.py",
        "return gram.fill_diagonal_(0)",
        "return gram",
        ("tests/diagnostics/test_representations.py",),
    ),
    Fault(
        "rare probes are recommended as if the weights stood still between them",
        "studies/tap_statistics.py",
        "behind = interval * (1 - rate) / rate",
        "behind = (1 - rate) / rate",
        ("tests/studies/test_recommend.py",),
    ),
    Fault(
        "samples are taken to be apart where batch norm lets them meet",
        "diagnostics/jacobians.py",
        "        self.coupled = self._samples_meet()",
        "        self.coupled = False",
        ("tests/diagnostics/test_jacobians.py::test_against_the_loop",),
    ),
    Fault(
        "the noise of a map leaves out what other taps' perturbations do",
        "diagnostics/map_noise.py",
        "        (n * everywhere + beside * rest",
        "        (n * rest + beside * rest",
        ("tests/diagnostics/test_known_credit_errors.py",),
    ),
    Fault(
        "what the mean over a sub-sample misses counts as lag",
        "diagnostics/credit_parts.py",
        "means]) - kept_lost",
        "means])",
        ("tests/diagnostics/test_credit_errors.py::test_given_maps_against_loops",),
    ),
    Fault(
        "a flipped bit in a checkpoint is read",
        "training/manifest.py",
        "if hashlib.sha256(raw).hexdigest() != seal.sha256:",
        "if len(raw) != seal.size:",
        ("tests/training/test_checkpoint_damage.py::test_every_flipped_bit_is_noticed",),
    ),
    Fault(
        "a checkpoint appears before it is whole",
        "training/atomic.py",
        "        yield hidden\n",
        "        os.rename(hidden, path)\n        yield (hidden := path)\n",
        ("tests/training/test_checkpoint_crashes.py::test_killed_at_any_operation",),
    ),
    Fault(
        "parts of a batch count alike, whatever their size",
        "training/learning.py",
        "len(part) * self.processes.count / step.examples",
        "self.processes.count / len(step.parts)",
        (f"{BY_HAND}::test_a_batch_in_parts_is_the_whole_batch_to_rounding",),
    ),
    Fault(
        "warm-up and cosine count from the wrong step",
        "training/settings.py",
        "factor *= (step + 1) / rising",
        "factor *= step / rising",
        (f"{BY_HAND}::test_each_schedule",),
    ),
    Fault(
        "a trainer learns from cross-entropy whatever its settings say",
        "training/trainer.py",
        "loss_function or settings.loss_function",
        "loss_function or torch.nn.functional.cross_entropy",
        ("tests/training/test_losses.py::test_a_trainer_learns_from_the_loss_of_its_settings",),
    ),
    Fault(
        "losses of sigmoid units are means over the classes",
        "training/losses.py",
        "return loss / len(outputs)",
        "return loss / outputs.numel()",
        ("tests/training/test_losses.py",),
    ),
    Fault(
        "test pictures are moved by a mean of their own",
        "data/pixel_scales.py",
        "normalization = _standard(data, stored.brightest)",
        "normalization = _standard(dataclasses.replace(data, train=data.test), stored.brightest)",
        ("tests/data/test_pixel_scales.py",),
    ),
    Fault(
        "the test loss of a run is another than it learned from",
        "studies/runs.py",
        "            loss_function=settings.loss_function,\n",
        "",
        ("tests/studies/test_task.py::test_loss_and_pixels_of_the_settings_are_those_of_the_run",),
    ),
    Fault(
        "patience keeps the last weights",
        "training/trainer.py",
        "self.learner.load_state_dict(self.best.state)",
        "self.best.state",
        ("tests/training/test_patience.py::test_best_of_a_real_training_has_all_of_its_state",),
    ),
    Fault(
        "augmentation draws from torch's own generator",
        "data/pixels.py",
        "torch.rand(len(images), generator=generator)",
        "torch.rand(len(images))",
        (
            "tests/training/test_trainer.py"
            "::test_order_and_augmentation_do_not_touch_torchs_random_numbers",
        ),
    ),
    Fault(
        "what stands counts as what a step takes",
        "studies/memory.py",
        "max(added, live - standing)",
        "max(added, live)",
        ("tests/studies/test_memory.py::test_what_stands_and_what_a_step_takes",),
    ),
    Fault(
        "a network that nothing can train is left out method by method",
        "studies/costs.py",
        "if method == _REFERENCE or not config.asks_for_all:",
        "if not config.asks_for_all:",
        (
            "tests/studies/test_compare_all.py"
            "::test_what_stops_backpropagation_stops_the_comparison",
        ),
    ),
    Fault(
        "a tie does not count as far out",
        "studies/page/paired_tests.py",
        "abs(sum(differences)) - _ROUNDING * sum(sizes)",
        "abs(sum(differences)) + _ROUNDING * sum(sizes)",
        ("tests/page/test_paired_tests.py::test_p_is_the_share_of_sums_that_lie_as_far_out",),
    ),
    Fault(
        "a text of a run is HTML",
        "studies/page/markup.py",
        'f"<td{kind}{_value(cell)}>{html.escape(cell.text)}</td>"',
        'f"<td{kind}{_value(cell)}>{cell.text}</td>"',
        ("tests/page/test_write.py::test_every_text_of_a_run_is_escaped",),
    ),
    Fault(
        "runs on different data make pairs",
        "studies/page/verdicts.py",
        "if base.data == entry.data]",
        "if base.data]",
        ("tests/page/test_write.py::test_runs_on_different_data_are_said_to_be",),
    ),
    Fault(
        "a mean leaves out what is no number",
        "studies/page/curves.py",
        "return statistics.fmean(self.values) if self.known else math.nan",
        "return statistics.fmean(v for v in self.values if math.isfinite(v))",
        ("tests/page/test_found_runs.py::test_what_cannot_be_a_number_is_a_gap",),
    ),
    Fault(
        "the peak of an earlier training counts",
        "training/peak_memory.py",
        '(_PROCESS / "clear_refs").write_text(_RESET_PEAK)',
        "pass",
        ("tests/training/test_peak_memory.py::test_a_new_training_counts_anew",),
    ),
    Fault(
        "an expectation has no limit above",
        "studies/reproduce/findings.py",
        "self.least <= self.found <= self.most",
        "self.least <= self.found",
        ("tests/studies/test_reproduce.py::TestExpectation::test_it_is_met_within_its_limits",),
    ),
    Fault(
        "runs that failed drop out of a mean",
        "studies/reproduce/table_findings.py",
        "return None if self.failed or not self.values",
        "return None if not self.values",
        (f"{TABLE}::TestCells::test_one_of_three_failed",),
    ),
    Fault(
        "what a task says counts more than what a rule says",
        "studies/reproduce/planned_runs.py",
        "_over(table.training, column.training, row.training)",
        "_over(table.training, row.training, column.training)",
        (
            "tests/studies/test_declaration.py"
            "::test_the_rule_counts_more_than_the_task_and_the_task_more_than_the_study",
        ),
    ),
    Fault(
        "a finished run is made again",
        "studies/kept_runs.py",
        "if (finished := recall(folder)) is not None:",
        "if (finished := recall(folder)) is None:",
        (f"{TABLE}::TestGoneOnWith",),
    ),
    Fault(
        "a worker does not hear that its study is gone",
        "studies/reproduce/worker.py",
        "    stop.set()\n",
        "",
        ("tests/studies/test_table_processes.py::TestWorker",),
    ),
    Fault(
        "a budget forgets that some seeds are left",
        "studies/reproduce/scaling.py",
        "share = min(1.0, room_with(kept))",
        "share = min(1.0, room_with(1))",
        (f"{TABLE}::TestBudget::test_it_is_kept_to",),
    ),
    Fault(
        "a budget takes each rule for one with all seeds",
        "studies/reproduce/scaling.py",
        "min(seeds, run.row.seeds or seeds) * taken",
        "seeds * taken",
        (f"{TABLE}::TestBudget::test_a_rule_with_fewer_seeds_takes_less",),
    ),
    Fault(
        "with --overwrite a study counts runs of others as its own",
        "studies/reproduce/table.py",
        "            check()  # runs that no study made",
        "            # runs that no study made",
        (f"{TABLE}::TestGoneOnWith",),
    ),
    Fault(
        "a mean curve goes on without the run that failed",
        "studies/reproduce/table_pictures.py",
        " and all(step in each for each in curves)",
        "",
        (f"{TABLE}::test_a_curve_ends_where_one_of_its_runs_failed",),
    ),
    Fault(
        "an error is the better the larger it is",
        "studies/reproduce/table_findings.py",
        'sign = 1 if table.score == "accuracy" else -1',
        "sign = 1",
        (f"{TABLE}::TestCells::test_targets",),
    ),
    Fault(
        "FDFA's variance in theory lacks each unit's own share",
        "studies/reproduce/variance/laws.py",
        "scale * (shared + _by_unit(h.jacobian))",
        "scale * shared.expand(h.jacobian.shape[2], -1, -1)",
        (f"{LAWS}::test_every_component_of_a_linear_network_obeys_the_bound",),
    ),
    Fault(
        "in theory an innovation takes all samples' Jacobians for one",
        "studies/reproduce/variance/laws.py",
        "noise = shared + (a / N) ** 2 * _by_unit(spread)",
        "noise = 0 * shared",
        (f"{LAWS}::test_naive_draws_have_the_mean_and_the_variance",),
    ),
    Fault(
        "errors of a chain forget its memory",
        "studies/reproduce/variance/draws.py",
        "len(values) * (1 - correlation) / (1 + correlation)",
        "len(values)",
        ("tests/studies/test_variance.py::TestBands::test_errors_of_a_chain_count_its_memory",),
    ),
)

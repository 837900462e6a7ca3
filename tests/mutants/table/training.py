"""The training step, the loop, stages, checkpoints and devices."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TRAINING = "tests/training/"

MUTANTS = (
    Mutant(
        "training/step.py",
        "step_key = jax.random.fold_in(state.key, state.step)",
        "step_key = state.key",
        TRAINING + "test_keys.py::test_the_losses_draw_from_the_key_of_their_step",
    ),
    Mutant(
        "training/step.py",
        "model_key, method_key = jax.random.split(step_key)",
        "model_key, method_key = step_key, step_key",
        TRAINING
        + "test_keys.py::test_a_method_draws_anew_each_step_and_not_what_the_losses_draw "
        + TRAINING
        + "test_keys.py::test_the_losses_draw_from_the_key_of_their_step",
    ),
    Mutant(
        "training/step.py",
        "model_key = jax.random.fold_in(model_key, lax.axis_index(axis_name))",
        "model_key = jax.random.fold_in(model_key, 0)",
        TRAINING + "test_keys.py::test_every_device_drops_units_of_its_own",
    ),
    Mutant(
        "training/step.py",
        "after = losses_fn(moved, *args, True)[0]",
        "after = losses_fn(state.params, *args, True)[0]",
        TRAINING + "test_step.py::test_an_observer_sees_the_losses_of_the_same_batch_after_the_step",
    ),
    Mutant(
        "training/step.py",
        "over_devices(in_order(after, part.names).astype(jnp.float32), found.share, axis_name)",
        "in_order(after, part.names).astype(jnp.float32)",
        TRAINING + "test_keys.py::test_devices_with_unequal_shares_of_the_labels",
    ),
    Mutant(
        "training/step.py",
        "penalties = [each for each in (own, None if penalty is own else penalty) if each is not None]",
        "penalties = [each for each in (own, penalty) if each is not None]",
        TRAINING + "test_penalty.py::test_given_as_argument_too_it_counts_once_and_another_one_more",
    ),
    Mutant(
        "training/step.py",
        "nonfinite=state.nonfinite + found.nonfinite,",
        "nonfinite=state.nonfinite + ~found.active,",
        TRAINING + "test_resting.py::test_the_head_of_an_absent_task_rests",
    ),
    Mutant(
        "training/merging.py",
        "return lax.psum(jnp.where(share > 0, value * share, 0.0), axis_name)",
        "return lax.pmean(value, axis_name)",
        TRAINING + "test_keys.py::test_devices_with_unequal_shares_of_the_labels",
    ),
    Mutant(
        "training/merging.py",
        "return jnp.where(count > 0, total / jnp.maximum(count, 1), b)",
        "return lax.pmean(a, axis_name)",
        "tests/test_network_state.py::test_a_device_without_labels_does_not_pull_the_mean",
    ),
    Mutant(
        "training/resting.py",
        "own = trees.where(present[e], own)",
        "own = own",
        TRAINING + "test_resting.py::test_by_task_in_a_chain_behind_a_method",
    ),
    Mutant(
        "training/resting.py",
        "new = jax.tree.map(jnp.where, keep, new, old)",
        "new = new",
        TRAINING + "test_resting.py::test_by_task_in_a_chain_behind_a_method",
    ),
    Mutant(
        "training/resting.py",
        "present if s is None else present | (s != 0)",
        "present",
        TRAINING + "test_resting.py::test_a_penalty_moves_the_copy_that_it_ties_and_not_the_head",
    ),
    Mutant(
        "training/penalized.py",
        "jnp.where(jnp.isfinite(s), s, jnp.zeros_like(s))",
        "s",
        TRAINING + "test_resting.py::test_a_penalty_that_is_not_finite_touches_nothing",
    ),
    Mutant(
        "training/objective_value.py",
        "value, grad = value + known, with_slope(grad, penalty.slope)",
        "value, grad = value, with_slope(grad, penalty.slope)",
        TRAINING + "test_optimizers.py::test_the_value_is_the_objective_with_the_steps_weights",
    ),
    Mutant(
        "training/evaluate.py",
        "mean = np.divide(total, weights, out=",
        "mean = np.divide(total, len(name), out=",
        TRAINING + "test_evaluate.py",
    ),
    Mutant(
        "training/loop.py",
        "start = int(state.step)\n",
        "start = max(int(state.step) - 1, 0)\n",
        TRAINING + "test_loop.py::test_a_state_that_is_under_way_goes_on",
    ),
    Mutant(
        "training/loop.py",
        "at_end, new = done == num_steps, None",
        "at_end, new = False, None",
        TRAINING + "test_loop.py::test_the_last_step_is_recorded_and_evaluated_once",
    ),
    Mutant(
        "training/streams.py",
        "for done in range(start, num_steps):",
        "for done in range(start, num_steps + 1):",
        TRAINING + "test_loop.py::test_takes_an_iterator_and_leaves_the_rest_of_it",
    ),
    Mutant(
        "training/stages.py",
        "own = jax.random.fold_in(key, index)",
        "own = key",
        TRAINING + "test_stages.py::test_the_run_is_one_fit_after_the_other",
    ),
    Mutant(
        "training/stages.py",
        "params = carry_over(params, previous.params, banks=pair)",
        "params = params",
        TRAINING + "test_stages.py::test_what_both_models_have_is_carried_over_and_all_else_is_new",
    ),
    Mutant(
        "training/recipes.py",
        "name: step >= first",
        "name: step > first",
        TRAINING + "test_recipes.py::test_schedules_reach_masks_of_views_and_of_multi_input_batches",
    ),
    Mutant(
        "training/checkpoint/leaves.py",
        '"weak_type": bool(getattr(data, "weak_type", False)),',
        '"weak_type": False,',
        TRAINING + "test_checkpoint.py::test_keeps_devices_and_weak_types",
    ),
    Mutant(
        "training/checkpoint/leaves.py",
        "return zlib.crc32(np.ascontiguousarray(data).view(np.uint8).data)",
        "return 0",
        TRAINING + "test_checkpoint.py::test_a_flipped_bit_in_an_array_is_noticed",
    ),
)

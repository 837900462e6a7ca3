"""The way of one step: engines, gradients, participation, ranges, trees; adapters and checks."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

AGREE = "tests/engines/test_engines_agree.py::"
PARTICIPATION = "tests/test_participation.py::"
DEVICES = "tests/training/test_devices.py::"
LINKS = "tests/adapters/test_optax_links.py::"
LINEN = "tests/adapters/test_flax_linen.py::"
NNX = "tests/adapters/test_flax_nnx.py::"

MUTANTS = (
    Mutant(
        "trees.py",
        "for x, y in pairs[1:]:",
        "for x, y in pairs[2:]:",
        AGREE + "test_task_gradients_are_the_tasks_own " + AGREE + "test_engines_agree_on_a_dense_net",
    ),
    Mutant(
        "trees.py",
        "return jnp.promote_types(dtype, jnp.float32)",
        "return dtype",
        "tests/penalties/test_penalty_values.py::test_bfloat16_accumulates_in_float32_and_keeps_its_dtype",
    ),
    Mutant(
        "trees.py",
        "inverse = jnp.where(length > 0, 1.0 / jnp.where(length > 0, length, 1.0), 0.0)",
        "inverse = 1.0 / (length + 1e-8)",
        "tests/test_trees.py::test_cosines_do_not_depend_on_lengths_and_are_0_where_there_is_none",
    ),
    Mutant(
        "ranges.py",
        "found = columns * scale * (scale / units)[None, :]",
        "found = columns * scale * scale",
        "tests/test_ranges.py::test_rows_far_from_one_another_have_one_scale",
    ),
    Mutant(
        "ranges.py",
        "size = jnp.max(jnp.where(jnp.isfinite(largest), largest, 0.0))",
        "size = jnp.max(largest)",
        "tests/test_ranges.py::test_a_row_that_is_not_finite_is_named_and_leaves_the_others",
    ),
    Mutant(
        "sweeps.py",
        "(condition.all(axis=0) if in_batched[0] else condition)",
        "(condition.any(axis=0) if in_batched[0] else condition)",
        "tests/test_ranges.py::test_a_vmapped_sweep_scales_where_a_member_needs_it_and_touches_no_other",
    ),
    Mutant(
        "sweeps.py",
        "if in_batched[0] else condition), False",
        "if in_batched[0] else condition), in_batched[0]",
        "tests/test_ranges.py::test_a_vmapped_sweep_scales_where_a_member_needs_it_and_touches_no_other",
    ),
    Mutant(
        "participation.py",
        "share = jnp.where(total > 0, here / jnp.where(total > 0, total, 1.0), 0.0)",
        "share = jnp.where(total > 0, 1.0 / jnp.where(total > 0, total, 1.0), 0.0)",
        "tests/training/test_keys.py::test_devices_with_unequal_shares_of_the_labels",
    ),
    Mutant(
        "participation.py",
        "asked = total > 0 if active is None else active & (total > 0)",
        "asked = total > 0 if active is None else active",
        "tests/gradients/test_aux.py::test_who_is_asked_for_and_has_no_examples_is_absent_too",
    ),
    Mutant(
        "participation.py",
        "return finite if reduce is None else reduce((~finite).astype(jnp.int32)) == 0",
        "return finite",
        PARTICIPATION + "test_all_devices_decide_alike_where_one_sees_the_nan",
    ),
    Mutant(
        "participation.py",
        "limit = trees.along(jnp.where(keep, most, 0.0).astype(dtype), each)",
        "limit = trees.along(jnp.full_like(keep, most, dtype), each)",
        PARTICIPATION + "test_the_others_train_as_if_it_were_absent",
    ),
    Mutant(
        "participation.py",
        "each = own[name] if weights is None else rows_scaled(weights[place], own[name])",
        "each = own[name]",
        LINKS + "test_a_scalarization_weighs_task_gradients_too",
    ),
    Mutant(
        "participation.py",
        "return jax.tree.map(lambda a, b: jnp.where(anyone, a, b), new, old)",
        "return new",
        PARTICIPATION + "test_a_trunk_that_gives_nan_to_all_voids_the_step",
    ),
    Mutant(
        "engines/cotangents.py",
        "scaled = value if factor is None else value * factor",
        "scaled = value",
        AGREE + "test_engines_agree_on_a_dense_net",
    ),
    Mutant(
        "engines/cut.py",
        "return self.reduce(self.linear.pull(total))",
        "return self.linear.pull(total)",
        DEVICES + "test_all_devices_take_the_steps_of_one",
    ),
    Mutant(
        "engines/full.py",
        "return cut.reduce(strategy(cut.linear.pull, cut.rows()))",
        "return cut.reduce(cut.reduce(strategy(cut.linear.pull, cut.rows())))",
        DEVICES + "test_all_devices_take_the_steps_of_one",
    ),
    Mutant(
        "engines/gramian.py",
        "row, largest = cut.reduce(cut.linear.pull(cotangents)), jnp.zeros((), jnp.float32)",
        "row, largest = cut.linear.pull(cotangents), jnp.zeros((), jnp.float32)",
        DEVICES + "test_the_gramian_engine_across_devices",
    ),
    Mutant(
        "engines/gramian.py",
        "seed * tangent.astype(jnp.float32) for seed, tangent in",
        "tangent.astype(jnp.float32) for seed, tangent in",
        DEVICES + "test_the_gramian_engine_across_devices",
    ),
    Mutant(
        "engines/features.py",
        "by_parameter = cut.reduce([r for r, direct in zip(rows, cut.linear.direct, strict=True) if direct])",
        "by_parameter = [r for r, direct in zip(rows, cut.linear.direct, strict=True) if direct]",
        DEVICES + "test_rows_by_parameter_are_summed_over_devices",
    ),
    Mutant(
        "engines/choice.py",
        "if size > ROWS_LIMIT:",
        "if size < ROWS_LIMIT:",
        "tests/engines/test_choice.py::test_rows_that_do_not_fit_are_not_stored",
    ),
    Mutant(
        "gradients/step.py",
        "own = {name: rows_scaled(weights, own[name]) for name, weights in parts}",
        "own = dict(own)",
        "tests/gradients/test_step.py::test_heads_are_weighed_where_the_method_says_so",
    ),
    Mutant(
        "gradients/step.py",
        "seeds = who.share * weights if method.weigh_tasks else who.share",
        "seeds = who.share * weights * weights if method.weigh_tasks else who.share",
        "tests/training/test_step.py::test_one_sgd_step_by_hand "
        "tests/training/test_step.py::test_priors_multiply_what_the_method_decides",
    ),
    Mutant(
        "gradients/step.py",
        "here = jnp.where(who.share > 0, who.share * each, 0.0)",
        "here = each",
        "tests/training/test_keys.py::test_devices_with_unequal_shares_of_the_labels",
    ),
    Mutant(
        "gradients/step.py",
        "own = {name: cut.reduce(own[name]) for name in sorted(own)}",
        "own = {name: own[name] for name in sorted(own)}",
        DEVICES + "test_all_devices_take_the_steps_of_one",
    ),
    Mutant(
        "gradients/batches.py",
        "loss * prior[e].astype(loss.dtype) for e, loss in enumerate(losses)",
        "loss for e, loss in enumerate(losses)",
        "tests/gradients/test_aux.py::test_priors_weigh_tasks_whatever_is_read",
    ),
    Mutant(
        "gradients/transforms.py",
        "share = 1.0 if axis_name is None else 1.0 / lax.axis_size(axis_name)",
        "share = 1.0",
        PARTICIPATION + "test_in_a_pmap_of_ones_own_gradients_are_means_over_the_devices",
    ),
    Mutant(
        "adapters/flax_linen.py",
        "{stream: jax.random.fold_in(key, i) for i, stream in enumerate(rngs)}",
        "{stream: key for i, stream in enumerate(rngs)}",
        "tests/training/test_keys.py::test_every_stream_of_a_linen_module_has_a_key_of_its_own",
    ),
    Mutant(
        "adapters/flax_linen.py",
        "mutable = list(state) if train and state else False",
        "mutable = list(state) if state else False",
        LINEN + "test_no_state_moves_in_evaluation",
    ),
    Mutant(
        "adapters/flax_linen.py",
        "state[collection][entry] if entry in idle else value",
        "value",
        LINEN + "test_one_task_runs_alone_and_leaves_the_others_state",
    ),
    Mutant(
        "adapters/flax_nnx.py",
        "own = key_for(key, jax.tree_util.keystr(path))",
        "own = key",
        NNX + "test_two_dropout_layers_drop_different_units",
    ),
    Mutant(
        "adapters/flax_nnx.py",
        "return outputs, after if train else state",
        "return outputs, after",
        NNX + "test_no_state_moves_in_evaluation",
    ),
    Mutant(
        "adapters/train_flags.py",
        "{name: train if name in _TRAIN else not train for name in flags}",
        "{name: train for name in flags}",
        LINEN + "test_flags_that_mean_evaluation_are_turned_round",
    ),
    Mutant(
        "adapters/optax_links.py",
        "rows = participation.rows_of(present, rows)",
        "rows = rows",
        LINKS + "test_a_task_that_is_left_out_may_hold_anything",
    ),
    Mutant(
        "adapters/optax_links.py",
        "jnp.sum(jnp.triu(cosines, 1) < 0)",
        "jnp.sum(cosines < 0)",
        LINKS + "test_the_state_shows_angles_lengths_and_conflicts",
    ),
    Mutant(
        "checks/numbers.py",
        '"above": (above, np.greater),',
        '"above": (above, np.greater_equal),',
        "tests/test_bad_calls.py",
    ),
    Mutant(
        "checks/predictions.py",
        "known = check_values(\n        where, targets, lambda y: (y >= least) & (y < classes)",
        "known = check_values(\n        where, targets, lambda y: (y >= least) & (y <= classes)",
        "tests/losses/test_labels_out_of_range.py::test_a_traced_one_is_nan_in_its_example_alone",
    ),
    Mutant(
        "partition/layout.py",
        'if f"{path}/".startswith(f"{start.rstrip(\'/\')}/")',
        "if path.startswith(start)",
        "tests/test_partition.py::test_a_path_is_not_a_prefix_of_letters",
    ),
    Mutant(
        "partition/layout.py",
        "return [None if claim is None else tasks.index(claim) for claim in claims]",
        "return [None if claim is None else sorted(tasks).index(claim) for claim in claims]",
        "tests/test_partition.py::test_tasks_stand_in_the_order_of_names",
    ),
    Mutant(
        "partition/dependence.py",
        '_FLAT = ("ceil", "floor", "round", "sign", "stop_gradient")',
        '_FLAT = ("ceil", "floor", "round", "sign")',
        "tests/test_partition.py::test_a_leaf_behind_a_stopped_gradient_is_not_reached",
    ),
)

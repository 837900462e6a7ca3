"""Architectures."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

SHARING = "tests/sharing/"

MUTANTS = (
    Mutant(
        "sharing/frames/network.py",
        "jax.random.fold_in(key, zlib.crc32(name.encode()))",
        "jax.random.fold_in(key, len(name))",
        SHARING
        + "test_contract.py::test_init_needs_shapes_alone_and_follows_its_key "
        + SHARING
        + "test_single_task.py::test_a_dict_of_whole_networks_needs_no_heads_and_each_drops_units_of_its_own",
    ),
    Mutant(
        "sharing/frames/network.py",
        "return tuple(name for name in known if name in tasks)",
        "return tasks",
        SHARING + "test_contract.py::test_tasks_are_asked_for_in_any_order_and_run_once_in_their_own",
    ),
    Mutant(
        "sharing/frames/network.py",
        "return tuple(sorted(check_names(where, what, list(names) if isinstance(names, Mapping) else names)))",
        "return tuple(check_names(where, what, list(names) if isinstance(names, Mapping) else names))",
        SHARING + "test_sharing_models.py::test_the_penalty_sees_the_trunks_in_task_order_and_nothing_else",
    ),
    Mutant(
        "sharing/frames/experts.py",
        "first += each.shape[1]",
        "first += 1",
        SHARING + "test_cgc_ple.py::test_the_equations_of_ple_at_three_levels",
    ),
    Mutant(
        "sharing/mmoe.py",
        'mixture = mix_experts("mmoe", jax.nn.softmax(logits), features["experts"])',
        'mixture = mix_experts("mmoe", jax.nn.softmax(logits, axis=0), features["experts"])',
        SHARING + "test_mmoe.py::test_the_equation",
    ),
    Mutant(
        "sharing/moe.py",
        "jax.nn.softmax(logits, where=chosen)",
        "jnp.where(chosen, odds, 0.0)",
        SHARING + "test_moe.py::test_the_equations",
    ),
    Mutant(
        "sharing/moe.py",
        "balance * count * jnp.sum(used * jnp.mean(odds, axis=0))",
        "balance * jnp.sum(used * jnp.mean(odds, axis=0))",
        SHARING + "test_moe.py::test_the_balance_is_one_where_all_are_used_alike_and_rises_to_the_number_of_experts",
    ),
    Mutant(
        "sharing/dselect_k.py",
        "u = jnp.clip(t / gamma, -0.5, 0.5)",
        "u = t / gamma",
        SHARING + "test_dselect_k.py::test_the_smooth_step_is_cubic_between_exact_ends",
    ),
    Mutant(
        "sharing/dselect_k.py",
        "return weights[..., :count] + again",
        "return weights[..., :count]",
        SHARING + "test_dselect_k.py::test_selectors_are_products_over_bits_and_always_sum_to_one",
    ),
    Mutant(
        "sharing/cross_stitch.py",
        "[names.index(name) for name in wanted])",
        "list(range(len(wanted))))",
        SHARING + "test_cross_stitch.py::test_each_task_alone_reads_its_own_row_of_the_last_unit",
    ),
    Mutant(
        "sharing/frames/mixing.py",
        "(1.0 - own) / (size - 1)",
        "(1.0 - own) / size",
        SHARING + "test_cross_stitch.py::test_units_start_convex_and_near_the_identity_at_any_number_of_tasks",
    ),
    Mutant(
        "sharing/frames/mixing.py",
        '"ij,j...->i..."',
        '"ji,j...->i..."',
        SHARING + "test_cross_stitch.py::test_few_and_many_columns_are_mixed_alike",
    ),
    Mutant(
        "sharing/frames/inputs.py",
        'own = key_for(key, f"inputs/{name}")',
        "own = key",
        SHARING + "test_sharing_models.py::test_every_head_and_every_task_s_inputs_have_a_key_of_their_own",
    ),
    Mutant(
        "sharing/hard.py",
        'return networks[name].apply(own, state, features, key=keyed("task"), train=train)',
        "return networks[name].apply(own, state, features, key=key, train=train)",
        SHARING + "test_sharing_models.py::test_every_head_and_every_task_s_inputs_have_a_key_of_their_own",
    ),
    Mutant(
        "sharing/mtan.py",
        "(jax.nn.sigmoid(logits.astype(wide)) * p.astype(wide))",
        "(jax.nn.softmax(logits.astype(wide)) * p.astype(wide))",
        SHARING + "test_mtan.py::test_outputs_are_the_papers_equations",
    ),
    Mutant(
        "sharing/ltb.py",
        "weights = hard + (soft - lax.stop_gradient(soft))",
        "weights = hard + soft",
        SHARING
        + "test_ltb.py::test_choices_are_draws_of_one_parent_uniform_during_warmup_with_the_derivative_of_a_softmax",
    ),
    Mutant(
        "sharing/ltb.py",
        "theta = jnp.where(calls < warmup, 0.0,",
        "theta = jnp.where(calls <= warmup, 0.0,",
        SHARING
        + "test_ltb.py::test_choices_are_draws_of_one_parent_uniform_during_warmup_with_the_derivative_of_a_softmax "
        + SHARING
        + "test_ltb.py::test_logits_learn_after_the_warmup_and_a_schedule_traces_once",
    ),
    Mutant(
        "sharing/esmm.py",
        "jnp.stack([-a, -b, -a - b])",
        "jnp.stack([-a, -b])",
        SHARING + "test_esmm.py::test_the_rates_multiply",
    ),
    Mutant(
        "sharing/film.py",
        "((1.0 + scale) * features.astype(wide) + shift)",
        "(scale * features.astype(wide) + shift)",
        SHARING + "test_deltas.py::test_film_scales_and_shifts_channels",
    ),
    Mutant(
        "sharing/low_rank.py",
        "factor = 1.0 if alpha is None else alpha / rank",
        "factor = 1.0 if alpha is None else alpha",
        SHARING + "test_deltas.py::test_low_rank_differences_are_scaled_products",
    ),
    Mutant(
        "sharing/frames/deltas.py",
        "trunk = lax.stop_gradient(params.shared) if frozen else params.shared",
        "trunk = params.shared",
        SHARING + "test_deltas.py::test_a_frozen_trunk_gets_no_gradient_and_costs_none",
    ),
    Mutant(
        "sharing/soft.py",
        "own if part == parts[0] else jax.tree.map(jnp.zeros_like, trunk)",
        "own",
        SHARING + "test_sharing_models.py::test_parts_of_a_penalty_are_summands_of_the_trunk",
    ),
    Mutant(
        "sharing/hierarchical.py",
        "logits = lax.stop_gradient(logits) if stop_predictions else logits",
        "logits = logits",
        SHARING + "test_hierarchical.py::test_losses_reach_the_heads_below_unless_predictions_are_stopped",
    ),
    Mutant(
        "sharing/ple.py",
        "count(meet - 1, name))\n        for index",
        "count(meet, name))\n        for index",
        SHARING + "test_cgc_ple.py::test_gates_fit_levels_of_different_numbers",
    ),
    Mutant(
        "sharing/surgery/freeze.py",
        "{TRAINED: optimizer, HELD: optax.set_to_zero()}",
        "{TRAINED: optimizer, HELD: optax.identity()}",
        SHARING + "surgery/test_surgery.py::test_frozen_parameters_stay_to_the_bit_and_the_others_move_as_if_alone",
    ),
    Mutant(
        "sharing/surgery/edit.py",
        "carried.append(name)\n        values.append(value)",
        "carried.append(name)\n        values.append(leaf)",
        SHARING + "surgery/test_surgery.py::test_a_new_task_leaves_the_old_ones_as_they_were",
    ),
)

"""Methods, their wrappers, and solvers."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

METHODS = "tests/methods/"
SOLVERS = "tests/solvers/"

MUTANTS = (
    Mutant(
        "methods/from_losses/pooled.py",
        "total = jnp.sum(counted)",
        "total = jnp.max(counted)",
        "tests/methods/test_pooled.py::test_a_step_is_that_of_the_pooled_mean",
    ),
    Mutant(
        "gradients/step.py",
        '"weight_sum": who.weight_sum,',
        '"weight_sum": known.weight_sum,',
        "tests/losses/test_means.py::test_devices_with_unequal_sums_of_weights_take_the_step_of_one",
    ),
    Mutant(
        "methods/from_losses/dwa.py",
        "weights = number(active) * softmax(rates / temperature, active)",
        "weights = softmax(rates / temperature, active)",
        METHODS + "test_dwa.py::test_dwa_compares_the_last_two_periods",
    ),
    Mutant(
        "methods/from_losses/dwa.py",
        "full = counts >= period",
        "full = counts > period",
        METHODS + "test_dwa.py::test_dwa_compares_the_last_two_periods",
    ),
    Mutant(
        "methods/from_losses/famo.py",
        "fall = jnp.log(distance(inner.losses)) - jnp.log(distance(after))",
        "fall = jnp.log(distance(after)) - jnp.log(distance(inner.losses))",
        METHODS + "test_famo.py::test_famo_by_hand",
    ),
    Mutant(
        "methods/from_losses/famo.py",
        "gradient = z * (fall - total(z * fall, compared))",
        "gradient = z * fall",
        METHODS + "test_famo.py::test_famo_by_hand",
    ),
    Mutant(
        "methods/from_losses/uncertainty.py",
        "return 0.5 * jnp.exp(-s), 0.5 * s",
        "return jnp.exp(-s), 0.5 * s",
        METHODS + "test_uncertainty.py::test_uncertainty_by_hand",
    ),
    Mutant(
        "methods/from_losses/imtl_l.py",
        "pull = jnp.clip(weights * losses, -PULL, PULL) - 1.0",
        "pull = weights * losses - 1.0",
        METHODS + "test_learned_weights.py::test_one_enormous_loss_is_not_remembered_for_ever",
    ),
    Mutant(
        "methods/from_losses/geometric.py",
        "weights = jnp.exp(mean(logs, counted) - logs) / number(counted)",
        "weights = jnp.exp(mean(logs, counted) - logs)",
        METHODS + "test_scalarizations.py::test_weights_are_the_gradient_of_the_formula",
    ),
    Mutant(
        "methods/from_losses/stch.py",
        "jnp.maximum(gaps / mu, jnp.finfo(jnp.float32).min)",
        "jnp.maximum(gaps * mu, jnp.finfo(jnp.float32).min)",
        METHODS
        + "test_scalarizations.py::test_weights_are_the_gradient_of_the_formula "
        + METHODS
        + "test_scalarizations.py::test_limits",
    ),
    Mutant(
        "methods/from_losses/random.py",
        "ranks = jnp.cumsum(active) - 1",
        "ranks = jnp.arange(num_tasks)",
        METHODS + "test_random.py::test_random_draws_pass_over_inactive_tasks",
    ),
    Mutant(
        "methods/from_losses/cov_weighting.py",
        "mean_loss=inner.mean_loss + share * (losses - inner.mean_loss),",
        "mean_loss=losses + share * (inner.mean_loss - losses),",
        METHODS + "test_cov_weighting.py::test_cov_weighting_is_the_authors_recurrence",
    ),
    Mutant(
        "methods/from_gramian/pcgrad.py",
        "weights / number(active) if mean else weights",
        "weights / active.size if mean else weights",
        METHODS + "test_gramian_projections.py::test_the_mean_is_over_the_tasks_that_take_part",
    ),
    Mutant(
        "methods/from_gramian/common.py",
        "return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, row), column))",
        "return jax.random.uniform(jax.random.fold_in(key, column))",
        METHODS + "test_pcgrad.py::test_pcgrad_draws_a_uniform_order_for_each_task",
    ),
    Mutant(
        "methods/from_gramian/gradvac.py",
        "(1.0 - beta) * wanted + beta * cosine",
        "beta * wanted + (1.0 - beta) * cosine",
        METHODS + "test_gradvac.py::test_gradvac_is_its_recurrence_on_the_gradients",
    ),
    Mutant(
        "methods/from_gramian/gradnorm.py",
        "wanted = usual * rate**alpha",
        "wanted = usual * rate ** (1 / alpha)",
        METHODS + "test_gradnorm.py::test_gradnorm_follows_the_gradient_of_its_formula",
    ),
    Mutant(
        "methods/from_gramian/gradnorm.py",
        "moved = weights_from(moved, counted)",
        "moved = jnp.maximum(moved, 0.0)",
        METHODS + "test_gradnorm.py::test_gradnorm_two_steps_by_hand",
    ),
    Mutant(
        "methods/from_gramian/mgda.py",
        "weights / divisor if normalized_update else weights",
        "weights / divisor / divisor if normalized_update else weights",
        METHODS + "test_mgda.py::test_mgda_normalizations_are_mgda_of_scaled_gradients",
    ),
    Mutant(
        "methods/from_gramian/cagrad.py",
        "factor = 1.0 / (1.0 + c * c) if rescale else 1.0",
        "factor = 1.0 / (1.0 + c) if rescale else 1.0",
        METHODS
        + "test_from_gramian.py::test_golden_values "
        + METHODS
        + "test_presets.py::test_the_call_gives_the_numbers",
    ),
    Mutant(
        "methods/from_gramian/sdmgrad.py",
        "velocity = momentum * velocity + multiply(matrix, share + pull * target)",
        "velocity = momentum * velocity + (1 - momentum) * multiply(matrix, share + pull * target)",
        METHODS + "test_sdmgrad.py::test_sdmgrad_is_its_recurrence",
    ),
    Mutant(
        "methods/from_gramian/modo.py",
        "MoDoState(back_among_all(weights, inner.share, active))",
        "MoDoState(weights)",
        METHODS + "test_gramian_more.py::test_what_a_task_had_is_kept_while_it_is_away",
    ),
    Mutant(
        "methods/from_jacobian/graddrop.py",
        "keys = list(jax.random.split(key, len(leaves))) if leaves else []",
        "keys = [key] * len(leaves)",
        METHODS + "test_graddrop.py::test_graddrop_draws_signs_by_their_purity",
    ),
    Mutant(
        "methods/from_jacobian/graddrop.py",
        "mass = above - below",
        "mass = above + below",
        METHODS + "test_graddrop.py::test_graddrop_draws_signs_by_their_purity",
    ),
    Mutant(
        "methods/from_jacobian/moco.py",
        "average = held(jax.tree.map(move, inner.average, rows), inner.average, active)",
        "average = jax.tree.map(move, inner.average, rows)",
        METHODS + "test_moco.py::test_the_average_of_an_absent_task_is_held",
    ),
    Mutant(
        "methods/from_jacobian/db_mtl.py",
        "return new + along(past, new).astype(new.dtype) * (old - new)",
        "return old + along(past, new).astype(new.dtype) * (new - old)",
        METHODS + "test_db_mtl.py::test_db_mtl_by_hand",
    ),
    Mutant(
        "methods/from_jacobian/trimmed_mean.py",
        "cut = jnp.minimum(trim, (number - 1) // 2)",
        "cut = jnp.minimum(trim, number // 2)",
        METHODS + "test_trimmed_mean.py::test_trimmed_mean_of_the_active",
    ),
    Mutant(
        "methods/from_batches/auto_lambda.py",
        "ahead = descend(params, here.gradient(to_weights(learned.meta, asked)), rate)",
        "ahead = params",
        METHODS + "test_auto_lambda.py::test_auto_lambda_on_quadratics",
    ),
    Mutant(
        "methods/from_batches/moml.py",
        "solution = min_norm(multiply(rows, rows.T), active=present)",
        "solution = min_norm(multiply(rows, rows.T))",
        METHODS + "test_bilevel.py::test_an_inactive_task_is_as_good_as_absent",
    ),
    Mutant(
        "methods/from_batches/sampled.py",
        "first, second, last = (participation.rows_of(present, found[k].shared) for k in (0, 1, -1))",
        "first, second, last = (participation.rows_of(present, found[k].shared) for k in (0, 0, -1))",
        METHODS + "test_sampled.py::test_weights_come_from_the_first_two_batches_and_the_update_from_the_last",
    ),
    Mutant(
        "methods/wrappers/ema.py",
        "jnp.where(share > 0, share * kept.average, 0.0) + (1.0 - share) * weights",
        "(1.0 - share) * kept.average + share * weights",
        METHODS + "test_ema.py::test_ema_by_hand",
    ),
    Mutant(
        "methods/wrappers/every.py",
        "return state.inner.count % n == 0",
        "return state.inner.count % n == n - 1",
        "tests/training/test_step.py::test_every_skips_the_jacobian_in_between "
        + METHODS
        + "test_ema.py::test_ema_over_every_averages_the_kept_weights",
    ),
    Mutant(
        "methods/wrappers/preference.py",
        "return product(method.reuse(state, active=active))",
        "return method.reuse(state, active=active)",
        METHODS + "test_preference.py::test_a_preference_holds_at_steps_that_reuse_weights",
    ),
    Mutant(
        "methods/wrappers/rescale.py",
        "return sum_norm(gramian, active) / jnp.maximum(jnp.sum(active), 1)",
        "return sum_norm(gramian, active) / active.size",
        METHODS + "test_rescale.py::test_rescale_sets_the_length_and_nothing_else",
    ),
    Mutant(
        "methods/wrappers/warmup.py",
        "return state.inner.count < steps",
        "return state.inner.count <= steps",
        METHODS + "test_warmup.py::test_warmup_then_the_method_from_its_beginning",
    ),
    Mutant(
        "methods/wrappers/per_group.py",
        "drawn = None if key is None else jax.random.fold_in(key, index)",
        "drawn = key",
        METHODS + "test_per_group.py::test_groups_draw_apart",
    ),
    Mutant(
        "solvers/simplex_qp.py",
        "parts = shift * found.y",
        "parts = found.y",
        SOLVERS + "test_simplex_qp.py::test_golden_values",
    ),
    Mutant(
        "solvers/simplex_qp.py",
        "spread = jnp.where(zero, 1.0, 0.0) / jnp.maximum(jnp.sum(zero), 1)",
        "spread = jnp.where(active, 1.0, 0.0) / jnp.maximum(jnp.sum(active), 1)",
        SOLVERS + "test_simplex_qp.py::test_zero_gradients_take_the_weight",
    ),
    Mutant(
        "solvers/simplex_projection.py",
        "return jnp.where(active, total * moved, weights)",
        "return jnp.where(active, moved, weights)",
        SOLVERS + "test_simplex_projection.py::test_shares_of_tasks_that_come_and_go",
    ),
    Mutant(
        "solvers/sequential.py",
        "jnp.minimum(overlap, 0.0) / diagonal[other]",
        "jnp.minimum(overlap, 0.0) / (diagonal[other] + 1e-8)",
        SOLVERS + "test_sequential.py::test_equals_the_loop_on_gradients",
        equivalent="Rows are scaled to squares of at least 1/4 before, where half a unit in the last place is 1.5e-8.",
    ),
    Mutant(
        "solvers/sequential.py",
        "overlap = jnp.sum(z * matrix[other], axis=1)",
        "overlap = jnp.sum(start * matrix[other], axis=1)",
        SOLVERS + "test_sequential.py::test_equals_the_loop_on_gradients",
    ),
    Mutant(
        "solvers/towards.py",
        "return Solution(share * reference + rest * found.weights, found.residual)",
        "return Solution(found.weights, found.residual)",
        SOLVERS + "test_simplex_projection.py::test_min_norm_towards_is_the_optimum",
    ),
    Mutant(
        "solvers/spectral.py",
        "kept = values > least",
        "kept = values > 0",
        SOLVERS + "test_spectral.py::test_projections_are_exact",
    ),
    Mutant(
        "solvers/nonnegative.py",
        "rounding = WEIGHT_ROUNDING if is_wide(matrix) else BOUND_TOLERANCE",
        "rounding = 0.0",
        SOLVERS + "test_promises.py::test_bounds_and_errors",
    ),
    Mutant(
        "solvers/scaling.py",
        "rest = multiply(matrix_lead, vector - vector_lead) + multiply(matrix - matrix_lead, vector)",
        "rest = multiply(matrix_lead, vector - vector_lead)",
        SOLVERS + "test_simplex_qp.py::test_direction_is_exact",
    ),
)

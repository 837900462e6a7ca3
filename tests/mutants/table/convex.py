"""Penalties, convex fits and Gaussian processes."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

VALUES = "tests/penalties/test_penalty_values.py::"
PROCESS = "tests/gaussian_process/test_gaussian_process.py::"
SPARSE = "tests/penalties/test_sparse_"

MUTANTS = (
    Mutant(
        "penalties/l2_to_mean.py",
        "(wide - stiffness / (1.0 + stiffness) * _centered(wide))",
        "(wide - stiffness * _centered(wide))",
        VALUES + "test_prox_is_where_its_objective_is_stationary",
    ),
    Mutant(
        "penalties/l2_to_mean.py",
        "stiffness = 2.0 * step_size * strength",
        "stiffness = step_size * strength",
        VALUES + "test_prox_is_where_its_objective_is_stationary",
    ),
    Mutant(
        "penalties/l2_to_mean.py",
        "return [row - mean for row in apart]",
        "return [row - lax.stop_gradient(mean) for row in apart]",
        VALUES + "test_gradients_equal_finite_differences",
        equivalent="The distances to the mean sum to 0, so the squared distance does not depend on the mean to first "
        "order, and the derivative is written by hand besides.",
    ),
    Mutant(
        "penalties/pairwise_l2.py",
        "stiffness = 2.0 * step_size * strength * jnp.asarray(np.maximum(eigenvalues, 0.0), wide.dtype)",
        "stiffness = step_size * strength * jnp.asarray(np.maximum(eigenvalues, 0.0), wide.dtype)",
        VALUES + "test_pairwise_prox_solves_its_linear_system",
    ),
    Mutant(
        "penalties/l21.py",
        "shrink(lengths(v), step_size * strength)",
        "shrink(lengths(v), strength)",
        SPARSE + "prox.py::test_prox_is_the_minimizer_that_a_convex_solver_finds",
    ),
    Mutant(
        "penalties/capped_l1.py",
        "below / unit * (magnitudes - 0.5 * below)",
        "below / unit * (magnitudes - below)",
        SPARSE + "prox.py::test_capped_prox_is_the_global_minimizer",
    ),
    Mutant(
        "penalties/capped_l1.py",
        "jnp.where(price <= cap, soft_threshold(v, threshold), v)",
        "jnp.where(price < cap, soft_threshold(v, threshold), v)",
        SPARSE + "prox.py::test_capped_prox_takes_the_sparser_point_where_two_are_as_good",
    ),
    Mutant(
        "penalties/fused.py",
        "jnp.sum(magnitude(w[1:] - w[:-1]))",
        "jnp.sum(magnitude(w[1:] + w[:-1]))",
        SPARSE + "values.py::test_by_hand",
    ),
    Mutant(
        "penalties/trace_norm.py",
        "[[axis] for axis in range(axes)]",
        "[[axis] for axis in range(1, axes)]",
        "tests/penalties/test_trace_norm.py::test_values_equal_those_of_matrices_unfolded_by_hand",
    ),
    Mutant(
        "penalties/clustered.py",
        "edge = jnp.min(jnp.where((edges > 0) & (sums <= dim), edges, jnp.inf))",
        "edge = jnp.min(jnp.where((edges > 0) & (sums < dim), edges, jnp.inf))",
        "tests/penalties/test_spectral_relaxations.py::test_values_and_prox_equal_bisection_for_the_multiplier "
        "tests/penalties/test_spectral_relaxations.py::test_clustered_by_hand",
        equivalent="Where the sum is dim at an edge, the next piece of the line has its solution at that edge too.",
    ),
    Mutant(
        "penalties/singular_values.py",
        "jnp.where(values <= noise, 0.0, values)",
        "values",
        "tests/penalties/test_singular_values.py::test_values_and_gradient_equal_those_of_an_svd "
        "tests/penalties/test_trace_norm.py::test_equal_tasks_are_one_direction",
    ),
    Mutant(
        "penalties/composed.py",
        "moved = operator(tree, step_size * number)",
        "moved = operator(tree, step_size)",
        "tests/penalties/test_composed.py::test_weights_are_of_subtrees_and_zero_leaves_out",
    ),
    Mutant(
        "convex/fit.py",
        "weights = weights / jnp.maximum(jnp.sum(weights, 1, keepdims=True), 1.0)",
        "weights = weights / weights.shape[1]",
        "tests/convex/test_fit.py::test_an_average_weighs_the_rows_of_a_task_by_their_number",
    ),
    Mutant(
        "convex/fit.py",
        "targets = jnp.where(mask, rows.targets, 0.0).astype(dtype)",
        "targets = rows.targets.astype(dtype)",
        "tests/convex/test_fit.py::test_an_average_weighs_the_rows_of_a_task_by_their_number",
    ),
    Mutant(
        "convex/quadratic.py",
        "return v + self.unrotate(residual / (self.curvature + rho))",
        "return v + self.unrotate(residual / (self.curvature + 1.0 / rho))",
        "tests/convex/test_quadratic.py::test_value_and_prox_are_those_of_the_rows",
    ),
    Mutant(
        "convex/path.py",
        "train = rows._replace(mask=rows.mask & ~held_out)",
        "train = rows",
        "tests/convex/test_path.py::test_cross_validation_is_a_loop_over_folds_and_strengths",
    ),
    Mutant(
        "convex/path.py",
        "return -jnp.sum(jnp.where(mask, losses, 0.0)) / jnp.maximum(jnp.sum(mask), 1)",
        "return -jnp.mean(jnp.where(mask, losses, 0.0))",
        "tests/convex/test_path.py::test_cross_validation_is_a_loop_over_folds_and_strengths",
    ),
    Mutant(
        "convex/newton.py",
        "curvature * f - slope, intercept=intercept)",
        "curvature * f + slope, intercept=intercept)",
        "tests/convex/test_fit.py::test_logistic_regression_of_each_task_is_scikit_learns",
    ),
    Mutant(
        "convex/fit.py",
        "constant = 0.5 * jnp.sum(weights * jnp.square(targets - means.targets[:, None]))",
        "constant = 0.5 * jnp.sum(weights * jnp.square(targets))",
        "tests/convex/test_fit.py::test_the_certificate_is_about_the_gap_to_the_normal_equations",
    ),
    Mutant(
        "convex/newton.py",
        "jnp.where(height > 0, 2.0 * height, 1.0)",
        "jnp.where(height > 0, 4.0 * height, 1.0)",
        "tests/convex/test_fit.py::test_the_certificate_of_logistic_losses_is_the_gap_up_to_third_order",
    ),
    Mutant(
        "convex/losses.py",
        "return jax.nn.softplus(-sign.astype(outputs.dtype) * outputs)",
        "return jax.nn.softplus(sign.astype(outputs.dtype) * outputs)",
        "tests/convex/test_fit.py::test_logistic_regression_of_each_task_is_scikit_learns",
    ),
    Mutant(
        "gaussian_process/statistics.py",
        "squares=total(jnp.square(apart)),",
        "squares=total(jnp.square(rows.targets)),",
        PROCESS + "test_weight_space_is_function_space",
    ),
    Mutant(
        "gaussian_process/dense.py",
        "log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor)))",
        "log_det = jnp.sum(jnp.log(jnp.diagonal(factor)))",
        PROCESS + "test_likelihood_gradient_and_posterior_are_the_models",
    ),
    Mutant(
        "gaussian_process/dense.py",
        "jnp.diag(jnp.where(rows.mask, own, 1.0))",
        "jnp.diag(own)",
        PROCESS
        + "test_nothing_observed_leaves_the_prior "
        + PROCESS
        + "test_unrelated_tasks_are_processes_of_their_own",
    ),
    Mutant(
        "gaussian_process/block.py",
        "inputs=jnp.repeat(data.inputs, num_tasks, axis=0),",
        "inputs=jnp.tile(data.inputs, (num_tasks, 1)),",
        PROCESS + "test_a_block_is_its_rows",
    ),
    Mutant(
        "gaussian_process/linear_process.py",
        "off = params.mean - data.center",
        "off = params.mean",
        PROCESS + "test_weight_space_is_function_space",
    ),
)

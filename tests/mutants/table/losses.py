"""Losses and metrics."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MASKED = "tests/losses/test_per_example.py::"
MEANS = "tests/losses/test_means.py::"
IMBALANCE = "tests/losses/test_imbalance.py::"
TRACKING = "tests/metrics/test_tracking.py::"

MUTANTS = (
    Mutant(
        "losses/masked.py",
        "return jnp.sum(values) / jnp.maximum(count, 1), count",
        "return jnp.sum(values) / values.shape[0], count",
        MASKED + "test_masked_mean_by_hand",
    ),
    Mutant(
        "losses/masked.py",
        "total = jnp.sum(jnp.where(_over(mask, values), values, 0))",
        "total = jnp.sum(values * _over(mask, values).astype(values.dtype))",
        MASKED + "test_masked_mean_never_reads_a_masked_value",
    ),
    Mutant(
        "losses/masked.py",
        "outputs, targets = hidden(outputs, shown), hidden(targets, shown)",
        "targets = hidden(targets, shown)",
        MASKED + "test_masked_loss_makes_no_nan_on_the_way",
    ),
    Mutant(
        "losses/masked.py",
        "shares = weights / jnp.where(weight_sum > 0, weight_sum, 1)",
        "shares = weights / jnp.maximum(weight_sum, 1)",
        MEANS + "test_the_ratio_is_exact_for_weights_of_any_size",
    ),
    Mutant(
        "losses/masked.py",
        "weight_sum = jnp.sum(weights) * behind",
        "weight_sum = jnp.sum(weights)",
        MEANS + "test_elements_of_an_example_have_its_weight_each",
    ),
    Mutant(
        "losses/masked.py",
        "weights = jnp.where(sound, weights, 1)",
        "weights = jnp.where(sound, weights, 0)",
        MEANS + "test_a_traced_weight_that_is_wrong_leaves_the_task_out",
    ),
    Mutant(
        "losses/masked.py",
        "return elements, product(mask, own)",
        "return elements, own",
        MEANS + "test_a_mask_multiplies_the_losses_own_weights",
    ),
    Mutant(
        "training/report.py",
        "over_devices(value, shares.get(metric, share), axis_name)",
        "over_devices(value, share, axis_name)",
        MEANS + "test_devices_with_unequal_sums_of_weights_take_the_step_of_one",
    ),
    Mutant(
        "losses/per_example.py",
        "return jnp.square(outputs - targets)",
        "return jnp.square(outputs - targets) / 2",
        MASKED + "test_elements_equal_the_formula",
    ),
    Mutant(
        "losses/tokens.py",
        "outputs = jnp.where(labeled[..., None], outputs, 0)",
        "outputs = outputs + 0",
        "tests/losses/test_tokens.py::test_nothing_at_a_token_without_label_reaches_value_or_gradient",
    ),
    Mutant(
        "losses/tokens.py",
        "labeled = jnp.asarray(targets) >= 0",
        "labeled = jnp.asarray(targets) > 0",
        "tests/losses/test_tokens.py::test_by_hand",
    ),
    Mutant(
        "losses/contrastive.py",
        "return _cross_entropy(scores, own, present[None, :] & ~own)",
        "return _cross_entropy(scores, own, ~own)",
        "tests/losses/test_contrastive.py::test_an_example_that_is_masked_is_as_if_it_were_not_there",
    ),
    Mutant(
        "losses/contrastive.py",
        "scores = _products(views, views) / temperature",
        "scores = _products(views, views) * temperature",
        "tests/losses/test_contrastive.py::test_values_equal_the_papers_formulas_and_are_computed_in_float32",
    ),
    Mutant(
        "losses/contrastive.py",
        "size = lax.stop_gradient(jnp.max(jnp.abs(rows), axis=1, keepdims=True))",
        "size = jnp.max(jnp.abs(rows), axis=1, keepdims=True)",
        "tests/losses/test_contrastive.py::test_gradients_equal_finite_differences",
        equivalent="The unit vector does not depend on the size that its row is divided by first, so its derivative "
        "is the same; the constant saves the work.",
    ),
    Mutant(
        "losses/imbalanced.py",
        "jnp.exp(-gamma * jax.nn.softplus(-odds))",
        "jnp.exp(-gamma * jax.nn.softplus(odds))",
        IMBALANCE + "test_focal_loss_of_classes",
    ),
    Mutant(
        "losses/imbalanced.py",
        "np.log(counts / counts.sum())",
        "np.log(counts / counts.max())",
        IMBALANCE + "test_logit_adjustment",
        equivalent="All logits of a softmax move by the same number, and of two classes the difference alone is read.",
    ),
    Mutant(
        "losses/imbalanced.py",
        "lift = float(shift[1] - shift[0])",
        "lift = float(shift[0] - shift[1])",
        IMBALANCE + "test_logit_adjustment",
    ),
    Mutant(
        "losses/class_weights.py",
        "beta = 1.0 - 1.0 / float(counts.sum())",
        "beta = 1.0 - 1.0 / len(counts)",
        IMBALANCE + "test_effective_number_goes_from_equal_weights_to_inverse_frequency",
    ),
    Mutant(
        "losses/class_weights.py",
        "found[~labeled] = found[labeled].mean() if labeled.any() else 1.0",
        "found[~labeled] = 0.0",
        IMBALANCE + "test_an_example_s_weight_is_the_mean_over_its_labeled_tasks",
    ),
    Mutant(
        "losses/objective.py",
        "own_key = None if key is None else jax.random.fold_in(key, index)",
        "own_key = key",
        "tests/training/test_keys.py::test_every_task_of_a_multi_input_batch_has_a_key_of_its_own",
    ),
    Mutant(
        "losses/judged.py",
        "loss = loss + jnp.where(weight_sum > 0, term, 0.0)",
        "loss = loss + term",
        "tests/losses/test_objective.py::test_a_task_without_labels_is_not_regularized_either",
    ),
    Mutant(
        "losses/judged.py",
        "function, seen, targets, mask))",
        "function, seen, targets, None))",
        "tests/training/test_step.py::test_metrics_are_means_over_labeled_examples",
    ),
    Mutant(
        "losses/objective.py",
        "keep = owners[-1] if owners else anyone",
        "keep = anyone",
        "tests/test_network_state.py::test_a_batch_for_all_keeps_the_heads_of_absent_tasks",
    ),
    Mutant(
        "losses/objective.py",
        "functools.reduce(jnp.logical_or, [each.any() for each in labeled.values()])",
        "functools.reduce(jnp.logical_and, [each.any() for each in labeled.values()])",
        "tests/test_network_state.py::test_a_batch_for_all_keeps_the_heads_of_absent_tasks",
    ),
    Mutant(
        "metrics/delta_m.py",
        "return np.where(higher, -1.0, 1.0)",
        "return np.where(higher, 1.0, -1.0)",
        "tests/metrics/test_delta_m.py::test_published_rows",
    ),
    Mutant(
        "metrics/delta_m.py",
        "better + (tied + 1) / 2",
        "better + tied",
        "tests/metrics/test_delta_m.py::test_mean_rank_equals_scipy_with_many_ties",
    ),
    Mutant(
        "metrics/per_example.py",
        "jnp.argmax(outputs, axis=-1)",
        "jnp.argmax(outputs, axis=1)",
        "tests/metrics/test_per_example.py::test_accuracy_of_every_position",
    ),
    Mutant(
        "metrics/tracking.py",
        "low_a, high_a = a[..., :2] - a[..., 2:] / 2, a[..., :2] + a[..., 2:] / 2",
        "low_a, high_a = a[..., :2], a[..., :2] + a[..., 2:]",
        TRACKING + "test_iou_by_hand",
    ),
    Mutant(
        "metrics/tracking.py",
        "allowed = overlap >= iou_threshold",
        "allowed = overlap > iou_threshold",
        TRACKING + "test_a_stricter_threshold_counts_less",
    ),
    Mutant(
        "metrics/tracking.py",
        "len(rows) + 1.0)",
        "1.0)",
        TRACKING + "test_as_many_pairs_match_as_possible_before_overlap_counts",
    ),
    Mutant(
        "metrics/tracking.py",
        "return 2 * counts.identity_matches / boxes",
        "return counts.identity_matches / counts.objects",
        TRACKING + "test_what_reappears_with_its_identity_is_no_switch_and_with_another_is_one",
    ),
)

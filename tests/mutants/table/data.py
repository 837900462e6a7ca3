"""Batches, mixtures, views and data sets."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

BATCHES = "tests/data/test_batches.py::"
STREAM = "tests/data/mixing/test_stream.py::"
RATES = "tests/data/mixing/test_rates.py::"
SETS = "tests/data/sets/"
VIEWS = "tests/data/views/"

MUTANTS = (
    Mutant(
        "data/batches.py",
        "np.random.default_rng([seed, epoch])",
        "np.random.default_rng([seed])",
        BATCHES + "test_an_epoch_is_a_permutation_and_epochs_differ",
    ),
    Mutant(
        "data/batches.py",
        "own = slice(index * (batch_size // count), (index + 1) * (batch_size // count))",
        "own = slice(index, batch_size // count + index)",
        BATCHES + "test_the_order_over_all_processes_does_not_depend_on_their_number",
    ),
    Mutant(
        "data/batches.py",
        "grain.experimental.set_next_index(stream, start_step)",
        "grain.experimental.set_next_index(stream, max(start_step - 1, 0))",
        BATCHES + "test_resuming_at_any_step_gives_the_same_batches",
    ),
    Mutant(
        "data/batches.py",
        "np.random.default_rng([seed, step]).random(batch_size)",
        "np.random.default_rng(seed).random(batch_size)",
        BATCHES + "test_weights_decide_how_often_an_example_is_drawn",
    ),
    Mutant(
        "data/evaluation.py",
        "yield part._replace(mask={name: product(own, real) for name, own in part.mask.items()})",
        "yield part",
        "tests/data/test_evaluation.py::test_evaluation_sees_every_example_once_in_one_shape",
    ),
    Mutant(
        "data/labels.py",
        "mask = product(mask, each)",
        "mask = each",
        "tests/data/test_labels.py::test_nan_sentinel_given_and_former_masks_are_combined",
    ),
    Mutant(
        "data/labels.py",
        "return there.all(axis=tuple(range(axes, leaf.ndim)))",
        "return there.any(axis=tuple(range(axes, leaf.ndim)))",
        "tests/data/test_labels.py::test_nan_sentinel_given_and_former_masks_are_combined",
    ),
    Mutant(
        "data/labels.py",
        "return there.all(axis=tuple(range(axes, leaf.ndim)))",
        "return there.all(axis=tuple(range(axes - 1, leaf.ndim - 1)))",
        "tests/data/test_labels.py::test_labels_of_pixels_and_of_entries_are_missing_one_by_one",
    ),
    Mutant(
        "data/multilabel.py",
        "astype(xp.float32), present\n",
        "astype(xp.float32), present.all(1)\n",
        "tests/data/test_multilabel.py::test_a_missing_label_is_masked_in_its_own_task_alone",
    ),
    Mutant(
        "data/on_device.py",
        "key = jax.random.fold_in(key, epoch)",
        "key = jax.random.fold_in(key, position)",
        "tests/data/test_on_device.py::test_every_epoch_has_every_example_once_and_epochs_differ",
    ),
    Mutant(
        "data/on_device.py",
        "jax.random.fold_in(jax.random.key(seed), lax.axis_index(axis))",
        "jax.random.key(seed)",
        "tests/data/test_on_device.py::test_on_a_mesh_every_device_draws_from_its_own_rows",
    ),
    Mutant(
        "data/mixing/draws.py",
        'order = np.argsort(counts - quota, kind="stable")',
        'order = np.argsort(quota - counts, kind="stable")',
        STREAM + "test_largest_remainders_by_hand",
    ),
    Mutant(
        "data/mixing/draws.py",
        "return np.random.default_rng([seed, step, 1])",
        "return np.random.default_rng([seed, 1])",
        STREAM + "test_frequencies_are_the_rates",
    ),
    Mutant(
        "data/mixing/rates.py",
        "(capped[name] / largest) ** (1 / temperature)",
        "(capped[name] / largest) ** temperature",
        RATES + "test_rates_are_those_of_t5",
    ),
    Mutant(
        "data/mixing/rates.py",
        "decay * mean.get(name, loss) + (1 - decay) * loss",
        "(1 - decay) * mean.get(name, loss) + decay * loss",
        RATES + "test_loss_driven_rates",
    ),
    Mutant(
        "data/mixing/rates.py",
        "alpha = 1 - drop * epoch / max(epochs - 1, 1)",
        "alpha = 1 - drop * epoch / epochs",
        RATES + "test_annealed_rates_go_from_proportional_towards_uniform",
    ),
    Mutant(
        "data/mixing/stream.py",
        "drawn = np.arange(self._capacity) < count",
        "drawn = np.arange(self._capacity) <= count",
        STREAM + "test_batches_have_one_shape_and_say_what_is_there",
    ),
    Mutant(
        "data/mixing/stream.py",
        "True if active is None else active[name]",
        "True",
        STREAM + "test_losses_drive_the_rates_and_are_part_of_the_state",
    ),
    Mutant(
        "data/mixing/stream.py",
        "stem = [seed, zlib.crc32(name.encode())]",
        "stem = [seed]",
        STREAM + "test_tasks_of_one_size_are_shuffled_apart",
    ),
    Mutant(
        "data/synthetic/common.py",
        "tasks, examples = jax.random.split(key)",
        "tasks, examples = key, key",
        "tests/data/test_synthetic_keys.py::test_without_a_key_of_their_own_examples_come_from_the_key_too "
        "tests/data/test_synthetic.py::test_tasks_come_from_the_key_and_examples_from_theirs",
    ),
    Mutant(
        "data/synthetic/mmoe_toy.py",
        "p * first + jnp.sqrt(1 - p**2) * other",
        "p * first + (1 - p) * other",
        "tests/data/test_synthetic.py::test_mmoe_weights_have_cosine_p_and_length_c",
    ),
    Mutant(
        "data/synthetic/clustered_linear.py",
        "between_deviation * centers[clusters] + within_deviation * offsets",
        "between_deviation * centers[clusters] + between_deviation * offsets",
        "tests/data/test_synthetic.py::test_clustered_weights_scatter_within_and_between_clusters_as_told",
    ),
    Mutant(
        "data/views/augmentation.py",
        "jax.random.split(key, len(augmentations))",
        "[key] * len(augmentations)",
        VIEWS + "test_augmentation.py::test_a_chain_is_its_parts_in_order_with_keys_of_their_own",
    ),
    Mutant(
        "data/views/augmentation.py",
        "0, 2 * pixels + 1)",
        "0, 2 * pixels)",
        VIEWS + "test_augmentation.py::test_crops_are_all_shifts_with_equal_probability",
    ),
    Mutant(
        "data/views/batch.py",
        "view_key, key = jax.random.split(key)",
        "view_key = key",
        VIEWS + "test_batch.py::test_views_are_fresh_in_training_and_fixed_in_evaluation",
    ),
    Mutant(
        "data/views/batch.py",
        "found = view(key_for(key, name), batch.inputs)",
        "found = view(key, batch.inputs)",
        VIEWS + "test_batch.py::test_a_view_draws_alike_whichever_others_there_are",
    ),
    Mutant(
        "data/views/language.py",
        "both = present[:, :-1] & present[:, 1:]",
        "both = present[:, :-1]",
        VIEWS + "test_text.py::test_next_token_is_the_next_one",
    ),
    Mutant(
        "data/views/masked_cells.py",
        "axis=1, independent=True)",
        "axis=1)",
        VIEWS + "test_images.py::test_every_set_of_cells_is_as_likely_as_any_other",
    ),
    Mutant(
        "data/views/words.py",
        "jax.random.randint(key, tokens.shape, 1, window + 1)",
        "jax.random.randint(key, tokens.shape, 1, window)",
        VIEWS + "test_text.py::test_a_shrinking_window_is_uniform_over_its_sizes",
    ),
    Mutant(
        "data/sets/sarcos.py",
        "mean, deviation = train.mean(0), train.std(0)",
        "mean, deviation = rows.mean(0), rows.std(0)",
        SETS + "test_sarcos.py::test_rows_are_those_of_the_seed_and_standardized_by_the_training_rows",
    ),
    Mutant(
        "data/sets/sarcos.py",
        "rows[order[train_rows : train_rows + test_rows]]",
        "rows[order[:test_rows]]",
        SETS + "test_sarcos.py::test_rows_are_those_of_the_seed_and_standardized_by_the_training_rows",
    ),
    Mutant(
        "data/sets/raw.py",
        "if found != known.sha256:",
        "if size != known.size:",
        SETS + "test_raw.py::test_a_truncated_or_corrupted_file_is_refused_with_its_name_and_both_checksums",
    ),
)

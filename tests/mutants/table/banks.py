"""Mutants of banks: many tasks of one form along an axis."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

BANKS = "tests/banks/test_bank_equals_singles.py::"
RUNS = "tests/banks/test_runs_with_banks.py::"
ONE_EACH = "tests/banks/test_one_task_each.py::"

MUTANTS = (
    Mutant(
        "banks/entries.py",
        "rows = [part if size is not None else part[None] for part, size in zip(parts, self.sizes, strict=True)]",
        "rows = [part[::-1] if size is not None else part[None] for part, size in zip(parts, self.sizes, strict=True)]",
        BANKS + "test_absent_tasks_of_a_bank_rest",
    ),
    Mutant(
        "banks/apart.py",
        "copies = (size if group is None else group.size) if apart else 1",
        "copies = size if apart else 1",
        BANKS + "test_groups_of_a_bank_are_summed_without_the_bad_task",
    ),
    Mutant(
        "engines/cut.py",
        "found, present = lax.cond(throughout(fine), lambda: (before, cut.active), again)",
        "found, present = before, cut.active",
        BANKS + "test_a_task_that_is_not_finite_is_contained",
    ),
    Mutant(
        "engines/cut.py",
        "counted = fine & (start + jnp.arange(number) >= k * number)",
        "counted = fine",
        BANKS + "test_groups_of_a_bank_are_summed_without_the_bad_task",
    ),
    Mutant(
        "sharing/surgery/freeze.py",
        "return without_held(held, found), state",
        "return found, state",
        RUNS + "test_a_task_of_a_bank_is_frozen",
    ),
    Mutant(
        "banks/moved.py",
        "jnp.asarray(new).at[after].set(jnp.asarray(old)[before])",
        "jnp.asarray(new).at[after].set(jnp.asarray(old)[: len(before)])",
        RUNS + "test_a_bank_grows_and_shrinks",
    ),
    Mutant(
        "training/identity.py",
        "if before != tasks:",
        "if sorted(before) != sorted(tasks):",
        RUNS + "test_a_run_resumes_with_its_tasks_alone",
    ),
    Mutant(
        "training/log.py",
        "counted &= np.asarray(present[entry])",
        "pass",
        RUNS + "test_a_record_is_short_unless_asked",
    ),
    Mutant(
        "training/log.py",
        "active[..., first] & active[..., second]",
        "active[..., first] | active[..., second]",
        RUNS + "test_a_record_is_short_unless_asked",
    ),
    Mutant(
        "training/checkpoint/params.py",
        "values[name] = moved(rows, leaf, found[name])",
        "values[name] = found[name][: len(leaf)]",
        RUNS + "test_parameters_are_restored_by_the_names_of_tasks",
    ),
    Mutant(
        "sharing/frames/bank.py",
        "leaf[row, examples]",
        "leaf[0, examples]",
        ONE_EACH + "test_engines",
    ),
    Mutant(
        "sharing/frames/bank.py",
        "jax.random.fold_in(key_of_task(block, rest), example)",
        "key_of_task(block, rest)",
        ONE_EACH + "test_dropout_differs_from_example_to_example",
    ),
    Mutant(
        "losses/masked.py",
        "means = jnp.where((index >= num_tasks) & (sums > 0), jnp.nan, means)",
        "pass",
        ONE_EACH + "test_an_index_beyond_the_bank_is_seen",
    ),
    Mutant(
        "losses/judged.py",
        'product(given["mask"], index >= 0)',
        'given["mask"]',
        ONE_EACH + "test_weights_and_an_absent_task " + ONE_EACH + "test_nan_labels",
    ),
    Mutant(
        "losses/judged.py",
        'given["mask"] = index >= 0 if given["mask"] is None',
        'given["mask"] = index >= -9 if given["mask"] is None',
        ONE_EACH + "test_nan_labels",
    ),
    Mutant(
        "penalties/proximal.py",
        "rows = operator(jax.tree.map(lambda i: moved[i], place), step_size)",
        "rows = jax.tree.map(lambda i: moved[i], place)",
        "tests/banks/test_ways_to_run.py::test_proximal_on_a_bank",
    ),
)

"""The example, from the command's function to its files, with a handful of steps."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from examples import semi_supervised as example

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
def test_it_writes_a_table_and_a_plot_and_says_where(tmp_path, capsys):
    example.main(steps=3, pretraining=2, seeds=2, out=tmp_path)
    printed = capsys.readouterr().out
    table = (tmp_path / "table.md").read_text()
    assert table in printed
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:] == [*example.STYLES]
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert list(results) == list(example.STYLES)
    for row in results.values():
        assert list(row) == list(example.SHARES)
        assert all(len(seeds) == 2 and 0 <= min(seeds) <= max(seeds) <= 100 for seeds in row.values())
    assert printed.splitlines()[-1] == str(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)


def test_splits_are_disjoint_and_labels_are_a_balanced_share_of_the_training_split():
    data = example.load()
    assert {name: len(split.inputs) for name, split in data.items()} == {"test": 360, "validation": 360, "train": 1077}
    chosen = example.labeled(data["train"], 0.05, seed=0)
    assert len(chosen.inputs) == 2 * 54  # too few for a batch, so each stands twice
    assert sorted(np.bincount(chosen.targets["digit"])) == [2 * 5] * 6 + [2 * 6] * 4
    few = example.labeled(data["train"], 0.01, seed=1)
    assert len(few.inputs) >= example.BATCH_SIZE
    assert len(np.unique(few.inputs, axis=0)) == 11
    assert set(few.targets["digit"]) == set(range(10))
    other = example.labeled(data["train"], 0.01, seed=2)
    assert (other.inputs != few.inputs).any()


def test_batches_give_each_run_and_task_its_own_examples_and_resume():
    train = example.load()["train"]
    stream = example.batches(train, ("digit", "match"), [0.01, 1.0], 2, 0)
    _, second = next(stream), next(stream)
    assert second["digit"].inputs.shape == second["match"].inputs.shape == (4, example.BATCH_SIZE, 8, 8, 1)
    assert second["match"].targets == {}
    resumed = next(example.batches(train, ("digit", "match"), [0.01, 1.0], 2, 1))
    jax.tree.map(np.testing.assert_array_equal, second, resumed)


@pytest.mark.parametrize("steps, pretraining, seeds", [(0, 1, 2), (1, 0, 2), (1, 1, 1)])
def test_too_few_steps_or_seeds_are_refused_before_anything_is_written(steps, pretraining, seeds, tmp_path):
    with pytest.raises(SystemExit, match=f"found {steps}, {pretraining} and {seeds}"):
        example.main(steps=steps, pretraining=pretraining, seeds=seeds, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()

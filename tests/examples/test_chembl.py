"""The example on a few made-up molecules: its errors, and its step beside the program by hand."""

from __future__ import annotations

import json

import jax
import numpy as np
import optax
import pytest

import mtljax
from benchmarks import chembl as benchmark
from examples import chembl as example

NAMES = tuple(f"target_{k}" for k in range(5))


def splits(sizes=(24, 9, 10)):
    """Numbers of 5 targets, a third of them there; the last target has none."""
    rng, found = np.random.default_rng(0), {}
    for name, size in zip(("train", "validation", "test"), sizes, strict=True):
        inputs = rng.integers(0, 2, (size, 16)).astype(np.float32)
        mask = (rng.random((size, 5)) < 0.35) & (np.arange(5) < 4)
        mask[0, :4] = True
        targets = np.where(mask, rng.normal(size=(size, 5)), 0).astype(np.float32)
        found[name] = mtljax.Batch(inputs, {example.ENTRY: targets}, {example.ENTRY: mask})
    return found


@pytest.fixture
def small(monkeypatch):
    for name, value in {"WIDTH": 8, "RANK": 2, "BATCH_SIZE": 8, "EVALUATED": 4, "FEW": 2}.items():
        monkeypatch.setattr(example, name, value)


def test_errors_are_over_all_labels_and_over_targets_with_enough_of_them(small):
    split = splits()["test"]
    target, mask = split.targets[example.ENTRY], split.mask[example.ENTRY]
    outputs = np.random.default_rng(1).normal(size=target.shape)
    squares = (outputs - target) ** 2
    with np.errstate(invalid="ignore"):
        losses = np.where(mask, squares, 0).sum(0) / mask.sum(0)
    found = example.errors(losses, split, example.Scale(6.0, 3.0))
    np.testing.assert_allclose(found["labels"], 3 * np.sqrt(squares[mask].mean()))
    enough = [k for k in range(5) if mask[:, k].sum() >= 2]
    assert 0 < len(enough) < 5
    by_target = [np.sqrt(squares[mask[:, k], k].mean()) for k in enough]
    np.testing.assert_allclose(found["targets"], 3 * np.mean(by_target))


@pytest.mark.slow
def test_the_pooled_row_takes_the_steps_of_the_program_by_hand(small, monkeypatch):
    monkeypatch.setattr(example, "DROPOUT", 0.0)
    monkeypatch.setattr(example, "LEARNING_RATE", 0.01)
    batch = splits()["train"]
    hand = benchmark.by_hand(16, 5)
    theirs = hand.init(jax.random.key(0))
    row = example.contestants(NAMES)["pooled"]
    init, step = mtljax.training.make_train_step(
        mtljax.make_losses_fn(row.model, example.TASKS), row.method, optax.adam(0.01)
    )
    state = init(jax.random.key(1), batch.inputs)
    first, head = state.params.shared["Dense_0"], state.params.tasks[example.ENTRY]["Dense_0"]
    params = {
        "w1": first["kernel"],
        "b1": first["bias"],
        "w2": head["kernel"][:, :, 0].T,
        "b2": head["bias"][:, 0],
    }
    theirs = (jax.tree.map(np.asarray, params), *theirs[1:])
    step = jax.jit(step)
    for _ in range(4):
        state, metrics = step(state, batch)
        with jax.numpy_rank_promotion("allow"):
            theirs, loss = hand.step(theirs, batch.inputs, batch.targets[example.ENTRY], batch.mask[example.ENTRY])
        weighted = metrics["weights"].array @ metrics["losses"].array
        np.testing.assert_allclose(weighted, loss, rtol=1e-5)
    outputs, _ = row.model.apply(state.params, state.model_state, batch.inputs)
    with jax.numpy_rank_promotion("allow"):
        expected = hand.predict(theirs[0], batch.inputs)
    np.testing.assert_allclose(outputs[example.ENTRY], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_it_writes_a_table_of_the_rows_and_says_where(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(example, "load", lambda data_dir: (splits(), example.Scale(6.0, 1.0)))
    everything = example.contestants
    monkeypatch.setattr(example, "contestants", lambda names: everything(NAMES))
    rows = ("pooled", "pooled, heads near their mean", "pooled, heads of low rank")
    example.main(rows=rows, epochs=2, seeds=2, out=tmp_path)
    printed = capsys.readouterr().out
    table = (tmp_path / "table.md").read_text()
    assert table in printed and printed.splitlines()[-1] == str(tmp_path / "results.json")
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:] == list(rows)
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    for runs in results.values():
        assert all(run["epoch"] in (1, 2) and 0 < run["validation"]["labels"] < 10 for run in runs)


@pytest.mark.parametrize("wrong", [{"rows": ("pool",)}, {"epochs": 1}, {"seeds": 1}])
def test_wrong_arguments_are_refused_before_anything_is_written(wrong, tmp_path):
    with pytest.raises(SystemExit, match="expected --rows among"):
        example.main(**wrong, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()

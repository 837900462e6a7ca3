from __future__ import annotations

import io
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from mtljax.training import checkpoint, log
from mtljax.training.loop import fit
from mtljax.training.parallel import pmap, sharded, split_batch
from mtljax.training.progress import progress_bar
from tests.training.problem import assert_same_bits, batch_at, batches, make_state, step

STEP = jax.jit(step)


def run(**kwargs):
    step, state = kwargs.pop("step", STEP), kwargs.pop("state", None)
    stream = kwargs.pop("batches", batches)
    return fit(step, make_state() if state is None else state, stream, **{"num_steps": 20, "log_every": 4} | kwargs)


def history_of(**kwargs):
    records = []
    result = run(log=records.append, **kwargs)
    assert result.record == records[-1]
    return records


def timeless(history):
    return [{name: value for name, value in record.items() if name != "time"} for record in history]


def evaluate(state):
    return {"norm": jnp.sqrt(jnp.sum(state.params.shared["w"] ** 2))}


def test_equals_a_loop_by_hand():
    state = make_state()
    metrics = []
    for number in range(20):
        state, entry = STEP(state, batch_at(number))
        metrics.append(entry)
    records = []
    result = run(log=records.append)
    assert_same_bits(result.state, state)
    assert timeless(records) == [
        {"step": done, "train": log.to_record(metrics[done - 1])} for done in (4, 8, 12, 16, 20)
    ]


def test_takes_an_iterator_and_leaves_the_rest_of_it():
    stream = batches(0)
    assert_same_bits(run(batches=stream).state, run().state)
    np.testing.assert_array_equal(next(stream)["x"], batch_at(20)["x"])


def test_the_last_step_is_recorded_and_evaluated_once():
    history = history_of(num_steps=10, log_every=4, evaluate=evaluate, eval_every=5)
    assert [(r["step"], sorted(set(r) - {"step", "time"})) for r in history] == [
        (4, ["train"]),
        (5, ["eval"]),
        (8, ["train"]),
        (10, ["eval", "train"]),
    ]
    assert isinstance(history[-1]["eval"]["norm"], float)
    assert [r["step"] for r in history_of(evaluate=evaluate) if "eval" in r] == [20]


def test_metrics_stay_on_the_device_between_records(monkeypatch):
    fetched = []
    real = log.to_record
    monkeypatch.setattr(log, "to_record", lambda tree, **options: fetched.append(tree) or real(tree, **options))
    run(num_steps=20, log_every=10)
    assert len(fetched) == 2


def test_log_to_a_file_a_function_and_both(tmp_path):
    path = tmp_path / "logs" / "log.jsonl"
    seen = []
    result = run(log=[path, seen.append])
    assert log.read(path) == seen
    assert [r["step"] for r in seen] == [4, 8, 12, 16, 20]
    assert result.record == seen[-1]


def test_a_second_run_without_checkpoints_starts_its_log_anew(tmp_path):
    path = tmp_path / "log.jsonl"
    run(log=path)
    with pytest.warns(UserWarning, match=r"has records beyond step 0, where this run starts without a checkpoint"):
        run(log=path, num_steps=8)
    assert [r["step"] for r in log.read(path)] == [4, 8]
    assert [r["step"] for r in log.read(tmp_path / "log.jsonl.1")] == [4, 8, 12, 16, 20]


@pytest.mark.parametrize("stop", [3, 4, 13, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 6, 9, 12, 19))])
def test_resumed_equals_undisturbed_to_the_bit_in_state_and_log(tmp_path, stop):
    settings = {"evaluate": evaluate, "eval_every": 6, "checkpoint_every": 3}
    whole = run(**settings, log=tmp_path / "whole.jsonl", checkpoint_dir=tmp_path / "whole")

    def failing(start):
        return itertools.chain(itertools.islice(batches(start), stop - start), iter(crash, None))

    def crash():
        raise ConnectionError("the data went away")

    again = {**settings, "log": tmp_path / "again.jsonl", "checkpoint_dir": tmp_path / "again"}
    with pytest.raises(ConnectionError):
        run(**again, batches=failing)
    resumed = run(**again)
    assert_same_bits(resumed.state, whole.state)
    assert timeless(log.read(tmp_path / "again.jsonl")) == timeless(log.read(tmp_path / "whole.jsonl"))
    assert timeless([resumed.record]) == timeless([whole.record])


def test_a_finished_run_is_read_back_and_not_trained_again(tmp_path):
    def untouched(start):
        raise AssertionError("asked for data")

    settings = {"checkpoint_dir": tmp_path / "c", "evaluate": evaluate}
    first = run(**settings, log=tmp_path / "log.jsonl")
    second = run(**settings, log=tmp_path / "log.jsonl", batches=untouched)
    assert_same_bits(first.state, second.state)
    assert second.record == first.record == log.read(tmp_path / "log.jsonl")[-1]
    assert run(**settings, batches=untouched).record == first.record
    assert run(checkpoint_dir=tmp_path / "c", log=tmp_path / "new.jsonl", batches=untouched).record == first.record
    assert log.read(tmp_path / "new.jsonl") == [first.record]


def test_a_finished_run_goes_on_when_asked_for_more(tmp_path):
    run(num_steps=10, checkpoint_dir=tmp_path)
    assert_same_bits(run(num_steps=20, checkpoint_dir=tmp_path).state, run(num_steps=20).state)


def test_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path):
    directory = tmp_path / "c"
    run(num_steps=12, checkpoint_dir=directory, checkpoint_every=4, log=tmp_path / "log.jsonl")
    (directory / "mtljax_12" / "state" / "_METADATA").unlink()
    with pytest.warns(UserWarning, match=re.escape(f"checkpoint {directory}/mtljax_12 is damaged")):
        resumed = run(num_steps=20, checkpoint_dir=directory, checkpoint_every=4, log=tmp_path / "log.jsonl")
    assert_same_bits(resumed.state, run().state)
    assert [r["step"] for r in log.read(tmp_path / "log.jsonl")] == [4, 8, 12, 16, 20]


def test_an_iterator_cannot_be_resumed(tmp_path):
    run(num_steps=8, checkpoint_dir=tmp_path, batches=batches(0))
    with pytest.raises(
        ValueError, match=r"batches must be a function of the step to resume from .*mtljax_8.*found gen"
    ):
        run(checkpoint_dir=tmp_path, batches=batches(8))


def test_a_state_that_is_under_way_goes_on():
    half = run(num_steps=10)
    assert_same_bits(fit(STEP, half.state, batches, num_steps=20).state, run().state)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batches": [batch_at(0)] * 7}, "batches must last until num_steps, step 20, found their end after step 7"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        run(**settings)


def test_a_checkpoint_beyond_the_end_is_an_error(tmp_path):
    run(num_steps=8, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="num_steps must be at least 8, the step of the state, found 5"):
        run(num_steps=5, checkpoint_dir=tmp_path)


@pytest.mark.parametrize("way", ["pmap", pytest.param("sharded", marks=pytest.mark.slow)])
def test_many_devices_resume_to_the_bit(tmp_path, way):
    if way == "pmap":
        devices = jax.local_device_count()
        parallel_step = pmap(step)

        def stream(start):
            return (split_batch(batch, devices) for batch in batches(start))

    else:
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        parallel_step, stream = sharded(step, mesh), batches

    def run(num_steps, directory):
        return fit(parallel_step, make_state(), stream, num_steps=num_steps, checkpoint_dir=directory).state

    whole = run(8, tmp_path / "whole")
    run(5, tmp_path / "halves")
    assert_same_bits(run(8, tmp_path / "halves"), whole)


def test_a_donating_step(tmp_path):
    donating = jax.jit(step, donate_argnums=0)
    result = fit(donating, make_state(), batches, num_steps=20, checkpoint_dir=tmp_path, checkpoint_every=1, keep=20)
    assert_same_bits(result.state, run().state)
    for number in (7, 20):
        back = checkpoint.restore(tmp_path, make_state(), step=number)
        assert_same_bits(back.state, run(num_steps=number).state)


def test_metrics_may_be_any_pytree():
    bare = jax.jit(lambda state, batch: (step(state, batch)[0], jnp.float32(1)))
    assert [r["train"] for r in history_of(step=bare, num_steps=2, log_every=1)] == [1.0, 1.0]


def test_the_bar_is_drawn_in_a_terminal_and_nowhere_else(capsys):
    terminal = io.StringIO()
    with progress_bar(10, console=Console(file=terminal, force_terminal=True, width=120)) as update:
        update(5, "left 0.25 [not markup]")
    assert "5/10" in terminal.getvalue() and "left 0.25 [not markup]" in terminal.getvalue()

    pipe = io.StringIO()
    with progress_bar(10, console=Console(file=pipe, force_terminal=False)) as update:
        update(5, "left 0.25")
    assert pipe.getvalue() == ""

    run()
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""

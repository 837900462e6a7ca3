"""What goes wrong around a run loses nothing: evaluations, logs, disks, signals, a second run."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax.training import checkpoint, log, signals
from mtljax.training.loop import fit
from tests.training.problem import assert_same_bits, batches, make_state, step

ROOT = Path(__file__).resolve().parents[2]
STEP = jax.jit(step)


def run(**options):
    return fit(STEP, make_state(), batches, **{"num_steps": 6, "log_every": 3, "progress": False} | options)


def failing(state):
    raise ConnectionError("no metrics today")


def full(record):
    raise OSError(28, "No space left on device")


def timeless(path):
    return [{name: value for name, value in record.items() if name != "time"} for record in log.read(path)]


def state_of(raised):
    return vars(raised.value)["state"]


def restored(folder):
    found = checkpoint.restore(folder, make_state())
    assert found is not None
    return found.state


@pytest.mark.parametrize("fault", [{"evaluate": failing}, {"log": full}])
def test_an_error_at_the_last_step_leaves_the_state(fault, tmp_path):
    expected = run().state
    with pytest.raises(OSError, match=r"no metrics|No space") as raised:
        run(**fault, log_every=10)
    assert_same_bits(state_of(raised), expected)
    assert "attribute `state`" in raised.value.__notes__[-1]
    with pytest.raises(OSError, match=r"no metrics|No space") as raised:
        run(**fault, log_every=10, checkpoint_dir=tmp_path)
    assert "a checkpoint of step 6 is in" in raised.value.__notes__[0]
    assert_same_bits(restored(tmp_path), expected)


@pytest.mark.parametrize("eval_every", [None, 2])
def test_what_was_not_evaluated_is_made_up_for(eval_every, tmp_path):
    path = tmp_path / "log.jsonl"
    options = {"log": path, "checkpoint_dir": tmp_path / "c", "eval_every": eval_every}
    with pytest.raises(ConnectionError):
        run(**options, evaluate=failing)
    run(**options, evaluate=lambda state: {"step": state.step})
    records = log.read(path)
    assert [r["step"] for r in records if "train" in r] == [3, 6]
    due = [6] if eval_every is None else [2, 4, 6]
    assert [(r["step"], r["eval"]) for r in records if "eval" in r] == [(n, {"step": n}) for n in due]


def test_a_record_that_the_log_did_not_take_is_written_on_resume(tmp_path):
    path, options = tmp_path / "log.jsonl", {"checkpoint_dir": tmp_path / "c"}
    run(log=tmp_path / "whole.jsonl")
    with pytest.raises(OSError, match="No space"):
        run(**options, log=[full, path])
    result = run(**options, log=path)
    assert timeless(path) == timeless(tmp_path / "whole.jsonl")
    assert result.record == log.read(path)[-1]


def test_an_error_of_the_last_write_leaves_the_state(tmp_path, monkeypatch):
    def refuse(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "wait", refuse)
    with pytest.raises(OSError, match="No space") as raised:
        run(checkpoint_dir=tmp_path)
    assert_same_bits(state_of(raised), run().state)


@pytest.mark.slow
def test_a_disk_that_is_full(tmp_path):
    """On a real file system of half a megabyte: an error, the log whole, the state kept, and no more than that lost."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        # The log alone would fill it: whether checkpoints do depends on how soon old ones are deleted.
        options = {"num_steps": 4000, "log_every": 1, "log": small / "log.jsonl", "checkpoint_dir": small / "c"}
        with pytest.raises(Exception, match="No space left") as raised:
            run(**options, checkpoint_every=20)
        assert state_of(raised).step > 0
        assert (small / "log.jsonl").read_bytes().endswith(b"}\n")
        state = restored(small / "c")
        assert_same_bits(state, run(num_steps=int(state.step)).state)
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("place", ["checkpoint_dir", "log"])
def test_a_second_run_on_one_folder_or_log_is_refused_before_its_first_step(tmp_path, place):
    places = {"checkpoint_dir": tmp_path / "c", "log": tmp_path / "log.jsonl"}

    def second(state):
        with pytest.raises(ValueError, match=r"fit: .* must be of one run at a time, found another run"):
            fit(STEP, make_state(), lambda start: iter([]), num_steps=6, progress=False, **{place: places[place]})
        return {}

    run(**places, evaluate=second)
    assert checkpoint.steps(tmp_path / "c") == [6]


def test_a_state_ahead_of_the_folder_is_refused(tmp_path):
    run(checkpoint_dir=tmp_path)
    ahead = run(num_steps=10).state
    with pytest.raises(ValueError, match=r"state must not be ahead of the newest .*mtljax_6, found step 10"):
        fit(STEP, ahead, batches, num_steps=20, checkpoint_dir=tmp_path)
    assert_same_bits(
        fit(STEP, ahead, batches, num_steps=12, checkpoint_dir=tmp_path / "new").state, run(num_steps=12).state
    )


class Numbered:
    """An iterator whose state has numbers for keys, as the epochs of a sampler."""

    def __init__(self):
        self.place = {0: 0}

    def __iter__(self):
        return self

    def __next__(self):
        assert list(self.place) == [0]
        self.place = {0: self.place[0] + 1}
        return next(batches(self.place[0] - 1))

    def get_state(self):
        return self.place

    def set_state(self, place):
        self.place = place


def test_an_iterator_gets_its_integer_keys_back(tmp_path):
    fit(STEP, make_state(), Numbered(), num_steps=4, checkpoint_dir=tmp_path, progress=False)
    assert_same_bits(
        fit(STEP, make_state(), Numbered(), num_steps=6, checkpoint_dir=tmp_path, progress=False).state, run().state
    )


def test_memory_does_not_grow_with_the_steps(tmp_path):
    """Neither with records, of which a log has 1,000."""
    metrics = {"losses": {str(number): np.float32(number) for number in range(50)}}

    def count(state, batch):
        return state._replace(step=state.step + 1), metrics

    state = make_state()._replace(step=np.int32(0))
    held = {}

    def stream(start):
        for number in range(1000):
            if number in (500, 999):
                gc.collect()
                held[number] = tracemalloc.get_traced_memory()[0]
            yield number

    tracemalloc.start()
    try:
        result = fit(count, state, stream, num_steps=1000, log=tmp_path / "log.jsonl", log_every=1, progress=False)
    finally:
        tracemalloc.stop()
    assert held[999] - held[500] < 100_000  # a record takes 5,000
    assert (tmp_path / "log.jsonl").stat().st_size > 500_000
    assert result.record is not None and result.record["step"] == 1000


RUN = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
import jax
from mtljax.training.loop import fit
from tests.training.problem import batches, make_state, step
jitted = jax.jit(step)
def slow(state, batch):
    print(int(state.step), flush=True)
    time.sleep(float(sys.argv[2]))
    return jitted(state, batch)
fit(slow, make_state(), batches, num_steps=10_000, log=sys.argv[1] + "/log.jsonl", checkpoint_dir=sys.argv[1] + "/c")
"""


def signalled(directory, *numbers, seconds_a_step="0.01"):
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(directory), seconds_a_step],
        **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 5:
            break
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.2)
    begun = time.monotonic()
    rest, errors = process.communicate(timeout=60)
    return process.returncode, errors, [5, *map(int, rest.split())][-1] + 1, time.monotonic() - begun


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint_and_one_line(number, code, tmp_path):
    returned, errors, done, _ = signalled(tmp_path, number)
    assert returned == code
    assert errors.splitlines() == [
        f"{number.name}: the step is complete, and its checkpoint is in {tmp_path}/c; start again to continue"
    ]
    assert checkpoint.steps(tmp_path / "c") == [done]
    assert_same_bits(run(num_steps=done + 3, checkpoint_dir=tmp_path / "c").state, run(num_steps=done + 3).state)


@pytest.mark.slow
def test_a_second_signal_acts_at_once(tmp_path):
    code, _, _, seconds = signalled(tmp_path, signal.SIGTERM, signal.SIGTERM, seconds_a_step="3")
    assert code == -signal.SIGTERM
    assert seconds < 2


def handlers():
    return [signal.getsignal(number) for number in signals.DEFAULTS]


def test_handlers_are_of_the_main_thread_and_given_back():
    before = handlers()
    with signals.ending_after_a_step("why") as ends:
        assert handlers() != before
        assert not ends(1)
    assert handlers() == before

    def elsewhere():
        with signals.ending_after_a_step("why"):
            found.append(handlers())

    found = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [before]
    with pytest.raises(KeyError), signals.ending_after_a_step("why"):
        raise KeyError
    assert handlers() == before


def test_a_handler_of_somebody_else_stays():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        with signals.ending_after_a_step("why") as ends:
            signal.raise_signal(signal.SIGTERM)
            assert not ends(1)
        assert seen == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_while_the_last_checkpoint_is_written_is_not_swallowed(capsys):
    with pytest.raises(SystemExit) as raised, signals.ending_after_a_step("why"):
        signal.raise_signal(signal.SIGTERM)  # of this thread: `os.kill` may return before another one has taken it
    assert raised.value.code == 143
    assert capsys.readouterr().err == "SIGTERM: why\n"


def linear(params, state, batch, key, train):
    poison = jnp.where(batch["sound"], 1.0, jnp.nan)
    losses = {"a": jnp.sum(params.shared**2) * poison, "b": jnp.sum((params.shared - 1) ** 2)}
    return losses, mtljax.Aux(state)


INIT, LINEAR = mtljax.training.make_train_step(linear, mtljax.methods.equal(), optax.sgd(0.1))


def warnings_of(num_steps=30, log_every=50, *, sound=lambda number: True, trusted=lambda number: True):
    """Warnings of a run in which task a is sound, and the solver trusted, at some steps."""
    state = INIT(mtljax.Params(jnp.ones(2), {"a": (), "b": ()}), key=jax.random.key(0))
    stream = [{"sound": np.bool_(sound(number)), "trusted": trusted(number)} for number in range(num_steps)]
    jitted = jax.jit(LINEAR)

    def step(state, batch):
        state, metrics = jitted(state, {"sound": batch["sound"]})
        return state, metrics | {"residual": np.float32(not batch["trusted"])}

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(step, state, stream, num_steps=num_steps, log_every=log_every, progress=False)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize("log_every", [1, 50])
def test_a_task_that_sits_out_most_steps_is_named_once(log_every):
    (message,) = warnings_of(log_every=log_every, sound=lambda number: False)
    assert "fit: task 'a' was inactive in" in message and "mask_missing" in message
    assert warnings_of(log_every=log_every, sound=lambda number: number % 3 > 0) == []
    assert warnings_of(log_every=1, sound=lambda number: number > 1) == []


def test_a_loss_that_the_method_cannot_take_is_named_at_the_first_record():
    def losses_fn(params, state, batch, key, train):
        return {"a": jnp.sum(params.shared) + batch, "b": jnp.sum(params.shared**2)}, mtljax.Aux(state)

    init, step = mtljax.training.make_train_step(losses_fn, mtljax.methods.geometric(), optax.sgd(0.0))
    state = init(mtljax.Params(jnp.ones(1), {"a": (), "b": ()}), key=jax.random.key(0))
    stream = [np.float32(-1.5 if number == 4 else 1.0) for number in range(6)]
    with pytest.warns(UserWarning, match=r"fit: task 'a' is inactive, its loss is -0.5: .* must not be negative"):
        fit(jax.jit(step), state, stream, num_steps=6, log_every=5, progress=False)


PENALTIES = {
    "nan": (lambda params: jnp.log(-jnp.sum(params.shared**2)), "nan"),
    # Finite, and with a gradient that is not: at the first task's parameters alone.
    "0.5": (lambda params: 0.5 + jnp.linalg.norm(params.tasks["a"]) + 0.0 * jnp.sum(params.shared), "0.5"),
}


@pytest.mark.parametrize(("penalty", "value"), PENALTIES.values(), ids=list(PENALTIES))
def test_a_penalty_that_is_not_finite_is_named_once(penalty, value):
    init, step = mtljax.training.make_train_step(linear, mtljax.methods.equal(), optax.sgd(0.1), penalty=penalty)
    state = init(mtljax.Params(jnp.ones(2), {"a": jnp.zeros(1), "b": ()}), key=jax.random.key(0))
    records = []
    with pytest.warns(UserWarning, match=f"fit: the penalty is {value} after 2 steps and its gradient") as caught:
        found = fit(
            *(jax.jit(step), state, [{"sound": np.bool_(True)}] * 6),
            **{"num_steps": 6, "log_every": 2, "progress": False, "log": records.append},
        )
    assert len(caught) == 1
    assert [record["train"]["penalty_nonfinite"] for record in records] == [True] * 3
    chex.assert_tree_all_finite(found.state.params)


def test_a_sound_penalty_is_not_named():
    init, step = mtljax.training.make_train_step(
        linear, mtljax.methods.equal(), optax.sgd(0.1), penalty=lambda params: jnp.sum(params.shared**2)
    )
    state = init(mtljax.Params(jnp.ones(2), {"a": (), "b": ()}), key=jax.random.key(0))
    _, metrics = jax.jit(step)(state, {"sound": np.bool_(True)})
    assert not metrics["penalty_nonfinite"]


def test_a_solver_that_is_not_trusted_is_named_once():
    (message,) = warnings_of(40, 10, trusted=lambda number: number % 10 < 2)
    assert "did not trust its solver at 80% of the first 10 steps" in message and "normalize" in message
    assert warnings_of(40, 10, trusted=lambda number: number % 10 > 2) == []
    (message,) = warnings_of(300, 300, trusted=lambda number: False)
    assert "at 100% of the first 300 steps" in message

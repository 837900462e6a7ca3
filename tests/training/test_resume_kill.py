"""SIGKILL at any moment costs nothing: the run that is started again ends with the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtljax.training import checkpoint, log
from tests.training.killable import make_state, train
from tests.training.problem import assert_same_bits

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds; only a hung process takes so long


def start(directory: Path, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.training.killable", str(directory), *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_when(process: subprocess.Popen, condition, delay: float = 0.0) -> int | None:
    """Kills it `delay` seconds after `condition()` holds; returns the step it had started from, if it got there."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the process never came to the point where it was to be killed"
        time.sleep(0.0005)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    out, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    return int(out) if out.strip() else None


def finish(process: subprocess.Popen) -> int:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return int(out)


def last_step(directory: Path) -> int:
    records = log.read(directory / "log.jsonl")
    return records[-1]["step"] if records else 0


def timeless(records):
    return [{name: value for name, value in record.items() if name != "time"} for record in records]


def assert_undisturbed(directory: Path, num_steps: int, reference):
    assert checkpoint.steps(directory / "checkpoints")[-1] == num_steps
    assert_same_bits(checkpoint.restore(directory / "checkpoints", make_state()).state, reference.state)
    undisturbed = log.read(directory.with_name("undisturbed") / "log.jsonl")
    assert timeless(log.read(directory / "log.jsonl")) == timeless(undisturbed)


@pytest.mark.parametrize("source", ["iterator", pytest.param("function", marks=pytest.mark.slow)])
def test_killed_at_random_steps_and_while_writing_a_checkpoint(tmp_path, source):
    num_steps, every = 40, 4
    reference = train(tmp_path / "undisturbed", num_steps, every, source)
    directory = tmp_path / "killed"
    checkpoints = directory / "checkpoints"
    rng = random.Random()
    reached, delay = rng.randint(6, 25), rng.uniform(0, 0.01)
    print("killed", delay, "s after step", reached)

    process = start(directory, num_steps, every, source)
    assert kill_when(process, lambda: last_step(directory) >= reached, delay) == 0

    # The first process may have left one half written, of the very step that the log ends with.
    left = set(checkpoints.glob("*.orbax*tmp*"))
    process = start(directory, num_steps, every, source)
    begun = kill_when(process, lambda: set(checkpoints.glob(f"mtljax_{last_step(directory)}.orbax*tmp*")) - left)
    assert 4 <= begun <= last_step(directory)

    assert 4 <= finish(start(directory, num_steps, every, source)) < num_steps
    assert_undisturbed(directory, num_steps, reference)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["iterator", "function"])
@pytest.mark.parametrize("seed", range(2))
def test_killed_again_and_again_at_random_times(tmp_path, seed, source):
    num_steps, every = 150, 1
    reference = train(tmp_path / "undisturbed", num_steps, every, source)
    directory = tmp_path / "killed"
    rng = random.Random(seed)
    for _ in range(12):
        process = start(directory, num_steps, every, source)
        moment = time.monotonic() + rng.uniform(0.0, 5.0)
        while process.poll() is None and time.monotonic() < moment:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        if last_step(directory) == num_steps:
            break
    process = start(directory, num_steps, every, source)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert_undisturbed(directory, num_steps, reference)

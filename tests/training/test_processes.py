"""Two processes train together: one checkpoint, one log, and it resumes to the bit."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtljax.training import checkpoint, log

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(directory, num_steps, how, *, signal_to=None):
    """Exit codes, and what each process prints; with `signal_to` those processes get a SIGTERM after step 6."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.process", *map(str, (n, 2, port, directory, num_steps, how))],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
            **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
        )
        for n in range(2)
    ]
    if signal_to is not None:
        deadline = time.monotonic() + 120
        while not (records := trained(directory / "log.jsonl")) or records[-1][0] < 6:
            assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
            time.sleep(0.01)
        for number in signal_to:
            processes[number].send_signal(signal.SIGTERM)
    try:
        found = [process.communicate(timeout=90) for process in processes]
    finally:
        for process in processes:
            process.kill()
    # Gloo writes to the same stream from threads of its own, and tears lines.
    lines = [re.findall(r"from \d+|norm [\d.]+", out) for out, _ in found]
    return [process.returncode for process in processes], lines, [errors for _, errors in found]


def trained(path):
    return [(record["step"], record["train"]) for record in log.read(path)]


@pytest.mark.parametrize("how", ["replicated", "spread"])
def test_a_checkpoint_can_be_read_back_and_records_are_logged_once(how, tmp_path):
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    _, whole, errors = run(tmp_path / "whole", 10, how)
    assert whole[0] == whole[1] and whole[0][0] == "from 0", errors
    run(tmp_path / "halves", 6, how)
    codes, halves, errors = run(tmp_path / "halves", 10, how)
    assert codes == [0, 0], errors
    assert halves[0] == halves[1] == ["from 6", whole[0][1]]
    assert trained(tmp_path / "halves" / "log.jsonl") == trained(tmp_path / "whole" / "log.jsonl")
    assert [record["step"] for record in log.read(tmp_path / "whole" / "log.jsonl")] == [2, 4, 6, 8, 10]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_largest(folder):
    flip(max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size))


DAMAGES = {
    "facts": lambda checkpoint: flip(checkpoint / "facts" / "metadata"),
    "no facts": lambda checkpoint: (checkpoint / "facts" / "metadata").unlink(),
    "numbers": lambda checkpoint: [flip_largest(folder) for folder in (checkpoint / "state").rglob("d")],
    "no metadata": lambda checkpoint: [path.unlink() for path in (checkpoint / "state").glob("*METADATA*")],
}


@pytest.mark.parametrize(
    ("how", "damage"),
    [("replicated", "facts"), ("spread", "numbers"), ("spread", "no facts"), ("spread", "no metadata")],
)
def test_both_fall_back_to_the_newest_whole_checkpoint(how, damage, tmp_path):
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    _, whole, errors = run(tmp_path / "whole", 12, how)
    assert whole[0][0] == "from 0", errors
    run(tmp_path / "halves", 10, how)
    for step in (10, 8):
        DAMAGES[damage](tmp_path / "halves" / "c" / f"mtljax_{step}")
    codes, halves, errors = run(tmp_path / "halves", 12, how)
    assert codes == [0, 0], errors
    assert halves[0] == halves[1] == ["from 4", whole[0][1]], errors
    assert all(f"mtljax_{step} is damaged" in each for each in errors for step in (10, 8)), errors
    names = {path.name for path in (tmp_path / "halves" / "c").iterdir() if path.is_dir()}
    assert names == {"mtljax_4", "mtljax_8", "mtljax_12", "mtljax_8.damaged", "mtljax_10.damaged"}
    assert trained(tmp_path / "halves" / "log.jsonl") == trained(tmp_path / "whole" / "log.jsonl")


def test_what_one_process_cannot_read_none_uses(tmp_path):
    run(tmp_path, 8, "spread")
    codes, lines, errors = run(tmp_path, 12, "spread blind")
    assert codes == [0, 0], errors
    assert lines[0] == lines[1] and lines[0][0] == "from 4", errors
    assert "another process cannot read it" in errors[0] and "blind" in errors[1]


@pytest.mark.parametrize(("how", "to"), [("replicated", [0, 1]), ("spread", [0]), ("spread", [1])])
def test_sigterm_ends_both_after_one_and_the_same_step_with_a_checkpoint(how, to, tmp_path):
    for name in ("whole", "ended"):
        (tmp_path / name).mkdir()
    codes, lines, errors = run(tmp_path / "ended", 2000, f"{how} slow", signal_to=to)
    assert codes == [143, 143], errors
    assert lines == [["from 0"], ["from 0"]]
    line = f"SIGTERM: the step is complete, and its checkpoint is in {tmp_path}/ended/c; start again to continue"
    assert all(each.splitlines().count(line) == 1 for each in errors), errors
    step = checkpoint.steps(tmp_path / "ended" / "c")[-1]
    assert step >= 6
    _, whole, _ = run(tmp_path / "whole", step + 4, how)
    codes, ended, errors = run(tmp_path / "ended", step + 4, f"{how} slow")
    assert codes == [0, 0], errors
    assert ended[0] == ended[1] == [f"from {step}", whole[0][1]], errors
    assert trained(tmp_path / "ended" / "log.jsonl") == trained(tmp_path / "whole" / "log.jsonl")

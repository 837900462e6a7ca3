"""Two processes train together: one checkpoint, one log, and it resumes to the bit."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mtljax.training import log

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(directory, num_steps, how):
    """Exit codes, and what each process prints."""
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
    found = [process.communicate(timeout=180) for process in processes]
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

from __future__ import annotations

import builtins
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtljax.training import log

ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_to_record_makes_plain_python():
    record = log.to_record(
        {
            "scalar": jnp.float32(0.25),
            "weights": jnp.array([1, 2], jnp.int32),
            "active": jnp.array([True, False]),
            "bf16": jnp.asarray(1.5, jnp.bfloat16),
            "numpy": np.float64(2.0),
            "python": 3,
            "pair": (jnp.float32(1), None),
            "name": "text",
        }
    )
    assert record == {
        "scalar": 0.25,
        "weights": [1, 2],
        "active": [True, False],
        "bf16": 1.5,
        "numpy": 2.0,
        "python": 3,
        "pair": [1.0, None],
        "name": "text",
    }
    assert type(record["active"][0]) is bool
    assert type(record["bf16"]) is float
    assert not isinstance(record["bf16"], ml_dtypes.bfloat16)


def write_log(path: Path, *records, step: int = 0):
    with log.opened(path, step=step, resumed=True) as (append, _):
        for record in records:
            append(record)


def open_and_close(path):
    with log.opened(path, where="fit"):
        pass


def test_nonfinite_is_valid_json_and_reads_back(tmp_path):
    path = tmp_path / "log.jsonl"
    write_log(path, {"step": 1, "train": {"l": [math.nan, math.inf, -math.inf, 1.0]}})

    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    parsed = json.loads(path.read_text(), parse_constant=refuse)
    assert parsed["train"]["l"] == ["NaN", "Infinity", "-Infinity", 1.0]
    nan, *rest = log.read(path)[0]["train"]["l"]
    assert math.isnan(nan) and rest == [math.inf, -math.inf, 1.0]


@given(st.floats(width=32))
def test_float32_survives_the_file_to_the_bit(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    write_log(path, {"step": 1, "train": log.to_record({"x": jnp.float32(value)})})
    back = log.read(path)[0]["train"]["x"]
    original = float(jnp.float32(value))  # the CPU may have flushed a subnormal on the way in
    assert np.float64(back).tobytes() == np.float64(original).tobytes() or (math.isnan(back) and math.isnan(original))


def test_lines_beyond_the_step_go_and_the_bytes_before_stay(tmp_path):
    path = tmp_path / "log.jsonl"
    write_log(path, *({"step": step} for step in (2, 4, 6, 8)))
    before = path.read_text().splitlines(keepends=True)
    with log.opened(path, step=5, resumed=True) as (append, last):
        assert last == {"step": 4}
        assert path.read_text() == "".join(before[:2])
        append({"step": 6, "second": True})
    assert log.read(path) == [{"step": 2}, {"step": 4}, {"step": 6, "second": True}]
    assert path.read_bytes().count(b"mtljax") == 1


def test_without_a_checkpoint_nothing_is_cut_in_silence(tmp_path):
    path = tmp_path / "log.jsonl"
    write_log(path, {"step": 2}, {"step": 4})
    (tmp_path / "log.jsonl.1").write_text("somebody's")
    before = path.read_bytes()
    with pytest.warns(UserWarning, match=r"log .*log\.jsonl has records beyond step 3, .* are now in .*log\.jsonl\.2"):  # noqa: SIM117
        with log.opened(path, step=3) as (append, last):
            append({"step": 5})
    assert last == {"step": 2}
    assert (tmp_path / "log.jsonl.1").read_text() == "somebody's"
    assert (tmp_path / "log.jsonl.2").read_bytes() == before
    assert [r["step"] for r in log.read(path)] == [2, 5]


@pytest.mark.parametrize("cut", [*range(1, 13), 20, 30])
def test_torn_last_line_is_repaired_wherever_it_tore(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    write_log(path, {"step": 1}, {"step": 2})
    whole = path.read_bytes()
    first, last = whole.splitlines(keepends=True)
    assert (len(first), len(last)) == (25, 12)
    path.write_bytes(whole[:-cut])
    expected = [1] if cut <= 12 else []
    assert [r["step"] for r in log.read(path)] == expected
    write_log(path, {"step": 3}, step=10)
    assert [r["step"] for r in log.read(path)] == [*expected, 3]


def test_opening_makes_the_folder(tmp_path):
    with log.opened(tmp_path / "a" / "b" / "log.jsonl") as (_, last):
        assert last is None
    assert log.read(tmp_path / "a" / "b" / "log.jsonl") == []


FOREIGN = {
    "notes": "hello\nworld\n",
    "one torn line": "hello",
    "jsonl": '{"step": 1, "loss": 2}\n{"step": 2, "loss": 2}\n',
    "space": "\n",
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("link", [False, True])
def test_somebody_elses_file_is_refused_and_left_alone(tmp_path, kind, link):
    path = write(tmp_path / "notes.txt", FOREIGN[kind])
    if link:
        (tmp_path / "link").symlink_to(path)
    with (
        pytest.raises(ValueError, match=r"fit: log must be a new file or a log of mtljax, found .*, which begins with"),
        log.opened(tmp_path / "link" if link else path, where="fit"),
    ):
        pass
    assert path.read_text() == FOREIGN[kind]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"mtljax": 1, "step": 1}\n{"loss": 2}\n', 'line 2: expected an object with a whole number "step"'),
        ('{"mtljax": 1, "step": 1}\n\x00\x00\n{"step": 2}\n', "line 2: not JSON"),
    ],
)
def test_a_log_with_foreign_lines_in_it_is_left_alone(tmp_path, text, message):
    path = write(tmp_path / "log.jsonl", text)
    with pytest.raises(ValueError, match=message), log.opened(path, step=10):
        pass
    assert path.read_text() == text


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "empty"])
def test_what_is_not_a_file_is_refused_at_once(tmp_path, kind):
    os.mkfifo(tmp_path / "fifo")
    path = {"pipe": tmp_path / "fifo", "folder": tmp_path, "device": "/dev/null", "empty": ""}[kind]
    with pytest.raises(ValueError, match="fit: log must be the path of a file, found"), log.opened(path, where="fit"):
        pass


def test_a_file_that_cannot_be_written_to_is_refused_at_once(tmp_path):
    write(tmp_path / "file", "")
    with pytest.raises(ValueError, match=r"fit: log must be a file that can be written to, found .*file/log"):
        open_and_close(tmp_path / "file" / "log")


def test_one_run_at_a_time_writes_a_log(tmp_path):
    path = tmp_path / "log.jsonl"
    with log.opened(path), pytest.raises(ValueError, match=r"fit: log .* must be of one run at a time"):
        open_and_close(path)
    write_log(path, {"step": 1})


def test_a_short_write_is_gone_on_with(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:5]))
    write_log(tmp_path / "log.jsonl", {"step": 1, "train": {"loss": 0.5}}, {"step": 2})
    assert log.read(tmp_path / "log.jsonl") == [{"step": 1, "train": {"loss": 0.5}}, {"step": 2}]


def test_on_a_full_disk_a_torn_line_is_taken_back_with_an_error(tmp_path):
    code = """
import resource, sys
from mtljax.training import log
with log.opened(sys.argv[1]) as (append, _):
    append({"step": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))
    try:
        append({"step": 2, "text": "x" * 100})
    except OSError as error:
        print(error.strerror)
"""
    path = tmp_path / "log.jsonl"
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == "File too large\n", run.stderr
    assert path.read_bytes() == b'{"mtljax": 1, "step": 1}\n'


def read_events(folder: Path):
    """Scalars of an event folder as {(tag, step): value}, by the file format itself (no TensorBoard here)."""
    from tensorboardX.proto import event_pb2

    found, purged = {}, []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            if event.session_log.status:
                purged.append(event.step)
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found, purged


def test_tensorboard_writer_writes_scalars_by_name(tmp_path):
    with log.tensorboard_writer(tmp_path) as write_record:
        write_record({"step": 3, "time": 1.0, "train": {"losses": {"a": 0.5}, "weights": [0.25, 0.75], "n": True}})
    found, purged = read_events(tmp_path)
    assert found == {
        ("train/losses/a", 3): 0.5,
        ("train/weights/0", 3): 0.25,
        ("train/weights/1", 3): 0.75,
        ("train/n", 3): 1.0,
    }
    assert purged == [3]


def test_tensorboard_writer_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "tensorboardX":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "tensorboardX", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'mtljax\[tensorboard\]'"), log.tensorboard_writer(tmp_path):
        pass

"""Records, which `fit` logs: they are made here and passed to the writers."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from mtljax.training import checkpoint as checkpoints
from mtljax.training import log as logs
from mtljax.training.log import Record, Writer
from mtljax.types import TrainState

Log = str | os.PathLike[str] | Writer


def open_logs(
    stack: contextlib.ExitStack, log: Log | Sequence[Log] | None, start: int, found: checkpoints.Checkpoint | None
) -> tuple[list[Writer], Record | None]:
    """The writers, and the last record of a log file that the run continues."""
    targets: list[Any] = [] if log is None else list(log) if isinstance(log, (list, tuple)) else [log]
    for target in targets:
        if not callable(target) and not isinstance(target, (str, os.PathLike)):
            raise TypeError(f"fit: log must be a path or a function of a record, found {target!r}")
    paths = [os.path.realpath(target) for target in targets if not callable(target)]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise ValueError(f"fit: log must be different files, found {twice} twice")
    writers: list[Writer] = []
    last: Record | None = None
    if jax.process_index() > 0:
        return writers, last
    for target in targets:
        if not isinstance(target, (str, os.PathLike)):
            writers.append(target)
            continue
        opened = logs.opened(target, step=start, resumed=found is not None, where="fit")
        write, end = stack.enter_context(opened)
        if found is not None and found.record is not None and (end is None or end["step"] < start):
            write(found.record)  # the log failed at that step, or the file is new
        writers.append(write)
        last = end if last is None else last
    return writers, last


def make_record(
    done: int,
    parts: dict[str, Callable[[], Any]],
    writers: Sequence[Writer],
    rescue: Callable[[Record, BaseException], None],
    every_task: bool,
) -> Record:
    """Compute a record and log it; after an error, `rescue(record, error)` gets the parts that were computed."""
    record: Record = {"step": done, "time": round(time.time(), 3)}
    try:
        for name, part in parts.items():
            record[name] = logs.to_record(part(), every_task=every_task)
        for write in writers:
            write(record)
    except BaseException as error:
        rescue(record, error)
        raise
    return record


def evaluation_is_missing(start: int, num_steps: int, eval_every: int | None, record: Record | None) -> bool:
    """Whether an evaluation is due at the step where a run resumes: it failed there, or was not requested before."""
    due = start == num_steps or (start > 0 and eval_every is not None and start % eval_every == 0)
    return due and not (record is not None and record["step"] == start and "eval" in record)


@contextlib.contextmanager
def state_survives(state: TrainState) -> Iterator[None]:
    """Attach the state of the run to an exception."""
    try:
        yield
    except BaseException as error:
        error.state = state  # pyright: ignore[reportAttributeAccessIssue]
        error.add_note(f"fit: the state of step {int(state.step)} is the attribute `state` of this exception")
        raise


def describe(record: Record) -> str:
    """The task losses of a record as text, or the numbers at the top level of its metrics."""
    metrics = record.get("train", {})
    metrics = metrics.get("losses", metrics) if isinstance(metrics, dict) else {}
    if not isinstance(metrics, dict):
        return ""
    numbers = {name: value.get("mean") if isinstance(value, dict) else value for name, value in metrics.items()}
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items() if isinstance(value, (int, float)))

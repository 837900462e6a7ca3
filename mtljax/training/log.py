"""Logs of a run: one JSON object per line, safe if the process is killed; optionally TensorBoard.

A writer is a function `write(record) -> None`. A record is what `fit` logs at one step:
`{"step": 200, "time": 1760000000.0, "train": {"losses": {"left": 0.3}, ...}, "eval": {...}}`. The first line of a log
begins with `{"mtljax": 1, `; files that begin differently are never written to.

JSON has no NaN and no infinities. They are written as the strings "NaN", "Infinity" and "-Infinity", which `float()`
and pandas accept; `read` turns them back into floats.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mtljax.banks import ByTask
from mtljax.training.locks import lock
from mtljax.types import PyTree

Record = dict[str, Any]
Writer = Callable[[Record], None]

MARK, FORMAT = "mtljax", 1
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_record(tree: PyTree, *, every_task: bool = False) -> Any:
    """Fetch a pytree of small arrays, and convert it to dicts, lists, numbers and booleans.

    It waits for the device; `fit` waits only here.

    Args:
        tree: metrics of a step, or results of an evaluation.
        every_task: whether a bank of tasks becomes a dict of its tasks. Else it becomes `{"mean", "min", "max"}` over
            those of its tasks that take part and whose value is not NaN, or `{"sum", "max"}` of what is counted.
            `cosines` of a step with banks, `[T, T]`, then become `{"mean", "min", "conflicting"}` over pairs of tasks
            that take part; `conflicting` is the share below 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from mtljax.banks import ByTask
        >>> losses = ByTask(jnp.array([0.5, 1.5, 2.5]), (("assays", ("nr_ar", "nr_er")), ("depth", None)))
        >>> to_record({"losses": losses, "residual": jnp.float32(0)})
        {'losses': {'assays': {'mean': 1.0, 'min': 0.5, 'max': 1.5}, 'depth': 2.5}, 'residual': 0.0}
        >>> to_record(losses, every_task=True)
        {'nr_ar': 0.5, 'nr_er': 1.5, 'depth': 2.5}
    """
    return _convert(jax.device_get(tree), every_task, None)


def _convert(node: Any, every_task: bool, present: ByTask | None) -> Any:
    if isinstance(node, ByTask):
        if every_task:
            return {name: np.asarray(value).tolist() for name, value in node.by_name().items()}
        if len(node.names) == 1 and node.names[0][1] is not None:
            return _summary(node, node.names[0][0], present)  # a metric of a bank stands under the bank's name already
        return {
            entry: np.asarray(node[entry]).tolist() if bank is None else _summary(node, entry, present)
            for entry, bank in node.names
        }
    if isinstance(node, dict):
        active = node.get("active")
        present = active if isinstance(active, ByTask) else present
        brief = not every_task and present is not None and any(bank is not None for _, bank in present.names)
        return {
            str(key): _between(value, present) if brief and key == "cosines" else _convert(value, every_task, present)
            for key, value in node.items()
        }
    if hasattr(node, "_asdict"):
        return _convert(node._asdict(), every_task, present)
    if isinstance(node, (list, tuple)):
        return [_convert(value, every_task, present) for value in node]
    return node if node is None or isinstance(node, str) else np.asarray(node).tolist()


def _summary(values: ByTask, entry: str, present: ByTask | None) -> dict[str, Any]:
    """What a record says of a bank, `[..., n]`."""
    array = np.asarray(values[entry])
    if not np.issubdtype(array.dtype, np.floating):
        return {"sum": array.sum(-1).tolist(), "max": array.max(-1).tolist()}
    counted = ~np.isnan(array)
    if present is not None:
        counted &= np.asarray(present[entry])
    return {name: value.tolist() for name, value in _statistics(array, counted).items()}


def _between(cosines: Any, present: ByTask | None) -> dict[str, Any]:
    """What a record says of the cosines of many tasks, `[..., T, T]`."""
    cosines = np.asarray(cosines, np.float64)
    first, second = np.triu_indices(cosines.shape[-1], 1)
    active = np.asarray(present.array if present is not None else True)
    pairs, counted = cosines[..., first, second], active[..., first] & active[..., second]
    found = _statistics(pairs, counted)
    del found["max"]
    share = (counted & (pairs < 0)).sum(-1) / np.maximum(counted.sum(-1), 1)
    conflicting = np.where(counted.any(-1), share, np.nan)
    return {name: value.tolist() for name, value in {**found, "conflicting": conflicting}.items()}


def _statistics(array: np.ndarray, counted: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, least and largest over the last axis of what counts; NaN where nothing does."""
    array = array.astype(np.float64)
    some, number = counted.any(-1), np.maximum(counted.sum(-1), 1)
    found = {
        "mean": np.where(counted, array, 0.0).sum(-1) / number,
        "min": np.where(counted, array, np.inf).min(-1),
        "max": np.where(counted, array, -np.inf).max(-1),
    }
    return {name: np.where(some, value, np.nan) for name, value in found.items()}


def read(path: str | os.PathLike[str]) -> list[Record]:
    """The records of a log, oldest first; an incomplete last line is left out, a missing file has no records.

    Raises:
        ValueError: a line other than the last one is not a JSON object with a "step".
    """
    return [record for record, _ in _lines(path)] if Path(path).exists() else []


@contextlib.contextmanager
def opened(
    path: str | os.PathLike[str], *, step: int = 0, resumed: bool = False, where: str = "opened"
) -> Iterator[tuple[Writer, Record | None]]:
    r"""Open a log at a step, for appending by one run at a time.

    Lines beyond the step and an incomplete last line are cut off. The file is truncated at one offset and never
    rewritten, so killing the process does not damage it. Each record is written completely before the next step, or not
    at all.

    Args:
        path: a new file, an empty file, or a log of mtljax, recognized by its first bytes; a missing folder is made.
        step: number of completed steps to keep.
        resumed: whether the run continues from a checkpoint and writes the lines beyond the step again. If not, the
            file is first copied to `<path>.1` (or the next free number), with a warning.
        where: the public function's name, which opens messages.

    Yields:
        `(write, last)`: the writer, and the last record that is kept, or None.

    Raises:
        ValueError: the path is empty, a folder, a FIFO or a device, a file that is not a log, or another run's log; or
            its folder cannot be written to.
        OSError: (by the writer) a record cannot be written, for example on a full disk; the part that was written is
            removed.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "log.jsonl"
        >>> with opened(path) as (write, _):
        ...     write({"step": 1, "train": {"loss": float("inf")}})
        >>> path.read_text()
        '{"mtljax": 1, "step": 1, "train": {"loss": "Infinity"}}\n'
        >>> read(path)
        [{'step': 1, 'train': {'loss': inf}}]
    """
    name = os.fspath(path)
    if not name or (os.path.exists(name) and not os.path.isfile(name)):
        raise ValueError(f"{where}: log must be the path of a file, found {name!r}")
    with contextlib.ExitStack() as stack:
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "a+b", buffering=0))
        except OSError as error:
            raise ValueError(f"{where}: log must be a file that can be written to, found {name} ({error})") from error
        lock(file, where, f"log {name}")
        last, end, beyond = None, 0, False
        _check_ours(file, name, where)
        for record, line_end in _lines(path):
            if record["step"] > step:
                beyond = True
                break
            last, end = record, line_end
        if beyond and not resumed:
            copy = next(copy for n in itertools.count(1) if not os.path.exists(copy := f"{name}.{n}"))
            shutil.copyfile(path, copy)
            warnings.warn(
                f"log {name} has records beyond step {step}, where this run starts without a checkpoint; its records "
                f"are now in {copy}",
                stacklevel=4,
            )
        os.truncate(file.fileno(), end)
        yield functools.partial(_append, file), last


@contextlib.contextmanager
def tensorboard_writer(directory: str | os.PathLike[str]) -> Iterator[Writer]:
    """A writer of TensorBoard event files, for `fit(..., log=write)`; it writes scalars, and arrays entry by entry.

    After a resume, TensorBoard purges the events beyond the restored step.

    Raises:
        ImportError: tensorboardX is not installed.

    Example:
        >>> import tempfile
        >>> with tensorboard_writer(tempfile.mkdtemp()) as write:
        ...     write({"step": 1, "time": 0.0, "train": {"losses": {"left": 0.5}}})
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError("tensorboard_writer needs tensorboardX: pip install 'mtljax[tensorboard]'") from error
    with contextlib.ExitStack() as stack:
        summaries: list[Any] = []

        def write(record: Record) -> None:
            # Made at the first record, whose step determines which older events are purged.
            if not summaries:
                summary = SummaryWriter(os.fspath(directory), purge_step=record["step"])
                stack.callback(summary.close)
                summaries.append(summary)
            rest = {name: value for name, value in record.items() if name not in ("step", "time")}
            for tag, value in _scalars(rest):
                summaries[0].add_scalar(tag, value, record["step"], walltime=record.get("time"))
            summaries[0].flush()

        yield write


def _append(file: io.FileIO, record: Record) -> None:
    """Write one record. When this returns, the kernel has it, and killing the process does not lose it."""
    end = os.fstat(file.fileno()).st_size
    entry = _to_json(record) if end else {MARK: FORMAT, **_to_json(record)}
    rest = memoryview((json.dumps(entry, allow_nan=False) + "\n").encode())
    try:
        while rest:
            rest = rest[os.write(file.fileno(), rest) :]
    except BaseException:
        os.truncate(file.fileno(), end)
        raise


def _check_ours(file: io.FileIO, name: str, where: str) -> None:
    """Raises where a file is not empty and not a log of mtljax."""
    beginning = f'{{"{MARK}": {FORMAT}, '.encode()
    file.seek(0)
    found = file.read(len(beginning)) or b""
    if not beginning.startswith(found):  # the first line may be incomplete
        raise ValueError(f"{where}: log must be a new file or a log of mtljax, found {name}, which begins with {found}")


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[Record, int]]:
    """Each complete record, with the offset of the end of its line."""
    end = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                record = _from_json(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{os.fspath(path)}, line {number}: not JSON ({error})") from error
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                raise ValueError(f'{os.fspath(path)}, line {number}: expected an object with a whole number "step"')
            record.pop(MARK, None)
            yield record, end


def _to_json(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _to_json(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_to_json(value) for value in node]
    if isinstance(node, float) and not math.isfinite(node):
        return "NaN" if math.isnan(node) else ("Infinity" if node > 0 else "-Infinity")
    return node


def _from_json(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _from_json(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_from_json(value) for value in node]
    return _SPECIAL.get(node, node) if isinstance(node, str) else node


def _scalars(node: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(node, (dict, list)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _scalars(value, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(node, (bool, int, float)):
        yield prefix, float(node)

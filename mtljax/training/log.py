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

from mtljax.training.locks import lock
from mtljax.types import PyTree

Record = dict[str, Any]
Writer = Callable[[Record], None]

MARK, FORMAT = "mtljax", 1
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_record(tree: PyTree) -> Any:
    """Fetch a pytree of small arrays, and convert it to dicts, lists, numbers and booleans.

    It waits for the device; `fit` waits only here.

    Example:
        >>> import jax.numpy as jnp
        >>> to_record({"active": jnp.array([True, False]), "losses": {"left": jnp.float32(0.5)}})
        {'active': [True, False], 'losses': {'left': 0.5}}
    """

    def convert(node: Any) -> Any:
        if isinstance(node, dict):
            return {str(key): convert(value) for key, value in node.items()}
        if hasattr(node, "_asdict"):
            return convert(node._asdict())
        if isinstance(node, (list, tuple)):
            return [convert(value) for value in node]
        return node if node is None or isinstance(node, str) else np.asarray(node).tolist()

    return convert(jax.device_get(tree))


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

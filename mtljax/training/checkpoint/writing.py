"""Writing of checkpoints: one run per folder; files of others are not changed."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from mtljax.checks import check_count
from mtljax.training.checkpoint import leaves
from mtljax.training.checkpoint.packing import pack
from mtljax.training.checkpoint.reading import (
    FORMAT,
    PREFIX,
    Checkpoint,
    DamagedCheckpoint,
    checksum_of_facts,
    is_foreign,
    newest,
    path_of,
    steps,
    warn_of,
)
from mtljax.training.locks import lock
from mtljax.types import TrainState

LOCK = "mtljax.lock"


class Folder(NamedTuple):
    """A folder of checkpoints that only this run writes to.

    Attributes:
        path: its absolute path.
        keep: number of checkpoints to keep, the newest ones.
        writer: Orbax's checkpointer, which writes in a thread.
        written: a list with the last step that this run has written; empty before the first one.
    """

    path: Path
    keep: int
    writer: ocp.AsyncCheckpointer
    written: list[int]


@contextlib.contextmanager
def opened(directory: str | os.PathLike[str], *, keep: int = 3, where: str = "opened") -> Iterator[Folder]:
    """Open a folder of checkpoints for writing, and make it if it is missing; at the end, wait for the last write.

    Args:
        directory: the folder; it has one subfolder per checkpoint, `mtljax_<step>`.
        keep: number of checkpoints to keep, the newest ones. Older ones are deleted when a newer one is complete. With
            1, there is no older checkpoint to use if the newest is damaged.
        where: the public function's name, which opens messages.

    Raises:
        TypeError: `directory` is not a path, or `keep` not an integer.
        ValueError: `directory` is empty, cannot be written to, or is locked by another run (until its process ends);
            `keep` is below 1.
    """
    check_count(where, "keep", keep)
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"{where}: checkpoint_dir must be the path of a folder, found {directory!r}")
    if not os.fspath(directory):
        raise ValueError(f"{where}: checkpoint_dir must be the path of a folder, found ''")
    path = Path(directory).resolve()
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            try:
                path.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=f"{PREFIX}probe_", dir=path) as probe:
                    (Path(probe) / "file").write_bytes(b"mtljax")
                held = stack.enter_context(open(path / LOCK, "a"))
            except OSError as error:
                raise ValueError(
                    f"{where}: checkpoint_dir must be a folder that can be written to, found {path} ({error})"
                ) from error
            lock(held, where, f"checkpoint_dir {path}")
            for left_over in path.glob(f"{PREFIX}*.orbax-checkpoint-tmp*"):
                shutil.rmtree(left_over, ignore_errors=True)
        _all_here(f"{where}: folder of checkpoints")
        items = {"state": ocp.StandardCheckpointHandler(), "facts": ocp.JsonCheckpointHandler()}
        writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler(**items))
        folder = Folder(path, keep, writer, [])
        try:
            yield folder
            wait(folder)
        finally:
            writer.close()


def save(
    folder: Folder,
    state: TrainState,
    *,
    batches: Any = None,
    run: dict[str, Any] | None = None,
    record: dict[str, Any] | None = None,
) -> None:
    """Write `state` as the checkpoint of its step.

    It returns when the arrays are copied to the host, so `state` may be donated at once. A thread writes the files; the
    next `save` or `wait` waits for this thread.

    Args:
        folder: from `opened`.
        state: the state to write.
        batches: the position of the input pipeline: None, booleans, numbers, strings, and dicts, lists and tuples of
            these, which are restored unchanged.
        run: the identity of the run, as JSON.
        record: the record that was logged at this step, as JSON.

    Raises:
        TypeError: `batches` holds another value; the message says where.
        ValueError: a folder with the checkpoint's name that is not of mtljax.
        Exception: the error of the write before this one.
    """
    step = int(state.step)
    named = leaves.named(state)
    facts: dict[str, Any] = {
        "mtljax": FORMAT,
        "leaves": {name: leaves.facts_of(leaf) for name, leaf in named.items()},
        "batches": pack("batches.get_state()", batches),
        "run": run,
        "record": record,
    }
    facts["crc32"] = checksum_of_facts(facts)
    arrays = {name: leaves.stored(leaf) for name, leaf in named.items()}
    wait(folder)
    path = path_of(folder.path, step)
    if is_foreign(path):
        raise ValueError(f"save: the checkpoint's folder must be free, found {path}, which is not of mtljax")
    if jax.process_index() == 0 and path.exists():
        # This run has skipped the old one, or writes it again with the same numbers. It is kept until the new one is
        # complete.
        _move_aside(path, "replaced")
    _all_here("save: name of the checkpoint")
    items = ocp.args.Composite(state=ocp.args.StandardSave(arrays), facts=ocp.args.JsonSave(facts))
    folder.writer.save(epath.Path(path), args=items)
    folder.written[:] = [step]


def wait(folder: Folder) -> None:
    """Wait for the checkpoint that is being written, and then delete the oldest ones beyond `keep`.

    Raises:
        Exception: the error of the write, such as OSError on a full disk.
    """
    folder.writer.wait_until_finished()
    # Checkpoints that are newer than those of this run were skipped, and do not count.
    known = [step for step in steps(folder.path) if folder.written and step <= folder.written[0]]
    if jax.process_index() == 0:
        for step in known[: -folder.keep]:
            shutil.rmtree(path_of(folder.path, step), ignore_errors=True)


def resume(folder: Folder, template: TrainState) -> Checkpoint | None:
    """The newest checkpoint that can be read, as `mtljax.training.checkpoint.restore` reads it.

    Newer damaged ones are renamed to `<name>.damaged`, since this run will write these steps again. Newer ones without
    read permission stay. A warning names each of them.
    """
    found, passed_over = newest(folder.path, template)
    for step, error in passed_over.items():
        then = ""
        if isinstance(error, DamagedCheckpoint) and jax.process_index() == 0:
            then = f", and the damaged one is now {_move_aside(path_of(folder.path, step), 'damaged').name}"
        warn_of(folder.path, step, error, found, then)
    _all_here("resume: damaged checkpoints")
    return found


def _move_aside(path: Path, what: str) -> Path:
    names = (path.with_name(f"{path.name}.{what}{'' if n == 1 else f'.{n}'}") for n in itertools.count(1))
    free = next(name for name in names if not name.exists())
    return path.rename(free)


def _all_here(what: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)

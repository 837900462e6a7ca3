"""Writing checkpoints: one run to a folder, and nothing of anybody else's is touched."""

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
    """A folder of checkpoints that this run alone writes to.

    Attributes:
        path: absolute.
        keep: how many of the newest checkpoints stay.
        writer: Orbax's, which writes in a thread.
        written: the step that this run has written last, once it has written one.
    """

    path: Path
    keep: int
    writer: ocp.AsyncCheckpointer
    written: list[int]


@contextlib.contextmanager
def opened(directory: str | os.PathLike[str], *, keep: int = 3, where: str = "opened") -> Iterator[Folder]:
    """Opens a folder of checkpoints for writing, made where it is missing; at the end waits for the last write.

    Args:
        directory: the folder; one subfolder per checkpoint, `mtljax_<step>`.
        keep: how many of the newest stay; older ones are deleted once a newer one is complete. With 1, a damaged
            checkpoint has none before it to fall back to.
        where: the public function's name, which opens messages.

    Raises:
        TypeError: `directory` is not a path, or `keep` not an integer.
        ValueError: `directory` is empty, cannot be written to, or is another run's, whose lock goes when its process
            does; `keep` is below 1.
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
    """Writes `state` as the checkpoint of its own step.

    Returns once the arrays are copied to the host, so `state` may be donated at once; the files are written by a
    thread, and the next `save` or `wait` waits for it.

    Args:
        folder: from `opened`.
        state: to be written.
        batches: where the input pipeline stands: None, booleans, numbers, strings, and dicts, lists and tuples of
            these, which come back unchanged.
        run: what the run is; whatever JSON holds.
        record: what was logged at this step; whatever JSON holds.

    Raises:
        TypeError: `batches` holds something else; the message says where.
        ValueError: somebody else's folder has the checkpoint's name.
        Exception: whatever made the write before this one fail.
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
        raise ValueError(f"save: the checkpoint's folder must be free, found {path}, which is no checkpoint of mtljax")
    if jax.process_index() == 0 and path.exists():
        # One that this run has passed over, or writes anew with the same numbers; it is kept until the new one stands.
        _move_aside(path, "replaced")
    _all_here("save: name of the checkpoint")
    items = ocp.args.Composite(state=ocp.args.StandardSave(arrays), facts=ocp.args.JsonSave(facts))
    folder.writer.save(epath.Path(path), args=items)
    folder.written[:] = [step]


def wait(folder: Folder) -> None:
    """Waits for the checkpoint that is being written, and then deletes those that are one too many.

    Raises:
        Exception: whatever made the write fail, such as OSError on a full disk.
    """
    folder.writer.wait_until_finished()
    # One that is newer than what this run writes has been passed over, and counts for nothing.
    known = [step for step in steps(folder.path) if folder.written and step <= folder.written[0]]
    if jax.process_index() == 0:
        for step in known[: -folder.keep]:
            shutil.rmtree(path_of(folder.path, step), ignore_errors=True)


def resume(folder: Folder, template: TrainState) -> Checkpoint | None:
    """The newest checkpoint that can be read, as `mtljax.training.checkpoint.restore` reads it.

    Newer ones that are damaged are renamed to `<name>.damaged`, out of the way of this run, which will write those
    steps again; those that may not be read stay where they are. A warning names each.
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

"""Reading of checkpoints; data that differ from what was written are named in an error and not used."""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from mtljax.training.checkpoint import leaves
from mtljax.training.checkpoint.packing import unpack
from mtljax.types import PyTree, TrainState

T = TypeVar("T")

PREFIX = "mtljax_"
FORMAT = 1


class DamagedCheckpoint(Exception):
    """Error of a checkpoint whose files are incomplete or differ from what was written."""


class Checkpoint(NamedTuple):
    """The contents of a checkpoint.

    Attributes:
        path: its folder.
        step: number of completed steps.
        state: the `TrainState`.
        batches: the position of the input pipeline; None if it was not written.
        run: the identity of the run, see `mtljax.training.identity`.
        record: the record that was logged at that step; None if there was none.
    """

    path: Path
    step: int
    state: TrainState
    batches: Any
    run: dict[str, Any] | None
    record: dict[str, Any] | None


def steps(directory: str | os.PathLike[str]) -> list[int]:
    """The steps of the checkpoints in a folder, in order, damaged ones included."""
    return [step for step in _numbered(directory) if not is_foreign(path_of(directory, step))]


def is_foreign(path: Path) -> bool:
    """Whether the folder is not of mtljax in spite of its name: it is not empty, and has no item of a checkpoint.

    A checkpoint without one of its two items, or an empty one, is damaged. A folder without read permission counts as a
    checkpoint.
    """
    try:
        names = {each.name for each in path.iterdir()} if path.is_dir() else set()
    except PermissionError:
        return False
    return bool(names) and not names & {"state", "facts"}


def _numbered(directory: str | os.PathLike[str]) -> list[int]:
    folder = Path(directory)
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted(int(name.removeprefix(PREFIX)) for name in names if re.fullmatch(PREFIX + "[0-9]+", name))


def restore(directory: str | os.PathLike[str], template: TrainState, *, step: int | None = None) -> Checkpoint | None:
    """Read a checkpoint into the structure, types and devices of `template`; nothing is written.

    Args:
        directory: folder of checkpoints.
        template: a state of the run that wrote the checkpoint; its values are not read.
        step: step of the checkpoint; None (default) for the newest checkpoint that is not damaged. A warning names
            newer ones.

    Returns:
        The checkpoint, whose state equals the saved state to the bit; None if there is no checkpoint.

    Raises:
        ValueError: the checkpoint holds other leaves than `template`, or other shapes or types; the message names the
            first one. Also if there are checkpoints, but all are unreadable.
        DamagedCheckpoint: the checkpoint of `step` is damaged.
        PermissionError: there is no permission to read the checkpoint of `step`.

    Example:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> from mtljax.training import checkpoint
        >>> from mtljax.types import MethodState, Params
        >>> params = Params(shared={"w": jnp.arange(3.0)}, tasks={})
        >>> method_state = MethodState(weights=jnp.ones(2), residual=jnp.float32(0))
        >>> state = TrainState(jnp.int32(7), params, {}, (), method_state, jax.random.key(0))
        >>> directory = tempfile.mkdtemp()
        >>> with checkpoint.opened(directory) as folder:
        ...     checkpoint.save(folder, state)
        >>> restored = checkpoint.restore(directory, jax.tree.map(jnp.zeros_like, state))
        >>> restored.step, restored.state.params.shared["w"].tolist()
        (7, [0.0, 1.0, 2.0])
    """
    if step is not None:
        return read(directory, template, step)
    found, passed_over = newest(directory, template)
    for number, error in passed_over.items():
        warn_of(directory, number, error, found)
    return found


def newest(
    directory: str | os.PathLike[str], template: TrainState
) -> tuple[Checkpoint | None, dict[int, DamagedCheckpoint | PermissionError]]:
    """The newest readable checkpoint, and the errors of newer ones by step; warns of other folders."""
    for number in _numbered(directory):
        path = path_of(directory, number)
        if is_foreign(path):
            warnings.warn(f"{path} is not a checkpoint of mtljax, in spite of its name, and is ignored", stacklevel=4)
    passed_over: dict[int, DamagedCheckpoint | PermissionError] = {}
    for number in reversed(steps(directory)):
        try:
            return read(directory, template, number), passed_over
        except (DamagedCheckpoint, PermissionError) as error:
            passed_over[number] = error
    if passed_over:
        last = max(passed_over)
        raise ValueError(
            f"no checkpoint in {os.fspath(directory)} can be read, of steps {sorted(passed_over)}; the newest: "
            f"{first_line(passed_over[last])}"
        ) from passed_over[last]
    return None, {}


def read(directory: str | os.PathLike[str], template: TrainState, step: int) -> Checkpoint:
    """One checkpoint, checked; if it is damaged for one process, it is for all."""
    path = path_of(directory, step)
    facts = for_all(lambda: read_facts(path))
    check_same_leaves(f"checkpoint {path}", facts["leaves"], template)
    names, structure = list(leaves.named(template)), jax.tree.structure(template)
    values = read_leaves(path, facts, dict(zip(names, structure.flatten_up_to(template), strict=True)))
    state = structure.unflatten([values[name] for name in names])
    return Checkpoint(path, step, state, unpack(facts["batches"]), facts["run"], facts["record"])


def read_facts(path: Path) -> dict[str, Any]:
    """The item `facts`, compared with its own checksum."""
    _check_readable(path)
    try:
        facts = json.loads((path / "facts" / "metadata").read_bytes())
        whole = facts["mtljax"] == FORMAT and facts["crc32"] == checksum_of_facts(facts)
    except Exception as error:  # flipped bits in JSON can raise many types
        raise DamagedCheckpoint(first_line(error)) from error
    if not whole:
        raise DamagedCheckpoint("the facts do not match their checksum")
    return facts


def read_leaves(path: Path, facts: dict[str, Any], templates: dict[str, Any]) -> dict[str, Any]:
    """The leaves of a checkpoint that have a template, compared with their checksums."""
    known = facts["leaves"]
    targets = {name: leaves.target_of(leaf, known[name]["weak_type"]) for name, leaf in templates.items()}

    def read_arrays() -> dict[str, Any]:
        # Orbax and TensorStore raise a dozen types for a broken file; every error of a read is damage.
        try:
            with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
                folder = epath.Path(path / "state")
                reader.metadata(folder)  # detects broken metadata before a dozen reads start
                restore_args = ocp.checkpoint_utils.construct_restore_args(targets)
                wanted = ocp.args.PyTreeRestore(item=targets, restore_args=restore_args, partial_restore=True)
                return reader.restore(folder, args=wanted)
        except Exception as error:
            raise DamagedCheckpoint(first_line(error)) from error

    arrays = for_all(read_arrays)
    values = {name: arrays[name] if np.prod(known[name]["shape"]) else np.zeros(0) for name in templates}
    # Before any comparison, all checksums are computed, since all processes together gather a distributed array.
    checksums = {name: leaves.checksum(value) for name, value in values.items()}

    def compare() -> None:
        for name in templates:
            if checksums[name] != known[name]["crc32"]:
                raise DamagedCheckpoint(f"{name} does not match its checksum")

    for_all(compare)
    return {name: leaves.like(leaf, arrays[name], known[name]["weak_type"]) for name, leaf in templates.items()}


def check_same_leaves(where: str, saved: dict[str, dict[str, Any]], template: PyTree) -> None:
    """Raise if the leaves are not those of the template."""
    expected = leaves.named(template)
    for name in expected:
        if name not in saved:
            raise ValueError(f"{where} must have the leaves of the given state, found no leaf {name!r}")
    for name in saved:
        if name not in expected:
            raise ValueError(f"{where} must have only the leaves of the given state, found a leaf {name!r}")
    for name, leaf in expected.items():
        if kind_of(leaf) != saved_kind(saved[name]):
            raise ValueError(f"{where} holds {name!r} as {saved_kind(saved[name])}, the given state as {kind_of(leaf)}")


def kind_of(leaf: Any) -> str:
    """Type and shape, as messages show them."""
    data = leaves.data_of(leaf)
    return f"{data.dtype}{list(data.shape)}"


def saved_kind(facts: dict[str, Any]) -> str:
    """`kind_of` a leaf in a checkpoint."""
    return f"{facts['dtype']}{facts['shape']}"


def path_of(directory: str | os.PathLike[str], step: int) -> Path:
    """The folder of a checkpoint."""
    return Path(directory).resolve() / f"{PREFIX}{step}"


def checksum_of_facts(facts: dict[str, Any]) -> int:
    """CRC-32 of all facts except itself."""
    rest = {name: value for name, value in facts.items() if name != "crc32"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def warn_of(directory: Any, step: int, error: Exception, found: Checkpoint | None, then: str = "") -> None:
    """Warn that a checkpoint was skipped."""
    state = "is damaged" if isinstance(error, DamagedCheckpoint) else "may not be read"
    instead = "" if found is None else f"; continuing from step {found.step}"
    warnings.warn(f"checkpoint {path_of(directory, step)} {state} ({first_line(error)}){instead}{then}", stacklevel=4)


def for_all(part: Callable[[], T]) -> T:
    """The result of a part of a read; all processes wait here, and if one fails, all fail."""
    result, error = None, None
    try:
        result = part()
    except (DamagedCheckpoint, PermissionError) as reason:
        error = reason
    if jax.process_count() > 1 and not np.all(multihost_utils.process_allgather(np.asarray(error is None))):
        error = error or DamagedCheckpoint("another process cannot read it")
    if error is not None:
        raise error
    return cast(T, result)


def first_line(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _check_readable(path: Path) -> None:
    """Raise PermissionError if there is no permission to read a file, which is not damage."""

    def refuse(error: OSError) -> None:
        raise error

    def files() -> Iterable[str]:
        for folder, _, names in os.walk(path, onerror=refuse):
            yield from (os.path.join(folder, name) for name in names)

    try:
        for file in files():
            with open(file, "rb"):
                pass
    except PermissionError:
        raise
    except OSError as error:
        raise DamagedCheckpoint(first_line(error)) from error

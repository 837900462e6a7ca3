"""Checkpoints that restore to the bit: atomic, checked, and written while training goes on.

Orbax writes each checkpoint into a temporary folder and renames it when it is complete, so a killed process leaves
either a whole checkpoint or none. Orbax does not notice a flipped bit in an array, so a CRC-32 of every leaf is
stored beside the arrays and compared when they are read.

A checkpoint is an ordinary Orbax one, readable without mtljax: item `state` holds the arrays by name, typed PRNG keys
as their key data; item `facts` is JSON: the CRC-32 of each leaf, and whether its type is weak. Item `batches`, where
there is one, is JSON too: where the input pipeline stood.
"""

from __future__ import annotations

import json
import os
import warnings
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from mtljax.types import PyTree, TrainState


class DamagedCheckpoint(Exception):
    """A checkpoint whose files are incomplete, unreadable or not what was written."""


def make_manager(directory: str | os.PathLike[str], *, keep: int = 3) -> ocp.CheckpointManager:
    """Opens a folder of checkpoints, made where it is missing.

    Args:
        directory: the folder; one subfolder a checkpoint, named by its step.
        keep: how many of the newest stay; older ones are deleted once a newer one is complete. With 1, a damaged
            checkpoint has none before it to fall back to.

    Returns:
        Orbax's manager, for `save` and `restore`. Close it (`manager.close()`) to wait for the last write.

    Raises:
        ValueError: `keep` is not a positive integer.
    """
    if keep < 1:
        raise ValueError(f"keep must be a positive integer, found {keep!r}")
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, cleanup_tmp_directories=True)
    json_items = {name: ocp.JsonCheckpointHandler() for name in ("facts", "batches")}
    handlers = {"state": ocp.StandardCheckpointHandler(), **json_items}
    return ocp.CheckpointManager(epath.Path(directory).resolve(), options=options, item_handlers=handlers)


def save(manager: ocp.CheckpointManager, state: TrainState, *, batches: dict[str, Any] | None = None) -> None:
    """Writes `state` as the checkpoint of its own step, and beside it where the input pipeline stands.

    `batches` is whatever JSON holds unchanged, for `restore_batches`; None writes nothing. Returns once the arrays are
    copied to the host, so `state` may be donated at once; the files are written by a thread, and the next `save` or
    `manager.close()` waits for it.

    Example:
        >>> import tempfile
        >>> from mtljax.types import MethodState, Params
        >>> params = Params(shared={"w": jnp.arange(3.0)}, tasks={})
        >>> method_state = MethodState(weights=jnp.ones(2), residual=jnp.float32(0))
        >>> state = TrainState(jnp.int32(7), params, {}, (), method_state, jax.random.key(0))
        >>> manager = make_manager(tempfile.mkdtemp())
        >>> save(manager, state)
        >>> manager.wait_until_finished()
        >>> restored = restore(manager, jax.tree.map(jnp.zeros_like, state))
        >>> int(restored.step), restored.params.shared["w"].tolist()
        (7, [0.0, 1.0, 2.0])
        >>> manager.close()
    """
    arrays = jax.tree.map(_plain, state)
    items: dict[str, Any] = {"state": ocp.args.StandardSave(arrays), "facts": ocp.args.JsonSave(_facts(arrays))}
    if batches is not None:
        items["batches"] = ocp.args.JsonSave({"state": batches, "crc32": _checksum_of_json(batches)})
    manager.save(int(state.step), args=ocp.args.Composite(**items), force=True)


def restore(manager: ocp.CheckpointManager, template: TrainState, *, step: int | None = None) -> TrainState | None:
    """Reads a checkpoint back into the structure, types and devices of `template`.

    Args:
        manager: from `make_manager`.
        template: a state of the run that wrote the checkpoint; its values are not read.
        step: which checkpoint; None is the newest that is whole. A damaged one on the way there is named by a
            warning and renamed to `<step>.damaged`, out of the way of the run that will write that step again.

    Returns:
        The state, equal to the saved one to the bit; None where there is no checkpoint at all.

    Raises:
        ValueError: the checkpoint holds other leaves than `template`, or other shapes or types; the message names the
            first. Also where checkpoints exist and every one is damaged.
        DamagedCheckpoint: the `step` asked for is damaged.
    """
    if step is not None:
        return _restore_step(manager, template, step)
    damaged: dict[int, DamagedCheckpoint] = {}
    for candidate in sorted(manager.all_steps(), reverse=True):
        try:
            state = _restore_step(manager, template, candidate)
        except DamagedCheckpoint as error:
            damaged[candidate] = error
            continue
        _set_aside(manager, damaged, candidate)
        return state
    if damaged:
        newest = max(damaged)
        raise ValueError(
            f"no checkpoint in {manager.directory} can be read; steps {sorted(damaged)} are damaged, "
            f"the newest by: {damaged[newest]}"
        ) from damaged[newest]
    return None


def restore_batches(manager: ocp.CheckpointManager, step: int) -> dict[str, Any] | None:
    """Where the input pipeline stood at a checkpoint; None where that was not written.

    Raises:
        DamagedCheckpoint: it was, and cannot be read.
    """
    if not (manager.directory / str(step) / "batches").exists():
        return None
    try:
        found = manager.restore(step, args=ocp.args.Composite(batches=ocp.args.JsonRestore()))["batches"]
        state, checksum = found["state"], found["crc32"]
    except Exception as error:  # as in `_restore_step`
        raise DamagedCheckpoint(_first_line(error)) from error
    if _checksum_of_json(state) != checksum:
        raise DamagedCheckpoint("the state of batches does not match its checksum")
    return state


def _restore_step(manager: ocp.CheckpointManager, template: TrainState, step: int) -> TrainState:
    plain = jax.tree.map(_plain, template)
    # Orbax and TensorStore raise a dozen types for a broken file; whatever a read raises is damage.
    try:
        found = manager.item_metadata(step)["state"].tree
        saved = {name: (tuple(leaf.shape), str(np.dtype(leaf.dtype))) for name, leaf in _named(found)}
        facts = manager.restore(step, args=ocp.args.Composite(facts=ocp.args.JsonRestore()))["facts"]
        restore_batches(manager, step)
    except Exception as error:
        raise DamagedCheckpoint(_first_line(error)) from error
    _check_structure(f"checkpoint {manager.directory / str(step)}", saved, plain)
    weak = jax.tree.unflatten(jax.tree.structure(plain), [facts[name]["weak_type"] for name, _ in _named(plain)])
    targets = ocp.args.StandardRestore(jax.tree.map(_target, plain, weak))
    try:
        arrays = manager.restore(step, args=ocp.args.Composite(state=targets))["state"]
    except Exception as error:
        raise DamagedCheckpoint(_first_line(error)) from error
    for name, leaf in _named(arrays):
        if _checksum(leaf) != facts[name]["crc32"]:
            raise DamagedCheckpoint(f"{name} does not match its checksum")
    return jax.tree.map(_like, template, arrays, weak)


def _check_structure(where: str, saved: dict[str, tuple], template: PyTree) -> None:
    expected = {name: (leaf.shape, str(leaf.dtype)) for name, leaf in _named(template)}
    for name, (shape, dtype) in expected.items():
        if name not in saved:
            raise ValueError(f"{where} has no leaf {name!r}, which the given state has")
        if saved[name] != (shape, dtype):
            saved_shape, saved_dtype = saved[name]
            raise ValueError(
                f"{where} holds {name!r} as {saved_dtype}{list(saved_shape)}, the given state as {dtype}{list(shape)}"
            )
    for name in saved:
        if name not in expected:
            raise ValueError(f"{where} has a leaf {name!r}, which the given state has not")


def _set_aside(manager: ocp.CheckpointManager, damaged: dict[int, DamagedCheckpoint], restored: int) -> None:
    for step, error in damaged.items():
        path = manager.directory / str(step)
        path.rename(manager.directory / f"{step}.damaged")
        warnings.warn(
            f"checkpoint {path} is damaged ({error}); continuing from step {restored}, and the damaged one is now "
            f"{step}.damaged",
            stacklevel=4,
        )
    if damaged:
        manager.reload()


def _named(tree: PyTree) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def _is_key(leaf: jax.Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: jax.Array) -> jax.Array:
    data = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    if data.size == 0:  # Orbax refuses these; the shape in `template` is all there is to them
        return jnp.zeros([max(n, 1) for n in data.shape], data.dtype)
    return data


def _target(leaf: jax.Array, weak: bool) -> Any:
    # An array that JAX was free to place stays so: read as committed to one device, it could not enter a mesh.
    if isinstance(leaf, jax.Array) and leaf.committed and not weak:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return np.empty(leaf.shape, leaf.dtype)


def _like(template: jax.Array, value: Any, weak: bool) -> jax.Array:
    if template.size == 0:
        return template
    if isinstance(value, np.ndarray):
        value = _weakly_typed(value) if weak else jnp.array(value)
        if weak and template.committed:
            value = jax.device_put(value, template.sharding)
    return jax.random.wrap_key_data(value, impl=jax.random.key_impl(template)) if _is_key(template) else value


def _weakly_typed(value: np.ndarray) -> jax.Array:
    # A weak type decides promotions, and so bits. JAX gives one to what it fills with a Python number, and keeps it
    # through a scatter.
    empty = jnp.full(value.size, value.dtype.type(0).item())
    return empty.at[jnp.arange(value.size)].set(value.ravel()).reshape(value.shape)


def _facts(arrays: PyTree) -> dict[str, dict[str, Any]]:
    return {
        name: {"crc32": _checksum(leaf), "weak_type": bool(getattr(leaf, "weak_type", False))}
        for name, leaf in _named(arrays)
    }


def _checksum(leaf: Any) -> int | None:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return None  # no process of several sees the whole of it
    return zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data)


def _checksum_of_json(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"

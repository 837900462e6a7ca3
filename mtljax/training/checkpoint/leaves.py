"""Leaves of a state in a checkpoint: their names, their stored form, and how they are restored."""

from __future__ import annotations

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from mtljax.types import PyTree


def named(tree: PyTree) -> dict[str, Any]:
    """The leaves by path, such as "params/shared/w"; different leaves have different names.

    Example:
        >>> list(named({"u/v": 1, "u": {"v": 2}, "~": [3]}))
        ['u/v', 'u~1v', '~0/0']
    """
    return {name_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def name_of(path: Any) -> str:
    """A path as a name."""
    parts = (jax.tree_util.keystr((key,), simple=True) for key in path)
    return "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)


def is_key(leaf: Any) -> bool:
    """Whether the leaf is a typed PRNG key."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def data_of(leaf: Any) -> Any:
    """The leaf as numbers; of a typed key, its key data."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def stored(leaf: Any) -> Any:
    """The stored form of a leaf, for Orbax."""
    data = data_of(leaf)
    if data.size == 0:  # Orbax refuses empty arrays; the facts hold their shape
        return np.zeros([max(n, 1) for n in data.shape], data.dtype)
    if jax.process_count() > 1 and data.is_fully_addressable:  # Orbax accepts only global arrays here
        return np.asarray(data)
    return data


def facts_of(leaf: Any) -> dict[str, Any]:
    """The facts of a leaf: shape, dtype, weak type and checksum."""
    data = data_of(leaf)
    return {
        "shape": list(data.shape),
        "dtype": str(data.dtype),
        "weak_type": bool(getattr(data, "weak_type", False)),
        "crc32": checksum(data),
    }


def checksum(data: Any) -> int:
    """CRC-32 of the whole array; all processes first gather a distributed array."""
    if isinstance(data, jax.Array) and not data.is_fully_addressable and not data.is_fully_replicated:
        data = multihost_utils.process_allgather(data, tiled=True)
    return zlib.crc32(np.ascontiguousarray(data).view(np.uint8).data)


def target_of(leaf: Any, weak: bool) -> Any:
    """The target into which Orbax reads a leaf."""
    data = data_of(leaf)
    # An uncommitted array stays uncommitted: an array committed to one device could not enter a mesh.
    if isinstance(data, jax.Array) and data.committed and not weak and data.size:
        return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=data.sharding)
    return np.empty([max(n, 1) for n in data.shape], data.dtype)


def like(template: Any, value: Any, weak: bool) -> Any:
    """A value that was read, as the same kind of leaf as the template and on its devices."""
    if math.prod(template.shape) == 0:
        return template
    if isinstance(value, np.ndarray):
        value = _weakly_typed(value) if weak else jnp.array(value)
        if weak and template.committed:
            value = jax.device_put(value, template.sharding)
    return jax.random.wrap_key_data(value, impl=jax.random.key_impl(template)) if is_key(template) else value


def _weakly_typed(value: np.ndarray) -> jax.Array:
    # A weak type changes promotions, and so results. JAX gives a weak type to an array filled with a Python number, and
    # keeps it through a scatter.
    empty = jnp.full(value.size, value.dtype.type(0).item())
    return empty.at[jnp.arange(value.size)].set(value.ravel()).reshape(value.shape)

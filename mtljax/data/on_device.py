"""A data set on the device: the jitted step draws its own batch, as a function of the step number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mtljax.checks import check_choice, check_count, check_key, expect
from mtljax.data.lengths import leading_length
from mtljax.types import Array, Key

Tree = TypeVar("Tree")

_ROUNDS = 8  # of the cipher; pairs of neighbours show a bias after 4 rounds, and no bias after 6


def on_device(
    batch: Tree, *, batch_size: int, seed: int, mesh: Mesh | None = None, axis: str | tuple[str, ...] | None = None
) -> tuple[Tree, Callable[[Tree, Array], Tree]]:
    """Put a whole data set on the device, and make a function that draws the batch of each step there.

    `take` is pure JAX. Call it inside the jitted step or in a `lax.scan` over steps: no data move from the host to the
    device. `take` depends on `(seed, step)` only, so a resumed run needs only `state.step`. Epoch e is a permutation of
    the N examples drawn from `(seed, e)`. Batch s is slice `s mod n` of epoch `s // n`, with `n = N // batch_size`.
    `mtljax.data.batches` has the same rule, with different permutations. `permuted` computes only the rows of the
    batch: sorting N numbers at each step would take a thousand times as long.

    With a mesh, the rows are split over its D devices in equal blocks. Every device permutes its own block, and draws
    `batch_size / D` rows per step from it. No example moves between devices, an epoch has every example once, and the
    batch is sharded as `mtljax.training.sharded` expects it. Without a mesh, JAX's default places data and batch. If
    you copy `data` to all devices of a mesh yourself, every device holds the whole data set.

    Args:
        batch: `Batch`, dict of `Batch` of equal length, or any pytree of arrays `[N, ...]`. Dtypes stay as they are:
            uint8 images take a quarter of the memory of float32 images; convert them in the network.
        batch_size: examples per batch, from 1 to N.
        seed: non-negative integer.
        mesh: devices to split the rows over; None (default) for one device.
        axis: the axes of the mesh to split over; None (default) for all.

    Returns:
        `(data, take)`: the tree on the device, leaves `[N, ...]`, and `take(data, step) -> tree` with leaves
        `[batch_size, ...]`, where step is an int32 scalar such as `state.step`.

    Raises:
        ValueError: leaves of unequal length, `batch_size` outside 1 to N, a negative seed, N or `batch_size` that is
            not a multiple of D; from `take`, data of another length.

    Example:
        >>> import mtljax
        >>> data, take = on_device(mtljax.Batch(jnp.arange(6), {"a": jnp.arange(6)}), batch_size=2, seed=0)
        >>> epoch = jax.jit(jax.vmap(take, in_axes=(None, 0)))(data, jnp.arange(3))
        >>> sorted(epoch.inputs.ravel().tolist())
        [0, 1, 2, 3, 4, 5]
    """
    size = leading_length(batch, "on_device")
    check_count("on_device", "batch_size", batch_size, most=size)
    check_count("on_device", "seed", seed, least=0)
    if mesh is None:
        shards, place = 1, None
    else:
        expect(isinstance(mesh, Mesh), "on_device", "mesh", "a jax.sharding.Mesh", mesh, TypeError)
        axis = mesh.axis_names if axis is None else axis
        for name in (axis,) if isinstance(axis, str) else axis:
            check_choice("on_device", "axis", name, mesh.axis_names)
        shards = math.prod(mesh.shape[name] for name in ((axis,) if isinstance(axis, str) else axis))
        place = NamedSharding(mesh, PartitionSpec(axis))
    for what, number in (("examples", size), ("batch_size", batch_size)):
        if number % shards:
            raise ValueError(f"on_device: {what} must be a multiple of the {shards} devices, found {number}")
    block, part = size // shards, batch_size // shards
    steps = block // part

    def draw(data: Tree, step: Array, key: Key) -> Tree:
        epoch, position = step // steps, step % steps
        key = jax.random.fold_in(key, epoch)
        rows = permuted(key, position * part + jnp.arange(part, dtype=jnp.int32), block)
        return jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), data)

    def draw_own(data: Tree, step: Array) -> Tree:
        return draw(data, step, jax.random.fold_in(jax.random.key(seed), lax.axis_index(axis)))

    def take(data: Tree, step: Array) -> Tree:
        found = leading_length(data, "take")
        if found != size:
            raise ValueError(f"take: data must be the {size} examples that on_device returned, found {found}")
        step = jnp.asarray(step, jnp.int32)
        if mesh is None:
            return draw(data, step, jax.random.key(seed))
        specs = (PartitionSpec(axis), PartitionSpec())
        return jax.shard_map(draw_own, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(axis))(data, step)

    return jax.device_put(batch, place), take


def permuted(key: Key, positions: Array, size: int) -> Array:
    """Some entries of a random permutation of `0, ..., size - 1`, computed without the other entries.

    The permutation is a Feistel cipher over pairs: position `x = l b + r` with `l` below `a = ceil(sqrt(size))` and `r`
    below `b = ceil(size / a)`. Rounds `l := l + f_i(r) mod a` and `r := r + f_i(l) mod b` alternate, with f_i a 32-bit
    hash of its argument and of round i's part of the key. Every round is invertible, so the cipher permutes the `a b`
    pairs. If the result is `size` or larger, the cipher is applied again until it is smaller. This gives a permutation
    of the numbers below `size`. Fewer than one position in `sqrt(size)` needs a repetition.

    The permutation is exact, and one of at most 2^256. It is random enough for batches (tests: places and pairs of
    neighbours are uniform), but not for cryptography.

    J. Black and P. Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002.

    Args:
        key: typed PRNG key.
        positions: integers from 0 to `size - 1`, any shape.
        size: from 1 to 2^31 - 1.

    Returns:
        int32 of the shape of `positions`.

    Raises:
        ValueError: `size` outside its range.

    Example:
        >>> sorted(permuted(jax.random.key(0), jnp.arange(5), 5).tolist())
        [0, 1, 2, 3, 4]
    """
    check_key("permuted", "key", key)
    check_count("permuted", "size", size, most=2**31 - 1)
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    wide, narrow, limit = jnp.uint32(a), jnp.uint32(b), jnp.uint32(size)
    keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def once(x: Array) -> Array:
        left, right = x // narrow, x % narrow
        for i in range(0, _ROUNDS, 2):
            left = (left + _hashed(right ^ keys[i]) % wide) % wide
            right = (right + _hashed(left ^ keys[i + 1]) % narrow) % narrow
        return left * narrow + right

    def again(x: Array) -> Array:
        return jnp.where(x >= limit, once(x), x)

    found = lax.while_loop(lambda x: jnp.any(x >= limit), again, once(positions.astype(jnp.uint32)))
    return found.astype(jnp.int32)


def _hashed(x: Array) -> Array:
    """A bijection of 32-bit numbers in which every bit of the argument changes every bit of the value."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> jnp.uint32(shift))) * jnp.uint32(factor)
    return x ^ (x >> jnp.uint32(16))

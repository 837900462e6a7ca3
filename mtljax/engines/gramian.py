"""The Gramian without the Jacobian: pull a row, push it forward, drop it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import check_count
from mtljax.engines.cotangents import merged
from mtljax.engines.cut import Cut
from mtljax.engines.linear import Cotangents
from mtljax.engines.types import Engine, Reading, reading_of
from mtljax.ranges import in_its_unit, in_units, largest_entries, ranged
from mtljax.types import Array, PyTree, Reads


def gramian(chunk: int | None = None) -> Engine:
    """No row of the Jacobian is ever stored: O(P) memory at any T.

    Row i, `g_i = J^T e_i`, is pulled back, pushed forward by one Jacobian-vector product, which gives column i of the
    Gramian, `G_i = J g_i`, and dropped. The method turns G into weights, and one more pull gives `J^T w`. Exact.
    Memory beyond the network's own: about two times P (a row, the update) and the heads' T cotangents at the shared
    representation. Where every task has inputs of its own there is no such representation; then heads are pulled
    again for the last pull, and columns cost T forward products each.

    Where a convolution or a head-to-parameter path forbids a compiled loop, the T steps are written out, kept in order
    by `lax.optimization_barrier`.

    Args:
        chunk: how many rows are held at a time; None (default) for one.

    Returns:
        `Engine` for methods that read the Gramian. A method that reads task gradients raises ValueError, and so does
        a `jax.custom_vjp` in the trunk, which has no forward rule to push with.

    Raises:
        ValueError: `chunk` below 1.

    Example:
        >>> import mtljax
        >>> gramian().name
        'gramian'
    """
    if chunk is not None:
        check_count("gramian", "chunk", chunk)

    def read(cut: Cut, reads: Reads) -> Reading:
        linear = cut.linear
        if not linear.forward:
            raise ValueError(
                "engine gramian pushes rows forward, but the network holds a jax.custom_vjp without a forward rule; "
                "use engines.full() or engines.chunked(size)"
            )
        in_order = any(linear.direct) or (linear.convolutional and jax.default_backend() == "cpu")
        columns = functools.partial(_in_order, cut) if in_order else functools.partial(_in_loop, cut, chunk)
        found = columns()[0]
        return reading_of(cut, ranged(0.5 * (found + found.T), lambda: in_units(*columns(scaled=True))))

    def pull(cut: Cut, reads: Reads, answer: PyTree, kept: PyTree) -> PyTree:
        if not any(cut.linear.direct):
            return cut.pull(answer)
        # Seeds times weights differ from the seeds above, so the compiler keeps nothing of size T x P for them.
        entries = cut.linear.entries
        weights = [part.astype(seed.dtype) for part, seed in zip(entries.parts(answer), cut.seeds, strict=True)]
        cotangents = [cut.linear.head(e, seed * weights[e]) for e, seed in enumerate(cut.seeds)]
        return cut.reduce(cut.linear.pull(merged(cotangents, entries, cut.active)))

    return Engine("gramian" if chunk is None else f"gramian({chunk})", read, pull, serves=("gramian",))


def _pushed(cut: Cut, cotangents: PyTree, scaled: bool) -> tuple[list[Array], Array]:
    """A row pulled back and pushed forward to the boundary, and its largest entry where that is its unit, else 0."""
    row, largest = cut.reduce(cut.linear.pull(cotangents)), jnp.zeros((), jnp.float32)
    if scaled:
        largest = largest_entries(jax.tree.map(lambda leaf: leaf[None], row), 1)[0]
        row = in_its_unit(row, largest)
    # A sum over devices is the same on all devices; the push needs the type of the parameters.
    row = jax.tree.map(lambda g, p: g + jnp.zeros_like(p), row, cut.shared)
    return cut.linear.push(row), largest


def _in_loop(cut: Cut, chunk: int | None, scaled: bool = False) -> tuple[Array, Array]:
    """Columns in a compiled loop, contracted with the heads' cotangents, so that no head is pushed through."""
    cotangents = cut.rows()
    num_tasks = cut.num_tasks

    def column(one: list[Array]) -> tuple[Array, Array]:
        tangents, largest = _pushed(cut, one, scaled)
        tangents = [tangent[None] for tangent in tangents]
        return cut.reduce(trees.cross_gramian(cotangents, tangents, rows=(num_tasks, 1))[:, 0]), largest

    if not cotangents:
        return jnp.zeros((num_tasks, num_tasks), jnp.float32), jnp.zeros((num_tasks,), jnp.float32)
    # The loop stacks columns as rows.
    columns, largest = lax.map(column, cotangents, batch_size=chunk)
    return columns.T, largest


def _in_order(cut: Cut, scaled: bool = False) -> tuple[Array, Array]:
    """Columns written out, one after the other."""
    columns: list[Array] = []
    sizes: list[Array] = []
    entries = cut.linear.entries
    seeds = [seed.astype(jnp.float32) for seed in cut.seeds]
    for e, k in [(e, k) for e, size in enumerate(entries.sizes) for k in range(1 if size is None else size)]:
        found, active = cut.cotangents[e], cut.active[len(columns)]
        if entries.sizes[e] is not None:
            found = [None if each is None else each[k] for each in found]
        elif any(cut.linear.direct):
            seed = cut.seeds[e]
            if columns:
                seed, _ = lax.optimization_barrier((seed, columns[-1]))
            found = cut.linear.head(e, seed)
        if columns and (entries.sizes[e] is not None or not any(cut.linear.direct)):
            found, _ = lax.optimization_barrier((found, columns[-1]))
        at_boundary, largest = _pushed(cut, _alone(cut, found, active), scaled)
        tangents = cut.linear.push_heads(at_boundary)
        slopes = [seed * tangent.astype(jnp.float32) for seed, tangent in zip(seeds, tangents, strict=True)]
        columns.append(cut.reduce(jnp.where(cut.active, entries.joined(slopes), 0.0)))
        sizes.append(largest)
    return jnp.stack(columns, axis=1), jnp.stack(sizes)


def _alone(cut: Cut, found: Cotangents, active: Array) -> list[Array]:
    """One task's cotangents as a full list; zeros where it reads nothing."""
    alone = []
    for place, value in enumerate(found):
        e = next(e for e, cotangents in enumerate(cut.cotangents) if cotangents[place] is not None)
        known = cut.cotangents[e][place]
        assert known is not None
        zero = jnp.zeros_like(known if cut.linear.entries.sizes[e] is None else known[0])
        alone.append(zero if value is None else jnp.where(active, value, zero))
    return alone

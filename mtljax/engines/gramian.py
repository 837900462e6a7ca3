"""The Gramian without the Jacobian: pull a row, push it forward, drop it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import check_count
from mtljax.engines.cotangents import merged, stacked
from mtljax.engines.linear import Cotangents
from mtljax.engines.types import Engine, Outcome, Problem
from mtljax.ranges import in_its_unit, in_units, largest_entries, ranged
from mtljax.types import Array, Method, MethodState, PyTree


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
        >>> mtljax.engines.gramian().name
        'gramian'
    """
    if chunk is not None:
        check_count("gramian", "chunk", chunk)

    def solve(problem: Problem, method: Method, state: MethodState) -> Outcome:
        linear = problem.linear
        if method.reads != "gramian":
            raise ValueError(
                f"engine gramian stores no task gradients, but {method.name} reads them; use engines.full()"
            )
        if not linear.forward:
            raise ValueError(
                "engine gramian pushes rows forward, but the network holds a jax.custom_vjp without a forward rule; "
                "use engines.full() or engines.chunked(size)"
            )
        in_order = any(linear.direct) or (linear.convolutional and jax.default_backend() == "cpu")
        columns = functools.partial(_in_order, problem) if in_order else functools.partial(_in_loop, problem, chunk)
        gram = columns()[0]
        gram = ranged(0.5 * (gram + gram.T), lambda: in_units(*columns(scaled=True)))
        weights, outcome = problem.weighed(method, state, gram)
        if any(linear.direct):
            # Seeds that hold the weights make these other values than above, so nothing of T x P is kept for them.
            cotangents = [linear.head(k, seed * weights[k].astype(seed.dtype)) for k, seed in enumerate(problem.seeds)]
            total = merged(cotangents, outcome.active)
        else:
            total = merged(problem.cotangents, outcome.active, weights)
        return outcome._replace(shared=problem.reduce(linear.pull(total)))

    return Engine("gramian" if chunk is None else f"gramian({chunk})", solve)


def _pushed(problem: Problem, cotangents: PyTree, scaled: bool) -> tuple[list[Array], Array]:
    """A row pulled back and pushed forward to the boundary, and its largest entry where that is its unit, else 0."""
    row, largest = problem.reduce(problem.linear.pull(cotangents)), jnp.zeros((), jnp.float32)
    if scaled:
        largest = largest_entries(jax.tree.map(lambda leaf: leaf[None], row), 1)[0]
        row = in_its_unit(row, largest)
    # Summing over devices makes a value that is the same on all of them; the push wants the parameters' own type.
    row = jax.tree.map(lambda g, p: g + jnp.zeros_like(p), row, problem.shared)
    return problem.linear.push(row), largest


def _in_loop(problem: Problem, chunk: int | None, scaled: bool = False) -> tuple[Array, Array]:
    """Columns in a compiled loop, contracted with the heads' cotangents, so that no head is pushed through."""
    cotangents = stacked(problem.cotangents, problem.active)
    num_tasks = len(problem.cotangents)

    def column(one: list[Array]) -> tuple[Array, Array]:
        tangents, largest = _pushed(problem, one, scaled)
        tangents = [tangent[None] for tangent in tangents]
        return problem.reduce(trees.cross_gramian(cotangents, tangents, rows=(num_tasks, 1))[:, 0]), largest

    if not cotangents:
        return jnp.zeros((num_tasks, num_tasks), jnp.float32), jnp.zeros((num_tasks,), jnp.float32)
    # The loop stacks columns as rows.
    columns, largest = lax.map(column, cotangents, batch_size=chunk)
    return columns.T, largest


def _in_order(problem: Problem, scaled: bool = False) -> tuple[Array, Array]:
    """Columns written out, one after the other."""
    columns: list[Array] = []
    sizes: list[Array] = []
    for k, entries in enumerate(problem.cotangents):
        if any(problem.linear.direct):
            seed = problem.seeds[k]
            if columns:
                seed, _ = lax.optimization_barrier((seed, columns[-1]))
            entries = problem.linear.head(k, seed)
        elif columns:
            entries, _ = lax.optimization_barrier((entries, columns[-1]))
        at_boundary, largest = _pushed(problem, _alone(problem, entries, problem.active[k]), scaled)
        tangents = problem.linear.push_heads(at_boundary)
        slopes = [
            seed.astype(jnp.float32) * t.astype(jnp.float32) for seed, t in zip(problem.seeds, tangents, strict=True)
        ]
        columns.append(problem.reduce(jnp.where(problem.active, jnp.stack(slopes), 0.0)))
        sizes.append(largest)
    return jnp.stack(columns, axis=1), jnp.stack(sizes)


def _alone(problem: Problem, entries: Cotangents, active: Array) -> list[Array]:
    """One task's cotangents as a full list; zeros where it reads nothing."""
    alone = []
    for place, entry in enumerate(entries):
        present = (cotangents[place] for cotangents in problem.cotangents)
        zero = next(jnp.zeros_like(array) for array in present if array is not None)
        alone.append(zero if entry is None else jnp.where(active, entry, zero))
    return alone

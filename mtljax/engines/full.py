"""Engines that store all T rows of the Jacobian."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax import ranges, trees
from mtljax.checks import check_callable, check_refine
from mtljax.engines import rows as row_strategies
from mtljax.engines.cotangents import stacked
from mtljax.engines.linear import Linearised
from mtljax.engines.rows import Rows
from mtljax.engines.types import Engine, Outcome, Problem
from mtljax.participation import rows_of, sound_rows
from mtljax.types import Method, MethodState, PyTree


def best_rows(linear: Linearised, backend: str) -> Rows:
    """The way of pulling rows that was measured fastest for this trunk on this kind of device.

    No trunk to pull through (every task has inputs of its own): `vmapped`, which is then free. On a CPU:
    `unrolled` where the trunk holds a convolution, else `looped`. Elsewhere: `vmapped`.

    Args:
        linear: the derivative.
        backend: `"cpu"`, `"gpu"` or `"tpu"`.
    """
    if not linear.trunk or backend != "cpu":
        return row_strategies.vmapped
    return row_strategies.unrolled if linear.convolutional else row_strategies.looped


def jacobian(problem: Problem, rows: Rows | None = None) -> PyTree:
    """The T rows by the shared parameters, leaves `[T, *p]`, reduced over devices."""
    strategy = rows or best_rows(problem.linear, jax.default_backend())
    num_tasks = len(problem.cotangents)
    if not problem.linear.direct:
        return jax.tree.map(lambda leaf: jnp.zeros((num_tasks, *leaf.shape), leaf.dtype), problem.shared)
    return problem.reduce(strategy(problem.linear.pull, stacked(problem.cotangents, problem.active)))


def full(rows: Rows | None = None, *, refine: bool = False) -> Engine:
    """All T rows of the Jacobian: one forward pass, one pass through the heads, T backward passes through the trunk.

    `J_k = dL_k / d shared`, then the Gramian `J J^T` where the method reads it, and `J^T w`. Memory: T x P.

    Args:
        rows: how rows are pulled: `engines.vmapped`, `engines.looped`, `engines.unrolled` or a function of the same
            form; None (default) for the one measured fastest on the device at hand (see `engines.best_rows`).
        refine: whether the Gramian is made in float64, which the device must have, for `mgda`, `upgrad`, `dualproj`,
            `cagrad`, `conicgrad`, `config` and `imtl_g`, also wrapped. They then come within
            `2^-20 sum_k |w*_k| |g_k|` of the exact direction for the rows at hand, where a Gramian in float32 leaves
            open the larger of `1e-3 |d*|` and `2^-11 sum_k |w*_k| |g_k|`. Working memory: the rows once more, in
            float64. `docs/methods.md` says more.

    Returns:
        `Engine` that serves every method; with `refine` it raises ValueError for one that is not refined.

    Example:
        >>> import mtljax
        >>> mtljax.engines.full(rows=mtljax.engines.vmapped).name
        'full(vmapped)'
    """
    if rows is not None:
        check_callable("full", "rows", rows)
    check_refine("full", refine)

    def solve(problem: Problem, method: Method, state: MethodState) -> Outcome:
        check_refine("full", refine, method)
        found, num_tasks = jacobian(problem, rows), len(problem.cotangents)
        if method.reads == "gramian":
            gramian = (ranges.refined_gramian if refine else ranges.gramian)(found, num_tasks=num_tasks)
            weights, outcome = problem.weighed(method, state, gramian)
            return outcome._replace(shared=trees.weighted_sum(weights, found))
        # A method that keeps rows would keep a NaN for ever.
        active = problem.active & sound_rows(found, num_tasks, squared=problem.squared)
        update, state = method.update(rows_of(active, found), state, **problem.told(active))
        return Outcome(update, state, active)

    settings = [] if rows is None else [getattr(rows, "__name__", "rows")]
    settings += ["refine"] if refine else []
    return Engine(f"full({', '.join(settings)})" if settings else "full", solve)


def chunked(size: int, *, refine: bool = False) -> Engine:
    """All T rows of the Jacobian, `size` at a time: less working memory than all at once, same rows.

    Memory: T x P for the rows, and the cotangents of `size` tasks within the trunk.

    Args:
        size: number of rows pulled together, at least 1; it need not divide T.
        refine: as in `full`.

    Returns:
        `Engine` that serves every method.

    Raises:
        ValueError: `size` below 1.

    Example:
        >>> import mtljax
        >>> mtljax.engines.chunked(4).name
        'chunked(4)'
    """
    engine = full(row_strategies.in_chunks(size), refine=refine)
    return engine._replace(name=f"chunked({size}, refine)" if refine else f"chunked({size})")

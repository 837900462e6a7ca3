"""Engines that store all T rows of the Jacobian."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax import ranges, trees
from mtljax.checks import check_callable, check_flag
from mtljax.engines import rows as row_strategies
from mtljax.engines.cut import Cut
from mtljax.engines.linear import Linearized
from mtljax.engines.rows import Rows
from mtljax.engines.types import Engine, Reading, reading_of
from mtljax.participation import rows_of, sound_rows
from mtljax.types import PyTree, Reads


def best_rows(linear: Linearized, backend: str) -> Rows:
    """The way of pulling rows that was measured fastest for this trunk on this kind of device.

    No trunk to pull through (every task has inputs of its own): `vmapped`, which is then free. On a CPU:
    `unrolled` where the trunk holds a convolution, else `looped`. Elsewhere: `vmapped`.

    Args:
        linear: the derivative.
        backend: `"cpu"`, `"gpu"` or `"tpu"`.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> from mtljax.engines.linear import linearize
        >>> def losses_fn(params):
        ...     hidden = jnp.tanh(params.shared)
        ...     return {k: jnp.sum(hidden * params.tasks[k]) for k in "ab"}
        >>> linear = linearize(losses_fn, mtljax.Params(jnp.ones(2), {"a": jnp.ones(2), "b": jnp.ones(2)}), (), False)
        >>> best_rows(linear, "cpu").__name__, best_rows(linear, "gpu").__name__
        ('looped', 'vmapped')
    """
    if not linear.trunk or backend != "cpu":
        return row_strategies.vmapped
    return row_strategies.unrolled if linear.convolutional else row_strategies.looped


def jacobian(cut: Cut, rows: Rows | None = None) -> PyTree:
    """The T rows by the shared parameters, leaves `[T, *p]`, reduced over devices."""
    if not cut.linear.direct:
        return jax.tree.map(lambda leaf: jnp.zeros((cut.num_tasks, *leaf.shape), leaf.dtype), cut.shared)
    strategy = rows or best_rows(cut.linear, jax.default_backend())
    return cut.reduce(strategy(cut.linear.pull, cut.rows()))


def full(rows: Rows | None = None, *, refine: bool = False) -> Engine:
    """All T rows of the Jacobian: one forward pass, one pass through the heads, T backward passes through the trunk.

    `J_k = dL_k / d shared`, then the Gramian `J J^T` where the method reads it, and `J^T w`. Memory: T x P.

    Args:
        rows: how rows are pulled: `engines.vmapped`, `engines.looped`, `engines.unrolled` or a function of the same
            form; None (default) for the one measured fastest on the device at hand (see `engines.best_rows`).
        refine: whether the Gramian is made in float64, which the device must have, for `mgda`, `upgrad`, `dualproj`,
            `pcd`, `cagrad`, `conicgrad`, `config`, `imtl_g`, `aligned_mtl`, `nash_mtl`, `fairgrad`, `pivrg` and
            `consmtl`, also wrapped. They then come within
            `2^-20 sum_k |w*_k| |g_k|` of the exact direction for the rows at hand, where a Gramian in float32 leaves
            open the larger of `1e-3 |d*|` and `2^-11 sum_k |w*_k| |g_k|`. Working memory: the rows once more, in
            float64. `docs/methods.md` says more.

    Returns:
        `Engine` that serves every method; with `refine` a step of a method that is not refined raises ValueError.

    Example:
        >>> import mtljax
        >>> full(rows=mtljax.engines.vmapped).name
        'full(vmapped)'
    """
    if rows is not None:
        check_callable("full", "rows", rows)
    check_flag("full", "refine", refine)

    def read(cut: Cut, reads: Reads) -> Reading:
        found, num_tasks = jacobian(cut, rows), cut.num_tasks
        if reads == "gramian":
            products = (ranges.refined_gramian if refine else ranges.gramian)(found, num_tasks=num_tasks)
            return reading_of(cut, products, kept=found)
        # A NaN would stay for ever in the state of a method that keeps rows.
        active = cut.active & sound_rows(found, num_tasks, squared=cut.squared)
        return Reading(rows_of(active, found), (), active, None)

    def pull(cut: Cut, reads: Reads, answer: PyTree, kept: PyTree) -> PyTree:
        return trees.weighted_sum(answer, kept) if reads == "gramian" else answer

    settings = [] if rows is None else [getattr(rows, "__name__", "rows")]
    settings += ["refine"] if refine else []
    return Engine(f"full({', '.join(settings)})" if settings else "full", read, pull, refines=refine)


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

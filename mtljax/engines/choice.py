"""The choice of an engine for `engine=None`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from mtljax import trees
from mtljax.checks import check_callable, check_method
from mtljax.engines.checks import check_params
from mtljax.engines.full import best_rows, full
from mtljax.engines.gramian import gramian
from mtljax.engines.linear import Linearized, linearize
from mtljax.engines.types import Engine
from mtljax.types import Method, Params, PyTree

ROWS_LIMIT = 2 << 30
"""Bytes of stored rows (T x P) above which a method that reads the Gramian is served without storing them: 2 GiB."""


CPU_USES = 64
CPU_ROWS = 64 << 20
"""On a CPU with a dense trunk rows are not stored where each parameter is used for fewer than `CPU_USES` examples or
positions, so that writing a row costs more than pushing it forward, nor where the rows exceed `CPU_ROWS` bytes."""


class Choice(NamedTuple):
    """An engine and why.

    Attributes:
        engine: None where one weighted backward pass is enough.
        reason: one sentence.
    """

    engine: Engine | None
    reason: str


def choose(method: Method, linear: Linearized, shared: PyTree, *, backend: str) -> Choice:
    """The cheapest engine that the method's `reads` allows; exact ones only.

    | reads | where | engine | passes through the trunk |
    |---|---|---|---|
    | losses | | none: one weighted pull | 1 backward |
    | task_grads | one task a step (`method.pick`) | none: that task's pull | 1 backward |
    | gramian | rows T x P above `ROWS_LIMIT` | `gramian()` | T + 1 backward, T forward |
    | gramian | CPU, dense trunk, below `CPU_USES` or above `CPU_ROWS` | `gramian()` | the same |
    | gramian | else | `full()` | T backward |
    | task_grads | | `full()` | T backward |

    A trunk without forward rule (`jax.custom_vjp`), or tasks with inputs of their own, get `full()`. Within `full()`
    rows are pulled as `engines.best_rows` says. `features` is never chosen: it is an approximation. The thresholds lie
    between points that were measured on a CPU (`benchmarks/`); for accelerators they are an estimate.

    Args:
        method: what reads.
        linear: the derivative.
        shared: shared parameters, or their shapes.
        backend: `"cpu"`, `"gpu"` or `"tpu"`.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params: {k: jnp.sum(jnp.tanh(params.shared) * params.tasks[k]) for k in "ab"}
        >>> params = mtljax.Params(jnp.ones(2), {"a": jnp.ones(2), "b": jnp.ones(2)})
        >>> linear = linearize(losses_fn, params, (), False)
        >>> choose(mtljax.methods.mgda(), linear, params.shared, backend="gpu").engine.name
        'full(vmapped)'
    """
    if method.reads == "losses":
        return Choice(None, f"{method.name} reads losses: one weighted backward pass")
    if method.pick is not None:
        return Choice(None, f"{method.name} reads one task's gradient per step: one backward pass")
    num_tasks = linear.entries.num_tasks
    size = num_tasks * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shared))
    rows = f"{num_tasks} rows of {trees.num_elements(shared)} parameters, {size / 2**20:.1f} MiB"
    if method.reads == "gramian" and linear.forward:
        if size > ROWS_LIMIT:
            return Choice(gramian(), f"{method.name} reads the Gramian and {rows} are too many to store")
        uses = linear.products / max(trees.num_elements(shared), 1)
        dense = backend == "cpu" and linear.trunk and not linear.convolutional and not any(linear.direct)
        if dense and (uses < CPU_USES or size > CPU_ROWS):
            return Choice(
                gramian(),
                f"{method.name} reads the Gramian: {rows}, each parameter used {uses:.0f} times, "
                "cheaper pushed forward than stored on cpu",
            )
    strategy = best_rows(linear, backend)
    return Choice(full(strategy), f"{method.name} reads the {method.reads}: {rows}, {strategy.__name__} on {backend}")


def explain(losses_fn: Callable[..., Any], method: Method, params: Params, *args: Any, has_aux: bool = False) -> Choice:
    """Which engine `engine=None` chooses for these losses, and why. Traces, but computes nothing.

    Args:
        losses_fn: as for `mtljax.value_and_grad`.
        method: the method.
        params: parameters, or their shapes.
        *args: the rest of what `losses_fn` takes, or shapes.
        has_aux: whether `losses_fn` returns `(losses, aux)`.

    Returns:
        `Choice(engine, reason)`.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> params = mtljax.Params({"w": jnp.ones(3)}, {"a": (), "b": ()})
        >>> losses_fn = lambda params: {"a": jnp.sum(params.shared["w"]), "b": jnp.sum(params.shared["w"] ** 2)}
        >>> mtljax.engines.explain(losses_fn, mtljax.methods.equal(), params).reason
        'equal reads losses: one weighted backward pass'
    """
    check_callable("explain", "losses_fn", losses_fn)
    check_method("explain", "method", method)
    check_params("explain", params)
    chosen: list[Choice] = []

    def trace(params: Params, *args: Any) -> tuple[()]:
        linear = linearize(losses_fn, params, args, has_aux)
        chosen.append(choose(method, linear, params.shared, backend=jax.default_backend()))
        return ()

    jax.eval_shape(trace, params, *args)
    return chosen[0]

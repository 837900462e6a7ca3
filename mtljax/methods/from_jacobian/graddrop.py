"""GradDrop: one sign per entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.core import Tracer

from mtljax.checks import check_callable, check_number
from mtljax.methods.common import vector_argument
from mtljax.methods.from_jacobian.common import method_of_gradients
from mtljax.methods.rows import sum_over_tasks
from mtljax.trees import along
from mtljax.types import Array, Key, Method, PyTree


def _identity(purity: Array) -> Array:
    return purity


def graddrop(*, leak: float | Sequence[float] | Array = 0.0, monotone: Callable[[Array], Array] = _identity) -> Method:
    """Gradient sign dropout: each entry keeps its positive or its negative task gradients, at random.

    For every entry of the shared gradient, with task gradients g_k,

        P = (1 + sum_k g_k / sum_k |g_k|) / 2,    U ~ uniform[0, 1],
        keep positive entries where f(P) > U, negative ones elsewhere,
        update = sum_k (l_k + (1 - l_k) [sign of g_k kept]) g_k.

    All tasks share U. An entry on which all tasks agree in sign passes unchanged.

    Args:
        leak: l in [0, 1], the part of a task's gradient that is never dropped; default 0. A number for all tasks, or T
            of them in sorted order of task names.
        monotone: f, an increasing function of P from [0, 1] to [0, 1], entry by entry; default the identity.

    Returns:
        `Method` that reads task gradients. It is stochastic: `update` needs `key`. `weights` are 1 for active tasks. An
        entry where all task gradients are 0 gives 0. A power of 2 on the gradients scales the update exactly.

    Raises:
        ValueError: from `update`, `key` is None.

    References:
        Z. Chen, J. Ngiam, Y. Huang, T. Luong, H. Kretzschmar, Y. Chai, D. Anguelov (2020), "Just pick a sign:
        optimizing deep multitask models with gradient sign dropout", NeurIPS, arXiv 2010.06808.
        Departures: The paper applies the rule to the gradients of activations, times the sign of the activations and
        summed over the batch. Here the rule reads what the engine provides: the gradients of the parameters, or of the
        representation with `engines.features`. TorchJD has the defaults and the same `leak`. The authors' code of FAMO
        and of Nash-MTL has the defaults.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> jacobian = jnp.array([[1.0, -1.0], [2.0, -3.0]])
        >>> mtljax.aggregate(mtljax.methods.graddrop(), jacobian, key=jax.random.key(0))
        Array([ 3., -4.], dtype=float32)
    """
    table = vector_argument("graddrop", "leak", leak, least=0, most=1)
    check_callable("graddrop", "monotone", monotone)

    def signed(row: Array) -> tuple[Array, Array]:
        return jnp.maximum(row, 0.0), jnp.minimum(row, 0.0)

    def leaking(row: Array, leak: Array) -> tuple[Array, Array, Array]:
        above, below = signed((1.0 - leak) * row)
        return above, below, leak * row

    def leaf(rows: Array, key: Key) -> Array:
        above, below = sum_over_tasks(signed, rows)
        mass = above - below
        purity = above / jnp.where(mass > 0, mass, 1.0)
        chance = check_number("graddrop", "what monotone returned", monotone(purity), shape=purity.shape)
        positive = chance > jax.random.uniform(key, purity.shape, purity.dtype)
        if not isinstance(table, Tracer) and not table.any():
            return jnp.where(positive, above, below)
        leaks = jnp.broadcast_to(jnp.asarray(table, rows.dtype), rows.shape[:1])
        above, below, leaked = sum_over_tasks(leaking, rows, along(leaks, rows))
        return jnp.where(positive, above, below) + leaked

    def rule(rows: PyTree, active: Array, inner: tuple[()], *, losses: Array | None, key: Key | None):
        if key is None:
            raise ValueError("graddrop: key must be a random key, found None")
        leaves, structure = jax.tree.flatten(rows)
        keys = list(jax.random.split(key, len(leaves))) if leaves else []
        update = [leaf(values, each) for values, each in zip(leaves, keys, strict=True)]
        return jax.tree.unflatten(structure, update), jnp.ones(active.shape, jnp.float32), inner

    return method_of_gradients("graddrop", rule, per_task={"leak": table})

"""Preference: a static vector multiplies the weights of a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import trees
from mtljax.checks import check_method_of_evidence, check_number
from mtljax.methods.checked import checked
from mtljax.types import Array, Method, MethodState, PyTree


def preference(method: Method, vector: Sequence[float] | Array) -> Method:
    """Multiply the weights of a method by a static vector: `w_k <- p_k w_k`.

    A method that returns no weights gets its task gradients scaled by p before it reads them. The method's own state
    does not contain p; `state.weights` holds the product.

    Args:
        method: any method.
        vector: `[T]`, non-negative, in sorted order of task names. Not normalised.

    Returns:
        `Method` that reads what `method` reads.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> method = mtljax.methods.preference(mtljax.methods.equal(), [1.0, 3.0])
        >>> method.update(jnp.ones(2), method.init(2))[0]
        Array([1., 3.], dtype=float32)
    """
    check_method_of_evidence("preference", "method", method)
    table = jnp.asarray(check_number("preference", "vector", vector, least=0, shape=("T",)), jnp.float32)

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        check_number("preference", "vector", table, shape=(num_tasks,))
        return method.init(num_tasks, shared)

    def product(result: tuple[Array, MethodState]) -> tuple[Array, MethodState]:
        weights = result[0] * table
        return weights, result[1]._replace(weights=weights)

    if method.reads == "task_grads":

        def update(evidence: PyTree, state: MethodState, **rest: Any) -> tuple[Any, MethodState]:
            if method.pick is not None:
                share = table[method.pick(state, active=rest.get("active"))]
                return method.update(trees.scale(share, evidence), state, **rest)
            return method.update(jax.vmap(trees.scale)(table, evidence), state, **rest)

    else:

        def update(evidence: PyTree, state: MethodState, **rest: Any) -> tuple[Any, MethodState]:
            return product(method.update(evidence, state, **rest))

    def reuse(state: MethodState, *, active: Array | None = None) -> tuple[Array, MethodState]:
        assert method.reuse is not None
        return product(method.reuse(state, active=active))

    return checked(
        method._replace(
            init=init,
            update=update,
            reuse=None if method.reuse is None else reuse,
            name=f"preference({method.name})",
        )
    )

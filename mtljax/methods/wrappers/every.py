"""Every: ask a method for new weights only every n-th step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_count, check_method_of_evidence
from mtljax.methods.checked import checked
from mtljax.methods.common import weights_of
from mtljax.methods.wrappers.common import lifted, titled
from mtljax.types import Array, Method, MethodState


class EveryState(NamedTuple):
    """State of `every`: the place in its cycle.

    Attributes:
        count: int32 `[]`, steps since the method last ran, 0 where it is due.
        method: `MethodState` of the wrapped method.
    """

    count: Array
    method: MethodState


def every(method: Method, n: int) -> Method:
    """Ask a method for new weights only every n-th step, and use the last ones in between.

    Steps 0, n, 2n, ... run the method; the others take one weighted backward pass, so the mean cost falls from T to
    `1 + (T - 1) / n` passes. From Nash-MTL (Navon et al., ICML 2022, arXiv:2202.01017, `update_weights_every`).

    A task that is inactive at the step that computes weights has weight 0 until the next one; a task that is inactive
    in between gets weight 0 for that step, the others keep theirs.

    Args:
        method: reads "losses" or "gramian".
        n: number of steps, at least 1; 1 changes nothing.

    Returns:
        `Method` that reads what `method` reads. Its `due` and `reuse` let a training step skip the Jacobian altogether.
        Under vmap, where steps of several runs are computed together, nothing can be skipped.

    Raises:
        ValueError: n below 1, or a method that reads task gradients, which has no weights to keep.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> method = mtljax.methods.every(mtljax.methods.mgda(), 2)
        >>> state = method.init(2)
        >>> first, state = method.update(jnp.diag(jnp.array([1.0, 1.0])), state)
        >>> second, state = method.update(jnp.diag(jnp.array([1.0, 3.0])), state)
        >>> print(first, second)
        [0.5 0.5] [0.5 0.5]
    """
    check_method_of_evidence("every", "method", method)
    n = check_count("every", "n", n, traced=True)
    if method.reads == "task_grads":
        raise ValueError(f"every: method must return weights, found {method.name}, which returns a gradient")

    def begin(first: MethodState) -> EveryState:
        return EveryState(jnp.zeros((), jnp.int32), first)

    def due(state: MethodState) -> Array:
        return state.inner.count % n == 0

    def reuse(state: MethodState, *, active: Array | None = None) -> tuple[Array, MethodState]:
        kept: EveryState = state.inner
        weights = weights_of(kept.method.weights, active)
        return weights, state._replace(weights=weights, inner=kept._replace(count=_next(kept.count, n)))

    def update(
        evidence: Array, state: MethodState, *, active: Array | None = None, **rest: Any
    ) -> tuple[Array, MethodState]:
        def compute(state: MethodState) -> tuple[Array, MethodState]:
            weights, inner = method.update(evidence, state.inner.method, active=active, **rest)
            count = _next(state.inner.count, n)
            return weights, MethodState(weights, inner.residual, EveryState(count, inner))

        return lax.cond(due(state), compute, lambda state: reuse(state, active=active), state)

    wrapper = lifted(method, titled("every", method, n), begin=begin, update=update)
    return checked(wrapper._replace(due=due, reuse=reuse))


def _next(count: Array, n: int) -> Array:
    # Modulo n, so that a long run does not overflow it.
    return (count + 1) % n

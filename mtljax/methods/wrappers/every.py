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
    """Run a method at every n-th step only, and use its last weights at the other steps.

    Steps 0, n, 2n, ... run the method. Each other step takes one weighted backward pass, so the mean cost falls from T
    to `1 + (T - 1) / n` passes per step.

    A task that is inactive when the method runs has weight 0 until the method runs again. A task that is inactive at
    another step has weight 0 at that step; the weights of the other tasks do not change.

    Args:
        method: reads "losses" or "gramian".
        n: number of steps, at least 1; 1 changes nothing.

    Returns:
        `Method` that reads what `method` reads. Its `due` and `reuse` let a training step skip the Jacobian. Under
        vmap, which computes the steps of several runs together, no step skips it.

    Raises:
        ValueError: the method returns a gradient, so it has no weights to keep.

    References:
        A. Navon, A. Shamsian, I. Achituve, H. Maron, K. Kawaguchi, G. Chechik, E. Fetaya (2022), "Multi-task learning
        as a bargaining game", ICML, arXiv 2202.01017 (`update_weights_every` in the authors' code).

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

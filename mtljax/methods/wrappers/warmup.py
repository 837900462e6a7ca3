"""Warmup: equal weighting, or another simple method, before the method."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import check_count, check_losses, check_method_of_evidence
from mtljax.methods.checked import checked
from mtljax.methods.common import weights_of
from mtljax.methods.wrappers.common import refuse_pick, titled
from mtljax.types import Array, Method, MethodState, PyTree

PRICE = {"losses": 0, "gramian": 1, "task_grads": 2}


class WarmupState(NamedTuple):
    """State of `warmup`: the number of steps so far.

    Attributes:
        count: int32 `[]`, steps completed, held at one more than the number of warm-up steps.
        first: `MethodState` of the first method; `()` for equal weights.
        method: `MethodState` of the method, untouched until its first step.
    """

    count: Array
    first: Any
    method: MethodState


def warmup(method: Method, steps: int, first: Method | None = None) -> Method:
    """Equal weighting for the first steps, then a method, whose state starts at the switch.

    With equal weights the first steps need no Jacobian: where the method reads the Gramian they cost one backward pass,
    through `due` and `reuse`. (Under vmap nothing is skipped, because steps of several runs are computed together.)

    Args:
        method: any method but one that reads one task's gradient per step.
        steps: number of warm-up steps, at least 0.
        first: what runs during warm-up; None (default) for weights of 1, the plain sum. It must not read more than
            `method` does: losses are cheaper than the Gramian, that is cheaper than task gradients.

    Returns:
        `Method` that reads what `method` reads. Whether heads are weighed is as in `method` throughout.

    Raises:
        ValueError: a method reads one task's gradient per step, or `first` reads more than `method`.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> method = warmup(mtljax.methods.mgda(), 1)
        >>> gramian = jnp.diag(jnp.array([1.0, 3.0]))
        >>> one, state = method.update(gramian, method.init(2))
        >>> two, state = method.update(gramian, state)
        >>> print(one, two)
        [1. 1.] [0.75 0.25]
    """
    check_method_of_evidence("warmup", "method", method)
    steps = check_count("warmup", "steps", steps, least=0, traced=True)
    refuse_pick("warmup", method, "as a warm-up does")
    if first is not None:
        check_method_of_evidence("warmup", "first", first)
        refuse_pick("warmup", first, "as a first method does")
        if PRICE[first.reads] > PRICE[method.reads]:
            raise ValueError(
                f"warmup: first must be a method that reads no more than {method.name}, which reads {method.reads}, "
                f"found {first.name}, which reads {first.reads}"
            )

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        begin = () if first is None else first.init(num_tasks, shared)
        kept = method.init(num_tasks, shared)
        return kept._replace(inner=WarmupState(jnp.zeros((), jnp.int32), begin, kept))

    def warming(state: MethodState) -> Array:
        return state.inner.count < steps

    def counted(state: MethodState) -> Array:
        return jnp.minimum(state.inner.count + 1, steps + 1)

    def plain(state: MethodState, active: Array | None) -> tuple[Array, MethodState]:
        """Weights of 1."""
        weights = weights_of(jnp.ones_like(state.weights), active)
        kept = state.inner._replace(count=counted(state))
        return weights, MethodState(weights, jnp.zeros_like(state.residual), kept)

    def update(evidence: Any, state: MethodState, **rest: Any) -> tuple[Any, MethodState]:
        active = rest.get("active")

        def run(state: MethodState) -> tuple[Any, MethodState]:
            result, inner = method.update(evidence, state.inner.method, **rest)
            kept = state.inner._replace(count=counted(state), method=inner)
            return result, MethodState(inner.weights, inner.residual, kept)

        def begin(state: MethodState) -> tuple[Any, MethodState]:
            if first is None:
                weights, state = plain(state, active)
            else:
                weights, inner = first.update(
                    _for(first, method, evidence, rest.get("losses")), state.inner.first, **rest
                )
                state = MethodState(
                    inner.weights, inner.residual, state.inner._replace(count=counted(state), first=inner)
                )
            if method.reads != "task_grads" or (first is not None and first.reads == "task_grads"):
                return weights, state
            rows = evidence if active is None else jax.vmap(trees.where)(active, evidence)
            return trees.weighted_sum(weights, rows), state

        return lax.cond(warming(state), begin, run, state)

    def observe(losses_after: Array, state: MethodState) -> MethodState:
        def to_first(state: MethodState) -> MethodState:
            if first is None or first.observe is None:
                return state
            inner = first.observe(losses_after, state.inner.first)
            return state._replace(inner=state.inner._replace(first=inner))

        def to_method(state: MethodState) -> MethodState:
            if method.observe is None:
                return state
            inner = method.observe(losses_after, state.inner.method)
            return state._replace(inner=state.inner._replace(method=inner))

        # The step that is observed has been counted already.
        return lax.cond(state.inner.count <= steps, to_first, to_method, state)

    def due(state: MethodState) -> Array:
        later = jnp.array(True) if method.due is None else method.due(state.inner.method)
        return jnp.where(warming(state), first is not None, later)

    def reuse(state: MethodState, *, active: Array | None = None) -> tuple[Array, MethodState]:
        def again(state: MethodState) -> tuple[Array, MethodState]:
            if method.reuse is None:
                return plain(state, active)
            weights, inner = method.reuse(state.inner.method, active=active)
            kept = state.inner._replace(count=counted(state), method=inner)
            return weights, MethodState(inner.weights, inner.residual, kept)

        return lax.cond(warming(state), lambda state: plain(state, active), again, state)

    observes = method.observe is not None or (first is not None and first.observe is not None)
    skips = method.reads != "task_grads" and (first is None or method.due is not None)
    return checked(
        method._replace(
            init=init,
            update=update,
            observe=observe if observes else None,
            name=titled("warmup", method, steps),
            due=due if skips else None,
            reuse=reuse if skips else None,
        )
    )


def _for(first: Method, method: Method, evidence: Any, losses: Array | None) -> Any:
    """The evidence of the first method, made from the evidence of the method."""
    if first.reads == method.reads:
        return evidence
    if first.reads == "gramian":
        return trees.gramian(evidence)
    return check_losses("warmup", losses, "T")

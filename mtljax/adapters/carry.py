"""A place for a method's state in the state of an optax chain."""

from __future__ import annotations

from typing import Any

import optax

from mtljax.checks import check_count, check_method, expect
from mtljax.partition import Own, has_tasks, shared_of
from mtljax.types import Method, MethodState, PyTree


def carry(method: Method, num_tasks: int, *, own: Own | None = None) -> optax.GradientTransformation:
    """A link of an `optax.chain` that holds a method's state, for a loop that keeps only the state of optax.

    The link makes the method's first state. It does not change gradients. `mtljax.value_and_grad` and `mtljax.observe`
    take and return any pytree that holds one method's state, such as the state of the chain or a Flax `TrainState`:

        tx = optax.chain(mtljax.carry(method, 2), optax.adam(1e-3))
        losses, grads, opt_state = mtljax.value_and_grad(losses_fn, method)(params, opt_state, batch)
        updates, opt_state = tx.update(grads, opt_state, params)

    Args:
        method: any method.
        num_tasks: T.
        own: as for `mtljax.value_and_grad`: which parameters belong to one task. Only a method whose state has the
            shape of the shared parameters, such as `moco`, needs it. None (default) if all parameters are shared.

    Returns:
        Transformation whose state is the method's `MethodState`. Its `init` takes the parameters, or `mtljax.Params`.

    Raises:
        TypeError: `method` is not a method, `num_tasks` is not an integer, or `own` is of another type.
        ValueError: `num_tasks` is below 1; from `init`, `num_tasks` does not match `Params`, or `own` does not match
            the parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda w: {"a": jnp.sum((w - jnp.array([1.0, 0.0])) ** 2), "b": jnp.sum((w + 1) ** 2)}
        >>> method = mtljax.methods.mgda()
        >>> w, tx = jnp.zeros(2), optax.chain(carry(method, 2), optax.sgd(0.1))
        >>> losses, grads, state = mtljax.value_and_grad(losses_fn, method)(w, tx.init(w))
        >>> updates, state = tx.update(grads, state, w)
        >>> state[0].weights
        Array([0.6, 0.4], dtype=float32)
    """
    check_method("carry", "method", method)
    check_count("carry", "num_tasks", num_tasks)

    def init(params: PyTree) -> MethodState:
        if has_tasks(params):
            expect(own is None, "carry", "own", "None where parameters are mtljax.Params", own, ValueError)
            expect(len(params.tasks) == num_tasks, "carry", "num_tasks", f"{len(params.tasks)}", num_tasks, ValueError)
            return method.init(num_tasks, params.shared)
        return method.init(num_tasks, shared_of("carry", own, params))

    def update(updates: PyTree, state: Any, params: PyTree | None = None) -> tuple[PyTree, Any]:
        del params
        return updates, state

    return optax.GradientTransformation(init, update)

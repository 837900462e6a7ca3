"""A place for a method's state in the state of an optax chain."""

from __future__ import annotations

from typing import Any

import optax

from mtljax.checks import check_count, check_method, expect
from mtljax.partition import Own, has_tasks, shared_of
from mtljax.types import Method, MethodState, PyTree


def carry(method: Method, num_tasks: int, *, own: Own | None = None) -> optax.GradientTransformation:
    """A link of an `optax.chain` that carries a method's state, for a loop that keeps no other state than optax's.

    The link makes the first state and hands gradients on as they are. `mtljax.value_and_grad` takes and returns a
    pytree that holds a method's state, such as that of the chain or a Flax `TrainState`, and so does `mtljax.observe`:

        tx = optax.chain(mtljax.carry(method, 2), optax.adam(1e-3))
        losses, grads, opt_state = mtljax.value_and_grad(losses_fn, method)(params, opt_state, batch)
        updates, opt_state = tx.update(grads, opt_state, params)

    Args:
        method: any method.
        num_tasks: T.
        own: as for `mtljax.value_and_grad`, for a method whose state is like the shared parameters, such as `moco`,
            where some are a task's own; None (default) for all shared. Other methods need none.

    Returns:
        Transformation whose state is the method's `MethodState`. Its `init` takes the parameters, or `mtljax.Params`.

    Raises:
        TypeError: not a method, a number of tasks that is not an integer, own of another type.
        ValueError: a number of tasks below 1, or that of `Params` is another; from `init`, own that does not fit.

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

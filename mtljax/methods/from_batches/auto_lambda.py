"""Auto-lambda: loss weights that lower the validation loss one step ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax.checks import check_flag, check_number, check_optimizer
from mtljax.methods.arithmetic import softmax
from mtljax.methods.checked import checked
from mtljax.methods.from_batches.common import (
    Learned,
    agreed,
    descend,
    settled,
    slope_of,
    vector_of,
)
from mtljax.methods.learning import learn, learner_state
from mtljax.types import Array, Batches, Method, MethodState, Params, PyTree, Update


def auto_lambda(
    *,
    inner_lr: float | Callable[[Array], Array],
    optimizer: optax.GradientTransformation | None = None,
    initial: float = 0.1,
    primary: Sequence[float] | None = None,
    simplex: bool = False,
) -> Method:
    """Auto-lambda: weights descend on the validation loss after one look-ahead step.

        theta'(w) = theta - eta grad sum_k w_k L_k(theta; train)
        w <- w - optimizer step of d/dw sum_k p_k L_k(theta'(w); val)
        grads = grad sum_k w_k L_k(theta; train)       with the new w

    theta' is linear in w, so the meta-gradient is exactly `-eta <v, grad L_k(theta; train)>` with
    `v = grad sum_k p_k L_k(theta'; val)`: one forward-mode derivative of the training losses along v, no Hessian and no
    finite difference. Cost: three backward passes and one forward-mode pass, whatever the number of tasks.

    Args:
        inner_lr: eta, a number or a function of the number of steps done (int32 `[]`), such as an optax schedule.
        optimizer: of w; None (default) for `optax.adam(1e-4)`.
        initial: first value of every w_k, default 0.1.
        primary: p, `[T]`, non-negative, in sorted order of task names: 1 for a task that counts on the validation
            batch, 0 for an auxiliary one. None (default): all count.
        simplex: whether w is the softmax of what is learned, instead of that itself.

    Returns:
        `Method` that reads two batches, training and validation. `state.weights` are the w of the step's gradients.

    References:
        S. Liu, S. James, A. J. Davison, E. Johns (2022), "Auto-Lambda: disentangling dynamic task relationships",
        TMLR, arXiv 2202.03091.
        Departures: the look-ahead is the paper's plain step; the authors' code adds its optimiser's momentum and
        weight decay to it, and takes the product with v by finite differences of step `0.01 / |v|`. Weights are not
        kept positive, as in the authors' code.
        Official code: the defaults, `inner_lr` the optimiser's current learning rate.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params, x: {k: jnp.sum((params.shared * x - params.tasks[k]) ** 2) for k in "ab"}
        >>> params = mtljax.Params(jnp.zeros(2), {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.0, 1.0])})
        >>> method = mtljax.methods.auto_lambda(inner_lr=0.1)
        >>> f = mtljax.value_and_grad(losses_fn, method)
        >>> losses, grads, state = f(params, method.init(2), (jnp.array(1.0),), (jnp.array(2.0),))
        >>> print(state.weights)
        [0.1001 0.1001]
    """
    if not callable(inner_lr):
        check_number("auto_lambda", "inner_lr", inner_lr, above=0)
    check_number("auto_lambda", "initial", initial)
    check_flag("auto_lambda", "simplex", simplex)
    learner = optax.adam(1e-4) if optimizer is None else check_optimizer("auto_lambda", "optimizer", optimizer)
    table = None
    if primary is not None:
        table = check_number("auto_lambda", "primary", primary, least=0, shape=("T",))

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        if table is not None:
            check_number("auto_lambda", "primary", table, shape=(num_tasks,))
        meta = jnp.full((num_tasks,), initial, jnp.float32)
        weights = to_weights(meta, jnp.ones(num_tasks, bool)) + 0.0
        inner = Learned(meta, learner_state(learner, meta), jnp.zeros((), jnp.int32))
        return MethodState(weights, jnp.zeros((), jnp.float32), inner)

    def to_weights(meta: Array, active: Array) -> Array:
        return softmax(meta, active) if simplex else jnp.where(active, meta, 0.0)

    def update(batches: Batches, state: MethodState, **extra: Any) -> tuple[Update, MethodState]:
        learned: Learned = state.inner
        val = slope_of(batches, 1)
        rate: Any = inner_lr
        if callable(inner_lr):
            rate = check_number("auto_lambda", "what inner_lr returned", inner_lr(learned.rest))

        params, (in_training, in_validation) = batches.params, batches.active
        counting = jnp.ones(in_training.size) if table is None else jnp.asarray(table)
        # An auxiliary task needs no labels in the validation batch.
        here = slope_of(batches, 0)(params, in_training & (in_validation | (counting == 0)))

        def look_ahead(asked: Array) -> tuple[Params, Array]:
            ahead = descend(params, here.gradient(to_weights(learned.meta, asked)), rate)
            there = val(ahead, asked)
            return there.gradient(counting), there.present

        direction, present = agreed(look_ahead, here.present)
        slopes = jax.jvp(vector_of(batches, 0), (params,), (direction,))[1]
        weights, to_meta = jax.vjp(lambda meta: to_weights(meta, present), learned.meta)
        (gradient,) = to_meta(jnp.where(present, -rate * slopes, 0.0).astype(weights.dtype))

        meta, optimizer_state = learn(learner, gradient, learned.optimizer, learned.meta, present)
        weights = to_weights(meta, present)
        done = MethodState(weights, state.residual, Learned(meta, optimizer_state, learned.rest + 1))
        return settled(here.gradient(weights), done, state, present)

    return checked(Method("batches", init, update, weigh_tasks=True, name="auto_lambda", num_batches=2))

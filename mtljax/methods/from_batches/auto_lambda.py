"""Auto-lambda: loss weights that lower the validation loss one step ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax.checks import check_callable, check_flag, check_number, check_optimizer
from mtljax.engines.checks import with_aux
from mtljax.methods.from_batches.common import (
    Bilevel,
    BilevelState,
    agreed,
    check_args,
    check_params,
    descend,
    settled,
    slope_of,
    softmax,
    vector_of,
)
from mtljax.methods.from_losses.common import learn, learner_state
from mtljax.types import Array, Key, Params


def auto_lambda(
    losses_fn: Callable[..., Any],
    *,
    inner_lr: float | Callable[[Array], Array],
    optimizer: optax.GradientTransformation | None = None,
    initial: float = 0.1,
    primary: Sequence[float] | None = None,
    simplex: bool = False,
    has_aux: bool = False,
) -> Bilevel:
    """Auto-lambda: weights follow the gradient of the validation loss after one look-ahead step.

        theta'(w) = theta - eta grad sum_k w_k L_k(theta; train)
        w <- w - optimizer step of d/dw sum_k p_k L_k(theta'(w); val)
        grads = grad sum_k w_k L_k(theta; train)       with the new w

    theta' is linear in w, so the meta-gradient is exactly `-eta <v, grad L_k(theta; train)>` with
    `v = grad sum_k p_k L_k(theta'; val)`: one forward-mode derivative of the training losses along v, no Hessian and no
    finite difference. Cost: three backward passes and one forward-mode pass, whatever the number of tasks.

    S. Liu, S. James, A. J. Davison, E. Johns (2022), "Auto-Lambda: disentangling dynamic task relationships", TMLR,
    arXiv 2202.03091.

    Deviations: the look-ahead is the paper's plain step; the authors' code adds its optimiser's momentum and weight
    decay to it, and takes the product with v by finite differences of step `0.01 / |v|`. Weights are not kept
    positive, as in the authors' code.

    Official code: the defaults, `inner_lr` the optimiser's current learning rate.

    Args:
        losses_fn: `losses_fn(params, *args)` returning losses (dict of scalars by task, or array `[T]` in sorted order
            of names), or `(losses, aux)` with `has_aux`; needs a forward-mode derivative.
        inner_lr: eta, a number or a function of the number of steps done (int32 `[]`), such as an optax schedule.
        optimizer: of w; None (default) for `optax.adam(1e-4)`.
        initial: first value of every w_k, default 0.1.
        primary: p, `[T]`, non-negative, in sorted order of task names: 1 for a task that counts on the validation
            batch, 0 for an auxiliary one. None (default): all count.
        simplex: whether w is the softmax of what is learned, instead of that itself.
        has_aux: see `losses_fn`.

    Returns:
        `Bilevel`. `state.weights` are the w of the step's gradients.

    Raises:
        ValueError: `primary` negative or not `[T]`; from `update`, where losses, params and state disagree.
        TypeError: from `update`, params are not `Params`, or batches not tuples of arguments.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params, x: {k: jnp.sum((params.shared * x - params.tasks[k]) ** 2) for k in "ab"}
        >>> params = mtljax.Params(jnp.zeros(2), {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.0, 1.0])})
        >>> method = auto_lambda(losses_fn, inner_lr=0.1)
        >>> state = method.init(2)
        >>> losses, grads, state = method.update(params, state, (jnp.array(1.0),), (jnp.array(2.0),))
        >>> print(state.weights)
        [0.1001 0.1001]
    """
    check_callable("auto_lambda", "losses_fn", losses_fn)
    if not callable(inner_lr):
        check_number("auto_lambda", "inner_lr", inner_lr, above=0)
    check_number("auto_lambda", "initial", initial)
    check_flag("auto_lambda", "simplex", simplex)
    check_flag("auto_lambda", "has_aux", has_aux)
    learner = optax.adam(1e-4) if optimizer is None else check_optimizer("auto_lambda", "optimizer", optimizer)
    table = None
    if primary is not None:
        table = check_number("auto_lambda", "primary", primary, least=0, shape=("T",))

    def init(num_tasks: int) -> BilevelState:
        if table is not None:
            check_number("auto_lambda", "primary", table, shape=(num_tasks,))
        meta = jnp.full((num_tasks,), initial, jnp.float32)
        return BilevelState(
            weights=to_weights(meta, jnp.ones(num_tasks, bool)) + 0.0,
            residual=jnp.zeros((), jnp.float32),
            meta=meta,
            optimizer=learner_state(learner, meta),
            inner=jnp.zeros((), jnp.int32),
        )

    def to_weights(meta: Array, active: Array) -> Array:
        return softmax(meta, active) if simplex else jnp.where(active, meta, 0.0)

    def update(
        params: Params,
        state: BilevelState,
        train_args: tuple[Any, ...],
        val_args: tuple[Any, ...],
        *,
        key: Key | None = None,
        active: Array | None = None,
        **extra: Any,
    ) -> tuple[Any, Params, BilevelState]:
        num_tasks = state.weights.shape[0]
        check_params("auto_lambda", params, num_tasks, active)
        for args in (train_args, val_args):
            check_args("auto_lambda", args)
        mask = jnp.ones(num_tasks, bool) if active is None else active
        val = slope_of(losses_fn, val_args, has_aux)
        rate: Any = inner_lr
        if callable(inner_lr):
            rate = check_number("auto_lambda", "what inner_lr returned", inner_lr(state.inner))

        here = slope_of(losses_fn, train_args, has_aux)(params, mask)
        counting = jnp.ones(num_tasks) if table is None else jnp.asarray(table)

        def look_ahead(asked: Array) -> tuple[Params, Array]:
            ahead = descend(params, here.gradient(to_weights(state.meta, asked)), rate)
            there = val(ahead, asked)
            return there.gradient(counting), there.present

        direction, present = agreed(look_ahead, here.present)
        slopes = jax.jvp(vector_of(losses_fn, train_args, has_aux), (params,), (direction,))[1]
        weights, to_meta = jax.vjp(lambda meta: to_weights(meta, present), state.meta)
        (gradient,) = to_meta(jnp.where(present, -rate * slopes, 0.0).astype(weights.dtype))

        meta, optimizer_state = learn(learner, gradient, state.optimizer, state.meta, present)
        weights = to_weights(meta, present)
        done = BilevelState(weights, state.residual, meta, optimizer_state, state.inner + 1)
        return with_aux(here.losses, here.aux, has_aux), *settled(here.gradient(weights), done, state, present)

    return Bilevel(init, update, "auto_lambda")

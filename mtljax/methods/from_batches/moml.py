"""MOML: loss weights by multi-objective descent on the validation losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mtljax import participation
from mtljax.checks import check_count, check_flag, check_number, check_optimizer
from mtljax.methods.arithmetic import softmax
from mtljax.methods.checked import checked
from mtljax.methods.from_batches.common import (
    Learned,
    SlopeAt,
    agreed,
    inner_steps,
    settled,
    slope_of,
    vector_of,
)
from mtljax.methods.learning import learn, learner_state
from mtljax.solvers import min_norm
from mtljax.solvers.level_path import STATIONARY
from mtljax.solvers.scaling import multiply
from mtljax.types import Array, Batches, Method, MethodState, Params, PyTree, Update


def hypergradients(
    train: SlopeAt,
    val: Callable[[Params], Array],
    params: Params,
    meta: Array,
    active: Array,
    rate: float,
    count: int,
) -> tuple[Array, Array]:
    """Derivatives of the validation losses with respect to the logits of the training weights, `[T, T]`.

    Row i is `d L_i(theta_S(a); val) / da` where `theta_S(a)` is S steps of gradient descent on
    `sum_k softmax(a)_k L_k(theta; train)` away. The tangents of theta obey

        theta' <- theta' - eta (H theta' + sum_k w'_k grad L_k),

    whose products with the Hessian H of the weighted loss are taken as the forward derivative of a gradient, exactly.

    Args:
        train: the training losses, from `slope_of`.
        val: `params -> losses [T]` on other data.
        params: where the steps begin.
        meta: `[T]`, a.
        active: bool `[T]`; the others are as good as absent.
        rate: eta.
        count: S.

    Returns:
        `[T, T]` in the losses' precision, rows and columns of tasks that do not take part 0; and bool `[T]`, those that
        do: active, with a validation loss and a row that are finite.
    """

    def after(meta: Array) -> tuple[Array, Array]:
        losses = val(inner_steps(train, params, softmax(meta, active), active, rate, count))
        return losses, losses

    rows, losses = jax.jacfwd(after, has_aux=True)(meta)
    present = active & jnp.isfinite(losses) & participation.sound_rows(rows, active.size)
    return jnp.where(present[:, None] & active[None, :], rows, 0.0), present


def moml(
    *,
    inner_lr: float,
    steps: int = 1,
    optimizer: optax.GradientTransformation | None = None,
    normalize: bool = False,
) -> Method:
    """Multi-objective meta learning: weights learned by MGDA on the validation losses, through the training steps.

        theta_S(a) = S steps of gradient descent, rate eta, on sum_k softmax(a)_k L_k(theta; train)
        c = argmin over the simplex |sum_i c_i h_i|^2,     h_i = d L_i(theta_S(a); val) / da
        a <- a - optimizer step of sum_i c_i h_i
        grads = grad sum_k softmax(a)_k L_k(theta; train)       with the new a

    The h_i are exact (see `hypergradients`). Cost: S forward-mode derivatives of a gradient, for T tangents together,
    in memory that does not grow with S; and two backward passes.

    Args:
        inner_lr: eta, a positive number.
        steps: S, default 1.
        optimizer: of a; None (default) for `optax.adam(1e-3)`.
        normalize: whether h_i are divided by their norms first.

    Returns:
        `Method` that reads two batches, training and validation. `state.weights` are the softmax, sum 1; it starts
        even. `state.residual` is that of the solve for c.

    References:
        F. Ye, B. Lin, Z. Yue, P. Guo, Q. Xiao, Y. Zhang (2021), "Multi-objective meta learning", NeurIPS, arXiv
        2102.07121.
        Departures: c is exact, and a stays as it is where, to working precision, no step of a lowers all validation
        losses. The authors' code takes the last gradient from a third batch; here it is the training batch.
        Official code: `normalize=True`.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params, x: {k: jnp.sum((params.shared * x - params.tasks[k]) ** 2) for k in "ab"}
        >>> params = mtljax.Params(jnp.zeros(2), {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.0, 1.0])})
        >>> method = mtljax.methods.moml(inner_lr=0.1)
        >>> f = mtljax.value_and_grad(losses_fn, method)
        >>> losses, grads, state = f(params, method.init(2), (jnp.array(1.0),), (jnp.array(2.0),))
        >>> print(state.weights)
        [0.5 0.5]
    """
    check_number("moml", "inner_lr", inner_lr, above=0)
    check_flag("moml", "normalize", normalize)
    count = check_count("moml", "steps", steps)
    learner = optax.adam(1e-3) if optimizer is None else check_optimizer("moml", "optimizer", optimizer)

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        meta = jnp.zeros((num_tasks,), jnp.float32)
        even = jnp.full((num_tasks,), 1.0 / num_tasks, jnp.float32)
        return MethodState(even, jnp.zeros((), jnp.float32), Learned(meta, learner_state(learner, meta)))

    def update(batches: Batches, state: MethodState, **extra: Any) -> tuple[Update, MethodState]:
        learned: Learned = state.inner
        train = slope_of(batches, 0)
        val = vector_of(batches, 1)
        here = train(batches.params, batches.active.all(axis=0))

        def look_ahead(asked: Array) -> tuple[Array, Array]:
            return hypergradients(train, val, batches.params, learned.meta, asked, inner_lr, count)

        rows, present = agreed(look_ahead, here.present)
        largest = jnp.max(jnp.abs(rows))
        # In units of the largest entry: products of gradients are small, and products of those leave float32's range.
        unit = jnp.where(largest > 0, largest, 1.0)
        rows = (rows / unit).astype(jnp.float32)
        if normalize:
            length = jnp.sqrt(jnp.sum(rows * rows, axis=1))
            rows = rows / jnp.where(length > 0, length, 1.0)[:, None]
        solution = min_norm(multiply(rows, rows.T), active=present)
        gradient = multiply(rows.T, solution.weights)
        # The logits of T tasks span T - 1 dimensions, so at many steps no direction lowers all losses. The result is
        # then rounding, which Adam would scale to steps of full length.
        lengths = jnp.sqrt(jnp.sum(rows * rows, axis=1))
        exists = jnp.sum(gradient * gradient) > jnp.square(STATIONARY * jnp.sum(solution.weights * lengths))
        gradient = jnp.where(exists, gradient, 0.0)
        gradient = gradient if normalize else (gradient * unit).astype(jnp.float32)

        meta, optimizer_state = learn(learner, gradient, learned.optimizer, learned.meta, present)
        weights = softmax(meta, present)
        done = MethodState(weights, solution.residual, Learned(meta, optimizer_state))
        return settled(here.gradient(weights), done, state, present)

    return checked(Method("batches", init, update, weigh_tasks=True, name="moml", num_batches=2))

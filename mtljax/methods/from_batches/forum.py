"""FORUM: first-order multi-objective bilevel optimisation through the value function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtljax import participation, trees
from mtljax.checks import check_callable, check_count, check_flag, check_number, check_optimizer
from mtljax.methods.arithmetic import softmax
from mtljax.methods.checked import checked
from mtljax.methods.from_batches.common import (
    Learned,
    inner_steps,
    settled,
    slope_of,
    vector_of,
)
from mtljax.methods.learning import learn, learner_state
from mtljax.solvers import Solution, min_norm
from mtljax.types import Array, Batches, Method, MethodState, PyTree, Update

BISECTIONS = 28


class ForumState(NamedTuple):
    """State of FORUM.

    Attributes:
        count: int32 `[T]`, steps at which each task was active.
        average: float32 `[T]`, averaged multipliers of the validation losses.
    """

    count: Array
    average: Array


def barrier_weights(gramian: Array, along: Array, length: Array, rho: float, active: Array) -> Solution:
    """Multipliers of the steepest direction for all g_i among those that reduce a constraint fast enough.

    The direction solves `min_d max_i <g_i, d> + 1/2 |d|^2  subject to  <q, d> <= -rho |q|^2`; by duality
    `-d = sum_i l_i g_i + v q` with l on the simplex and v >= 0. For a given v, l is the shortest vector in the hull of
    `g_i + v q`, and the derivative of the dual by v, `<q, -d> - rho |q|^2`, does not fall in v: v by bisection.

    Args:
        gramian: `[T, T]`, `<g_i, g_j>`.
        along: `[T]`, `<g_i, q> / |q|`; 0 where q is.
        length: `[]`, `|q|`.
        rho: positive number.
        active: bool `[T]`; what belongs to the others is not read.

    Returns:
        `Solution` with l `[T]` (all 0 where no task is active) and the residual of `min_norm` at the v that was found.
    """
    along = jnp.where(active, along, 0.0)
    target = rho * length

    def at(push: Array) -> Solution:
        shifted = gramian + push * (along[:, None] + along[None, :]) + push * push
        return min_norm(shifted, active=active)

    def excess(push: Array) -> Array:
        weights = at(push).weights
        return jnp.sum(weights * (along + push)) - target

    # The search is for v |q|. At the top of the bracket every g_i + v q points along q far enough.
    top = target + jnp.max(jnp.maximum(-along, 0.0))
    top = jnp.where(excess(0.0 * top) >= 0.0, 0.0, top)

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        short = excess(middle) < 0.0
        return jnp.where(short, middle, low), jnp.where(short, high, middle)

    low, high = lax.fori_loop(0, BISECTIONS, halve, (0.0 * top, top))
    return at(0.5 * (low + high))


def forum(
    *,
    inner_lr: float,
    steps: int = 5,
    rho: float = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    beta: Callable[[Array], Array] = lambda count: (count + 1.0) ** -0.75,
    normalize: bool = False,
) -> Method:
    """FORUM: all validation losses descend while the training problem stays solved; first derivatives only.

    With `f(a, theta) = sum_k softmax(a)_k L_k(theta; train)` and `theta_S` found by S steps of gradient descent on it
    from theta, the constraint `q(a, theta) = f(a, theta) - f(a, theta_S)` (theta_S held fixed) asks for theta to be
    optimal. With `F_i = L_i(theta; val)`:

        l = multipliers of F in  min_d max_i <grad F_i, d> + 1/2 |d|^2  s.t.  <grad q, d> <= -rho |grad q|^2
        l~ <- (1 - b) l~ + b l
        v  = max(sum_i l~_i (rho - <grad q, grad F_i> / |grad q|^2), 0)
        (a, theta) descend along  sum_i l~_i grad F_i + v grad q

    theta's part is the gradient that is returned, a's goes through `optimizer` here. Cost: T backward passes on the
    validation batch with T rows stored, S + 1 on the training batch; no second derivatives.

    Args:
        inner_lr: step size of the inner steps, a positive number.
        steps: S, default 5.
        rho: a positive number, default 0.1.
        optimizer: of a; None (default) for `optax.adam(1e-3)`.
        beta: b in (0, 1] as a function of the steps that a task has seen before (int32 `[T]`), 1 at 0.
        normalize: whether `grad F_i` are divided by their norms first.

    Returns:
        `Method` that reads two batches, training and validation. `state.weights` are the softmax of a, sum 1; it
        starts even. The gradients hold both the training and
        the validation batch. `state.residual` is that of the last solve for l.

    References:
        F. Ye, B. Lin, X. Cao, Y. Zhang, I. W. Tsang (2024), "A first-order multi-gradient algorithm for
        multi-objective bi-level optimization", ECAI, arXiv 2401.09257.
        Departures: in the problem above the paper has `phi = rho |grad q|^2 / 2` as the bound and 2 phi in v, which
        is the multiplier for twice that bound; here both are `rho |grad q|^2`, so that v is the problem's own
        multiplier. The problem is solved exactly, on the device. b runs over steps of the task itself.
        Official code: `normalize=True`, `inner_lr=0.1`, `beta=lambda count: (count // steps_per_epoch + 1.0) ** -0.75`;
        its l solves the paper's problem, with the two different bounds.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params, x: {k: jnp.sum((params.shared * x - params.tasks[k]) ** 2) for k in "ab"}
        >>> params = mtljax.Params(jnp.zeros(2), {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.0, 1.0])})
        >>> method = mtljax.methods.forum(inner_lr=0.1)
        >>> f = mtljax.value_and_grad(losses_fn, method)
        >>> losses, grads, state = f(params, method.init(2), (jnp.array(1.0),), (jnp.array(2.0),))
        >>> print(state.inner.rest.average)
        [0.5 0.5]
    """
    check_number("forum", "inner_lr", inner_lr, above=0)
    check_number("forum", "rho", rho, above=0)
    check_callable("forum", "beta", beta)
    check_flag("forum", "normalize", normalize)
    count = check_count("forum", "steps", steps)
    learner = optax.adam(1e-3) if optimizer is None else check_optimizer("forum", "optimizer", optimizer)

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        meta = jnp.zeros((num_tasks,), jnp.float32)
        even = jnp.full((num_tasks,), 1.0 / num_tasks, jnp.float32)
        kept = ForumState(jnp.zeros((num_tasks,), jnp.int32), jnp.zeros((num_tasks,), jnp.float32))
        return MethodState(even, jnp.zeros((), jnp.float32), Learned(meta, learner_state(learner, meta), kept))

    def update(batches: Batches, state: MethodState, **extra: Any) -> tuple[Update, MethodState]:
        learned: Learned = state.inner
        train = slope_of(batches, 0)
        params = batches.params
        here = train(params, batches.active.all(axis=0))
        there = slope_of(batches, 1)(params, here.present)
        # A row for each task, of the shared parameters and of all heads.
        rows = jax.vmap(there.gradient)(jnp.eye(here.vector.size))
        present = there.present & participation.sound_rows(rows, here.vector.size)
        rows = participation.rows_of(present, rows)

        # The constraint's gradient: q, by theta, and q_meta, by a.
        shares, to_meta = jax.vjp(lambda meta: softmax(meta, present), learned.meta)
        q = here.gradient(shares)
        inner = inner_steps(train, params, shares, present, inner_lr, count)
        solved = vector_of(batches, 0)(inner)
        (q_meta,) = to_meta(jnp.where(present, here.vector - solved, 0.0).astype(shares.dtype))
        length = jnp.sqrt(trees.gramian(jax.tree.map(lambda leaf: leaf[None], q))[0, 0] + jnp.sum(q_meta * q_meta))
        per_length = 1.0 / jnp.where(length > 0, length, 1.0)

        gramian = trees.gramian(rows)
        unit = trees.cross_gramian(rows, jax.tree.map(lambda leaf: leaf[None], trees.scale(per_length, q)))[:, 0]
        factor = jnp.ones_like(unit)
        if normalize:
            norms = trees.norms(gramian)
            factor = 1.0 / jnp.where(norms > 0, norms, 1.0)
            gramian, unit = gramian * factor[:, None] * factor[None, :], unit * factor
        gramian, along, length, factor = (x.astype(jnp.float32) for x in (gramian, unit, length, factor))

        solution = barrier_weights(gramian, along, length, rho, present)
        kept: ForumState = learned.rest
        share = jnp.asarray(check_number("forum", "what beta returned", beta(kept.count), shape=None), jnp.float32)
        average = jnp.where(present, (1.0 - share) * kept.average + share * solution.weights, kept.average)
        used = jnp.where(present, average, 0.0)
        push = jnp.maximum(rho * jnp.sum(used) - jnp.sum(used * along) * per_length.astype(jnp.float32), 0.0)
        push = jnp.where(length > 0, push, 0.0)

        meta, optimizer_state = learn(learner, push * q_meta, learned.optimizer, learned.meta, present)
        descent = trees.weighted_sum(used * factor, rows)
        grads = jax.tree.map(jnp.add, descent, trees.scale(push, q))
        after = Learned(meta, optimizer_state, ForumState(kept.count + present, average))
        done = MethodState(softmax(meta, present), solution.residual, after)
        return settled(grads, done, state, present)

    return checked(Method("batches", init, update, weigh_tasks=True, name="forum", num_batches=2))

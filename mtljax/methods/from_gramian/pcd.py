"""PCD: the update closest to one task's gradient that keeps a share of every other task's progress."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from mtljax.checks import check_count, check_number
from mtljax.methods.from_gramian.common import Answer, method_of_gramian
from mtljax.participation import held
from mtljax.solvers.cone_projection import project
from mtljax.solvers.scaling import TRUSTED, Solution, as_float32, finer, multiply
from mtljax.solvers.scaling import scale as scaled
from mtljax.types import Array, Method

# One over 1 + (|x| / max |h|)^2, with x = d' - g'_p and h what constraints ask of it: below, no x is taken to exist.
POSSIBLE = 2.0**-14
# A direction shorter than this share of the sum of |w_k g_k| counts as 0.
STATIONARY = 2.0**-10


class PCDState(NamedTuple):
    """State of PCD.

    Attributes:
        root: float32 `[T]`, the root of the average of each task's squared gradient norms; 0 before its first step.
        steps: int32 `[T]`, the steps in each average.
    """

    root: Array
    steps: Array


def pcd(
    *, priority: ArrayLike = 0, tau: ArrayLike = 0.02, beta: ArrayLike = 0.999, weigh_tasks: bool = False
) -> Method:
    """Priority-constrained descent.

    One task p has priority. The update follows its gradient as closely as it can while every other task gets at least a
    share tau of the progress that a step along its own gradient would give:

        d' = argmin_d 1/2 |d - g'_p|^2  subject to  <g'_j, d> >= tau |g'_j|^2  for all j other than p,
        g'_k = g_k / sqrt(v_k),    v_k the average of |g_k|^2 over the steps,    d = |g_p| d' / |d'|.

    In weights: `d' = g'_p + sum_j m_j g'_j` with multipliers `m >= 0`. The others' units make no difference. The task
    with priority may lose where tau is positive and the others pull against it.

    Args:
        priority: p, an integer from 0 to T - 1, the place among the tasks (a dictionary's are in the order of their
            names); default 0. May be traced. Where that task does not take part in a step, or has no gradient, the next
            one that does takes its place, in the order of tasks and after the last one from the first.
        tau: the share, in [0, 1], one number or `[T]` of which the entry of the task with priority is not used; default
            0.02. May be traced.
        beta: decay of the averages, in [0, 1); default 0.999. May be traced.
        weigh_tasks: whether task-specific (head) gradients are multiplied by the weights too; False (default) in
            TorchJD.

    Returns:
        `Method` that reads the Gramian, floating point `[T, T]`, with a `PCDState`. Weights are float32 `[T]`,
        non-negative. Where no d meets the constraints, which takes two tasks that pull apart, the update is `g_p` and
        `state.residual` 1; so it is where d would have to go 128 times as far from `g'_p` as the largest constraint
        asks, and where the solver's residual is above `mtljax.solvers.TRUSTED`. Where d' is 0 to rounding, below 2^-10
        of what it is the sum of, the update is 0 and `state.residual` 1. Otherwise `state.residual` is that of
        `mtljax.solvers.cone_projection`.

    References:
        D. Varam, M. I. AlHajri (2026), "Not all objectives are born equal: priority-constrained descent for
        hierarchical multi-objective optimization", TMLR, arXiv 2606.29521. Departures: no epsilon beside v; each
        average counts its own task's steps; a task without a gradient hands its priority on. TorchJD's numbers: the
        defaults.

    Example:
        >>> method = pcd(tau=0.5)
        >>> weights, state = method.update(jnp.array([[1.0, 0.0], [0.0, 4.0]]), method.init(2))
        >>> [f"{weight:.3f}" for weight in weights]
        ['0.894', '0.224']
    """
    tau = check_number("pcd", "tau", tau, least=0, most=1, shape=() if np.ndim(tau) == 0 else ("T",))
    beta = check_number("pcd", "beta", beta, least=0, below=1)
    priority = check_count("pcd", "priority", priority, least=0, traced=True)

    def first(num_tasks: int) -> PCDState:
        check_count("pcd", "priority", priority, least=0, most=num_tasks - 1, traced=True)
        return PCDState(jnp.zeros((num_tasks,), jnp.float32), jnp.zeros((num_tasks,), jnp.int32))

    def rule(gramian: Array, active: Array, inner: PCDState, *, scale: ArrayLike, **rest: Any) -> Answer:
        num_tasks = active.shape[0]
        squares = jnp.diagonal(gramian)
        # Not `squares > 0`: a NaN must come out again, not pass for a zero gradient.
        there = ~(squares <= 0)
        norms = jnp.sqrt(jnp.where(there, squares, 1.0))
        cosines = jnp.where(there[:, None] & there[None, :], gramian / norms[:, None] / norms[None, :], 0.0)
        inner, root = _averaged(inner, jnp.where(there, norms, 0.0) / scale, active, beta)
        lengths = jnp.where(there, norms / scale / jnp.where(there, root, 1.0), 0.0)

        # The first one that takes part and has a gradient, from the place of priority on.
        later = (jnp.arange(num_tasks) - priority) % num_tasks
        first = there & (later == jnp.min(jnp.where(there, later, num_tasks)))
        own = jnp.where(first, lengths, 0.0)
        asked = jnp.where(there & ~first, as_float32(tau) * lengths, 0.0)
        bent, residual = _bent(cosines, own, asked, there, first)
        square = jnp.sum(bent * multiply(cosines, bent))
        certain = square > jnp.square(finer(STATIONARY, gramian, square=True) * jnp.sum(jnp.abs(bent)))
        length = jnp.sum(jnp.where(first, norms, 0.0)) / jnp.sqrt(jnp.where(certain, square, 1.0))
        weights = jnp.where(certain & there, bent * length / norms, 0.0)
        return Solution(weights, jnp.where(certain | ~jnp.any(there), residual, 1.0)), inner

    return method_of_gramian("pcd", rule, inner=first, per_task={"tau": tau}, weigh_tasks=weigh_tasks, refines=True)


def _bent(cosines: Array, own: Array, asked: Array, there: Array, first: Array) -> tuple[Array, Array]:
    """Weights of the unit gradients for d', and how far they are from it; `own` alone where nothing can meet `asked`.

    With u_j the unit gradients and `x = d' - g'_p`, this is the shortest x with `<u_j, x> >= h_j`. Least-distance
    programming (Lawson and Hanson, 1974, chapter 23) makes it a projection onto a cone: of `f = (0, -1)` onto the dual
    cone of the rows `(u_j, h_j)`, whose answer is `(x, -1)` up to its length, and 0 where no x exists.
    """
    others = there & ~first
    short = jnp.where(others, asked - multiply(cosines, own), 0.0)
    unit = jnp.max(jnp.abs(short))
    unit = jnp.where(unit > 0, unit, 1.0)
    h = short / unit
    f = jnp.where(first, 1.0, 0.0)
    lifted = jnp.where(others[:, None] & others[None, :], cosines, 0.0) + jnp.outer(h - f, h - f)
    # Not yet rounded to float32, because the residual of f may be small.
    (pulls, residual), _ = project(scaled(lifted, there), f.astype(lifted.dtype))
    pulls = jnp.where(others, pulls, 0.0)
    # What is left of f: at the answer, the square of its length.
    left = 1.0 - jnp.sum(pulls * h)
    possible = left > POSSIBLE
    residual = jnp.where(possible, residual, 1.0)
    trusted = residual <= TRUSTED
    return own + jnp.where(trusted, unit * pulls / jnp.where(possible, left, 1.0), 0.0), residual


def _averaged(old: PCDState, norms: Array, takes_part: Array, beta: ArrayLike) -> tuple[PCDState, Array]:
    """Averages of squared norms without bias, kept as roots: squares would leave float32's range.

    Beside them, the roots in the precision of the norms: at a first step a gradient over its own root has length 1.
    """
    beta = jnp.asarray(beta, jnp.float32)
    steps = old.steps + 1
    # The share of this step; 1 at the first step.
    share = (1.0 - beta) / -jnp.expm1(steps * jnp.log(beta))
    share = jnp.where(steps == 1, 1.0, share)
    root = jnp.hypot(jnp.sqrt(1.0 - share) * old.root, jnp.sqrt(share) * norms)
    return held(PCDState(as_float32(root), steps), old, takes_part), root

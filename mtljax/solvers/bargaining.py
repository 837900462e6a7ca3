"""Solves the equation `G w = (c / w)^(1 / alpha)`, which bargaining and fairness rules share.

On the scaled Gramian M the equation is `M z = s` with `s = b z^(-p)` and `p = 1 / alpha`. The pair (z, s) of each task
lies on a curve of its own. The solver uses Newton's method in the variable `x = z - s / M_ii`, because the curve is
nearly straight in x. One step solves tasks with orthogonal gradients, whatever p is. For p -> 0 the steps become those
of block pivoting. A problem takes 1 to 15 steps for any alpha, and each step takes one Cholesky factorisation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.typing import ArrayLike

from mtljax.solvers.cholesky import inverse_factor, solve_factored
from mtljax.solvers.scaling import (
    PRODUCT_ERROR,
    TINY,
    WEIGHT_ERROR,
    Solution,
    accurate_product,
    as_float32,
    as_floating,
    finer,
    is_wide,
    multiply,
    relative,
    scale,
    solution,
)
from mtljax.types import Array

# The tolerances hold for float32; `finer` turns them into those for float64.
# DAMPING and RIDGE are relative to the scaled Gramian's diagonal. DAMPING is added in the Newton matrix only, RIDGE in
# the equation, where it has no solution without. Both are a few units of float32's rounding, 2^-24.
DAMPING = 2.0**-22
RIDGE = 2.0**-21
# The loop ends where Newton's decrement over |d| is below CONVERGED: one more step squares it, to less than rounding.
# With the ridge, the equation is not the one that was asked for, and RIDGE_CONVERGED is enough.
CONVERGED = 2.0**-13
RIDGE_CONVERGED = 2.0**-4
# Where |d| over the sum of |w_i g_i| is below the root of float32's rounding, nothing of |d|^2 is certain.
STATIONARY = 2.0**-12
# It bounds the loop. No sampled problem took nearly as many steps.
LIMIT = 64
# Newton's steps for a point on a curve: as many as reach the rounding of float32, and of float64.
CURVE_STEPS = 6
REFINED_CURVE_STEPS = 8
# The error of s on a curve, relative to s and to 1 + p. It is that of the curve's middle, which is computed from its
# logarithm: the logarithm may be about 60 = 2^6, and 2^-24 of 2^6 is 2^-18.
CURVE_ERROR = 2.0**-18
# The error of a gain over |g_i| by the Gramian's rounding, relative to the root of the sum of |w_i g_i|^2. An entry of
# the Gramian is right to 2^-24 of |g_i| |g_j|. Sums over many parameters were seen to lose two bits more.
GRAMIAN_ERROR = 2.0**-22


class _Curves(NamedTuple):
    """The curve `s = b z^(-p)` of each task, described by its point at which `s = slope z`, the curve's middle.

    Attributes:
        alpha: 1 / p.
        slope: float32 `[T]`, the scaled Gramian's diagonal; 1 for tasks that take no part.
        middle: float32 `[T]`, z at the middle; 0 for tasks that take no part.
    """

    alpha: Any
    slope: Array
    middle: Array

    @property
    def nash(self) -> bool:
        """Whether alpha is a number, and is 1."""
        return isinstance(self.alpha, float) and self.alpha == 1

    def point(self, x: Array) -> tuple[Array, Array]:
        """The z and s on the curve at which `z - s / slope = x`, each right to rounding even where it is small."""
        unit = jnp.where(self.middle > 0, self.middle, 1.0)
        a = jnp.abs(x) / unit
        if self.nash:
            larger = 0.5 * a + jnp.sqrt(0.25 * a * a + 1.0)
            smaller = 1.0 / larger
        else:
            # The larger, v, of z and s / slope solves v - v^(-e) = a, which is concave: Newton's method from the left
            # of the root stays left of it.
            e = jnp.where(x >= 0, 1.0 / self.alpha, self.alpha)
            larger = jnp.maximum(a, 1.0)
            for _ in range(REFINED_CURVE_STEPS if is_wide(self.slope) else CURVE_STEPS):
                smaller = jnp.exp2(-e * jnp.log2(larger))
                larger = larger - (larger - a - smaller) / (1.0 + e * smaller / larger)
            smaller = jnp.exp2(-e * jnp.log2(larger))
        z = self.middle * jnp.where(x >= 0, larger, smaller)
        return z, self.slope * self.middle * jnp.where(x >= 0, smaller, larger)

    def inverse(self, s: Array) -> Array:
        """The z of the curve's point with a given s; infinite where s is not positive."""
        usable = (s > 0) & (self.middle > 0)
        ratio = self.slope * self.middle / jnp.where(usable, s, 1.0)
        z = self.middle * (ratio if self.nash else jnp.exp2(self.alpha * jnp.log2(ratio)))
        return jnp.where(self.middle > 0, jnp.where(usable, z, jnp.inf), 0.0)


class _State(NamedTuple):
    x: Array
    z: Array
    s: Array
    step: Array
    last_x: Array
    last_z: Array
    last_force: Array
    ridge: Array
    damping: Array
    done: Array
    count: Array


def _newton(matrix: Array, curves: _Curves, valid: Array) -> tuple[Array, Array, Array]:
    """The solution: z and s on the curves, and the last step of z, which may be below the rounding of z."""
    p = 1.0 / curves.alpha
    slope = curves.slope
    damping, grown = finer(DAMPING, matrix), finer(RIDGE, matrix)
    converged, stationary = finer(CONVERGED, matrix, square=True), finer(STATIONARY, matrix, square=True)

    def body(state: _State) -> _State:
        z, s = curves.point(state.x)
        force = jnp.where(valid, s - accurate_product(matrix, z) - state.ridge * slope * z, 0.0)

        # dz = share dx and ds = -slope (1 - share) dx along the curves. Scaled by the root of `share`, the system is
        # symmetric and its diagonal that of M.
        stiff = p * s / slope
        both = jnp.where(valid, z + stiff, 1.0)
        share = jnp.where(valid, z / both, 0.0)
        root = jnp.sqrt(share)
        rest = jnp.where(valid, slope * (stiff / both + state.damping * share), 1.0)
        inverse = inverse_factor(root[:, None] * matrix * root[None, :] + jnp.diag(rest))
        step = root * solve_factored(inverse, root * force)
        step_x = jnp.where(valid, (force - multiply(matrix, step)) / slope + step, 0.0)

        # Rounding may leave the Gramian more negative than the ridge is. Then damping and ridge grow.
        broken = ~jnp.all(jnp.isfinite(step_x))
        growth = jnp.where(broken, 8.0, 1.0)

        # The equation is that of the minimum of f(z) = z'Mz / 2 - (a sum of concave functions of z), and the slope of f
        # is -force. Between two points f is convex. So the slopes at both ends tell whether the step went past the
        # minimum. A step that went too far past it is cut.
        moved = z - state.last_z
        overshot = jnp.sum(-force * moved) > 0.5 * jnp.sum(state.last_force * moved)
        total = jnp.sum(z * s)
        decrement = jnp.sum(force * step)
        near = decrement <= converged * total

        settled = jnp.all(jnp.abs(step_x) <= 0.25 * (z + s / slope))
        enough = jnp.where(state.ridge > 0, RIDGE_CONVERGED, converged)
        done = (decrement <= enough**2 * total) & settled
        # At a Pareto-stationary point z diverges. With the ridge in the equation z stays bounded.
        hopeless = (stationary * jnp.sum(z) > jnp.sqrt(total)) | (state.count > LIMIT // 2)
        hopeless = hopeless & (state.ridge == 0)
        # Slopes with a ridge and without one belong to two functions, and are not compared.
        cut = overshot & ~near & (state.count > 0) & ~hopeless & ~(broken & (state.ridge > 0))
        keep = done | hopeless | broken
        return _State(
            x=jnp.where(cut, 0.75 * state.last_x + 0.25 * state.x, jnp.where(keep, state.x, state.x + step_x)),
            z=z,
            s=s,
            step=jnp.where(broken, 0.0, step),
            last_x=jnp.where(cut, state.last_x, state.x),
            last_z=jnp.where(cut, state.last_z, z),
            last_force=jnp.where(cut, state.last_force, force),
            ridge=jnp.where(hopeless, grown, growth * state.ridge),
            damping=jnp.where(hopeless, grown, growth * state.damping),
            done=done & ~hopeless & ~broken,
            count=state.count + 1,
        )

    # Every carried value is made from the input, so that it varies over the devices of a mesh as the input does.
    zero = 0.0 * jnp.where(valid, curves.middle, 0.0) + jnp.where(valid, 0.0, 0.0 * curves.slope)
    count = jnp.sum(jnp.where(valid, 0, 0))
    first = _State(
        zero,
        zero,
        zero,
        zero,
        zero,
        zero,
        zero,
        ridge=jnp.sum(zero),
        damping=damping + jnp.sum(zero),
        done=~jnp.any(valid),
        count=count,
    )
    # With a NaN in the Gramian, every factorisation breaks down, and the damping reaches 1.
    last = lax.while_loop(lambda s: ~s.done & (s.count < LIMIT) & (s.damping < 1.0), body, first)
    return last.z, last.s, jnp.where(jnp.abs(last.step) <= 0.25 * last.z, last.step, 0.0)


def _certificate(matrix: Array, curves: _Curves, z: Array, s: Array, rest: Array) -> Array:
    """The residual that `bargaining` documents."""
    p = 1.0 / curves.alpha
    pull = accurate_product(matrix, z) + multiply(matrix, rest)
    size = jnp.sum(z)
    ratio = jnp.where(z > 0, 1.0 + rest / jnp.where(z > 0, z, 1.0), 1.0)
    s = s * jnp.exp2(-p * jnp.log2(ratio))
    z = z + rest
    error = finer(PRODUCT_ERROR, matrix) * size + finer(WEIGHT_ERROR, matrix) * jnp.sum(jnp.abs(rest))
    error = error + finer(CURVE_ERROR, matrix) * (1.0 + p) * s

    def off(pull: Array) -> Array:
        return jnp.abs(pull - s) * jnp.abs(curves.inverse(pull) - z)

    # The curves fall, so <z - z*, Mz - s> >= |d - d*|^2 + sum_i (z_i - z*_i) (s*_i - s_i). Wherever z* lies, task i
    # adds at most the rectangle between its point and its curve.
    violation = jnp.where(curves.middle > 0, jnp.maximum(off(pull - error), off(pull + error)), 0.0)
    length = jnp.sqrt(jnp.maximum(jnp.sum(z * pull), 0.0))
    # If the gains change by e, then z changes by dz with (M + diag(p s / z)) dz = e. So d moves by at most the root of
    # sum_i e_i^2 z_i / (p s_i).
    give = jnp.sum(jnp.where(curves.middle > 0, z / jnp.where(s > 0, p * s, TINY), 0.0))
    rounding = finer(GRAMIAN_ERROR, matrix) * jnp.sqrt(jnp.sum(z * z)) * jnp.sqrt(give)
    # The last term is the rounding of the weights.
    return relative(jnp.sqrt(jnp.sum(violation)) + rounding + WEIGHT_ERROR * size, length)


def bargaining(
    gramian: Array,
    *,
    shares: ArrayLike | None = None,
    alpha: Any = 1.0,
    active: Array | None = None,
    magnified: ArrayLike = 1.0,
) -> Solution:
    """Weights of the direction where each task's gain is a power of its weight: `G w = (c / w)^(1 / alpha)`, w > 0.

    Equivalently, `d = sum_k w_k g_k` with `w_i = c_i / <g_i, d>^alpha`. The direction d maximises
    `sum_i c_i u(<g_i, d>) - |d|^2 / 2` with the utility `u(y) = y^(1 - alpha) / (1 - alpha)`, or `log y` at alpha = 1
    (Nash's product). Every task gains, `<g_i, d> > 0`. For alpha -> 0 the weights approach
    `cone_projection(gramian, shares)`, which is `w = c` where no tasks conflict. For alpha -> infinity the direction
    approaches max-min fairness, the direction of `min_norm`.

    Args:
        gramian: floating point `[T, T]`, `G_ij = <g_i, g_j>`, of any scale that float32 holds; in float64 it is solved
            in float64.
        shares: floating point `[T]`, c above: positive bargaining powers. None for 1 each.
        alpha: positive number.
        active: bool `[T]`, the tasks that take part; None for all. The others get weight 0 and are not read.
        magnified: positive number by which the task gradients were multiplied before G was computed from them. The
            weights returned are for the gradients before that: `magnified^(2 alpha / (1 + alpha))` times those for G.

    Returns:
        `Solution` with weights `[T]`, constants under differentiation. A task without gradient cannot gain. It takes no
        part and has weight 0, and so has a task whose share is not positive.
        `residual` is at least
        `sqrt(sum_i |(Gw)_i - (c_i / w_i)^(1 / alpha)| |c_i / (Gw)_i^alpha - w_i|) / |d|`, the violation of the
        equation read both ways, plus an allowance for rounding. It bounds the relative error `|d - d*| / |d|` against
        the exact direction d* for this Gramian. It is 1 where the bound exceeds 1, or where a gain `(Gw)_i` is not
        positive beyond rounding. Far below alpha = 1, or with very uneven shares, a good answer may have such a gain
        and then has residual 1 too.
        At a Pareto-stationary point, where weights w >= 0 with `Gw = 0` exist, the equation has no solution. The safe
        answer is then that of `G + 2^-21 diag(G)` (2^-45 in float64), bounded, with residual 1. The ridge is 8 or 64
        times as large where rounding has left G more negative than that, as it may for 30 tasks on one line. So
        `<g_i, d>` is not below `-2^-20 |g_i| sum_k w_k |g_k|`, which is rounding. The gradients that cancel add almost
        nothing to d, and the other tasks bargain over what is orthogonal to these gradients.

    Raises:
        ValueError: the Gramian is not square, `shares` or `active` do not match it, or alpha is not a positive
            finite number.

    References:
        A. Navon, A. Shamsian, I. Achituve, H. Maron, K. Kawaguchi, G. Chechik, E. Fetaya (2022), "Multi-task
        learning as a bargaining game", ICML, arXiv 2202.01017.
        H. Ban, K. Ji (2024), "Fair resource allocation in multi-task learning", ICML, arXiv 2402.15638.
        Departures: Newton's method solves the equation to rounding, instead of a sequence of convex programs or least
        squares. The tests hold for alpha from 0.1 to 10. For a larger alpha the steps may run out near stationary
        points; `residual` is then large.

    Example:
        >>> bargaining(jnp.array([[4.0, 0.0], [0.0, 1.0]])).weights.round(4).tolist()
        [0.5, 1.0]
    """
    scaled = scale(gramian, active)
    if not isinstance(alpha, Tracer) and not 0 < alpha < float("inf"):
        raise ValueError(f"alpha must be a positive finite number, found {alpha}")
    num_tasks = scaled.norm.shape[0]
    shares = jnp.ones_like(scaled.norm) if shares is None else as_floating(shares).astype(scaled.norm.dtype)
    if shares.shape != (num_tasks,):
        raise ValueError(f"shares must have shape {(num_tasks,)} to match the gramian, found {shares.shape}")
    valid = scaled.nonzero & ~(shares <= 0)
    p = 1.0 / alpha
    matrix = jnp.where(valid[:, None] & valid[None, :], scaled.matrix, 0.0)
    slope = jnp.where(valid, jnp.diagonal(matrix), 1.0)
    # What depends on the norms is computed from their exponents, because the range of float32 may be too small for it.
    log_norm = jnp.where(valid, jnp.round(jnp.log2(scaled.norm)), 0.0)
    log_middle = (p * jnp.log2(jnp.where(valid, shares, 1.0)) + (p - 1.0) * log_norm - jnp.log2(slope)) / (p + 1.0)
    exponent = jnp.round(jnp.max(jnp.where(valid, log_middle, -jnp.inf)))
    exponent = jnp.where(jnp.any(valid), exponent, 0.0)
    middle = jnp.where(valid, jnp.exp2(log_middle - exponent), 0.0)
    curves = _Curves(alpha if isinstance(alpha, Tracer) else float(alpha), slope, middle)

    z, s, rest = _newton(matrix, curves, valid)
    residual = _certificate(matrix, curves, z, s, rest)
    shift = jnp.where(valid, exponent - log_norm, 0.0).astype(jnp.int32)
    # The factor is a power of two with a whole and a small exponent: float32 has 2^81.3 to 2^-18 of it only.
    mantissa, power = jnp.frexp(as_float32(magnified).astype(matrix.dtype))
    whole = jnp.round(2.0 * (power - 1) / (1.0 + p))
    small = (2.0 * (power - 1) - whole * (1.0 + p) + 2.0 * jnp.log2(2.0 * mantissa)) / (1.0 + p)
    factor = jnp.ldexp(jnp.exp2(small), whole.astype(jnp.int32))
    # Gradients may be so short that their weights exceed the range of float32.
    weights = jnp.ldexp(z + rest, shift) * factor
    return solution(jnp.minimum(weights, jnp.finfo(jnp.float32).max), residual)

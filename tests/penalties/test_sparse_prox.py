"""Proximal operators of sparse penalties: against a convex solver, by their optimality conditions, by brute force."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtljax.penalties.capped_l1 import capped_l1
from mtljax.penalties.dirty import dirty
from mtljax.penalties.fused import fused
from mtljax.penalties.l1 import l1
from mtljax.penalties.l1_inf import l1_inf
from mtljax.penalties.l21 import l21
from mtljax.penalties.task_l2 import task_l2
from mtljax.penalties.temporal_group_lasso import temporal_group_lasso

T, UNITS, WIDTH = 4, 3, 2

# Each from the strength s; scaling parameters and s alike scales the prox alike.
PENALTIES = {
    "l1": l1,
    "l21": l21,
    "l21_unit": lambda s: l21(s, per=-2),
    "l1_inf": l1_inf,
    "task_l2": task_l2,
    "fused": lambda s: fused(s, sparse=0.3 * s, joint=0.5 * s),
    "fused_unit": lambda s: fused(0.5 * s, joint=s, per=-2),
    "temporal": lambda s: temporal_group_lasso(0.2, 0.7, s),
    "temporal_unit": lambda s: temporal_group_lasso(0.0, 0.4, s, per=-2),
    "capped_l1": lambda s: capped_l1(s, 2.0 * s),
}


def norms(x, group):
    """`x` `[T, UNITS * WIDTH]`, cvxpy's or NumPy's: sum of norms over tasks at each position, or over units."""
    width = {"position": 1, "unit": WIDTH}[group]
    return sum(cp.norm(cp.vec(x[:, i : i + width], order="C")) for i in range(0, UNITS * WIDTH, width))


def objective(name, x, s):
    jumps = cp.sum(cp.abs(x[1:] - x[:-1]))
    squares = cp.sum_squares(x[1:] - x[:-1])
    return {
        "l1": lambda: s * cp.sum(cp.abs(x)),
        "l21": lambda: s * norms(x, "position"),
        "l21_unit": lambda: s * norms(x, "unit"),
        "l1_inf": lambda: s * cp.sum(cp.max(cp.abs(x), axis=0)),
        "task_l2": lambda: s * cp.sum(cp.norm(x, axis=1)),
        "fused": lambda: s * jumps + 0.3 * s * cp.sum(cp.abs(x)) + 0.5 * s * norms(x, "position"),
        "fused_unit": lambda: 0.5 * s * jumps + s * norms(x, "unit"),
        "temporal": lambda: 0.2 * cp.sum_squares(x) + 0.7 * squares + s * norms(x, "position"),
        "temporal_unit": lambda: 0.4 * squares + s * norms(x, "unit"),
    }[name]()


@jax.jit
def every_prox(v, strength, step):
    """All of them, `[T, UNITS, WIDTH]`, compiled once; and once more for float32, less those that differ in groups."""
    chosen = [name for name in PENALTIES if v.dtype == jnp.float64 or not name.endswith("_unit")]
    return {name: PENALTIES[name](strength).prox(v, step) for name in chosen}


def draw(seed=0):
    return np.random.default_rng(seed).normal(size=(T, UNITS, WIDTH))


def test_prox_is_the_minimizer_that_a_convex_solver_finds():
    with jax.enable_x64(True):
        found = every_prox(draw(), 1.6, 0.5)
    for name in sorted(PENALTIES.keys() - {"capped_l1"}):
        x = cp.Variable((T, UNITS * WIDTH))
        distance = 0.5 * cp.sum_squares(x - draw().reshape(T, -1))
        problem = cp.Problem(cp.Minimize(distance + 0.5 * objective(name, x, 1.6)))
        lowest = problem.solve(cp.CLARABEL)
        np.testing.assert_allclose(np.reshape(found[name], (T, -1)), x.value, atol=1e-4, err_msg=name)
        x.value = np.asarray(found[name]).reshape(T, -1)
        assert problem.objective.value <= lowest + 1e-8, name


# The norm whose unit ball the subgradients of a norm at 0 make up.
DUALS = {
    "l1": lambda g: np.abs(g).max(),
    "l21": lambda g: np.sqrt(np.square(g).sum(0)).max(),
    "l21_unit": lambda g: np.sqrt(np.square(g).sum((0, 2))).max(),
    "l1_inf": lambda g: np.abs(g).sum(0).max(),
    "task_l2": lambda g: np.sqrt(np.square(g).sum((1, 2))).max(),
}


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    step=st.sampled_from([0.0, 0.1, 1.0, 3.0, 100.0]),
    kind=st.sampled_from(["normal", "integers", "one task", "wild"]),
)
def test_what_prox_takes_away_is_the_projection_on_the_dual_ball(seed, step, kind):
    random = np.random.default_rng(seed)
    v = random.normal(size=(T, UNITS, WIDTH))
    if kind == "integers":  # ties, and zeros
        v = np.round(2 * v)
    if kind == "one task":
        v = v * (np.arange(T) == 1)[:, None, None]
    if kind == "wild":
        v = v * 10 ** random.uniform(-5, 5, size=v.shape)
    with jax.enable_x64(True):
        found = every_prox(v, 0.7, step)
        kept = {name: float(PENALTIES[name](0.7)(found[name])) for name in ("l1", "l1_inf")}
    scale = np.abs(v).max()
    for name, dual in DUALS.items():
        # Moreau: v = x + P(v), P the projection; that is, P(v) is in the ball, and supports it in the direction of x.
        x = np.asarray(found[name])
        taken = v - x
        assert dual(taken) <= 0.7 * step * (1 + 1e-12) + 1e-14 * scale, name
        if name in kept:
            assert np.vdot(x, taken) == pytest.approx(step * kept[name], rel=1e-9, abs=1e-12 * scale**2), name


def test_prox_shrinks_to_exact_zero_and_a_zero_step_changes_nothing():
    with jax.enable_x64(True):
        still, gone = every_prox(draw(), 1.0, 0.0), every_prox(draw(), 1.0, 1e3)
    for name in PENALTIES:
        if name.startswith("temporal"):
            np.testing.assert_allclose(still[name], draw(), rtol=1e-13, err_msg=name)
        else:
            np.testing.assert_array_equal(still[name], draw(), err_msg=name)
        assert not np.any(gone[name]), name


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_float32_prox_is_accurate_at_any_scale(scale):
    with jax.enable_x64(True):
        exact = every_prox(draw(1), 0.9, 0.4)
    found = every_prox(jnp.asarray(scale * draw(1), jnp.float32), jnp.float32(scale * 0.9), 0.4)
    for name in found:
        assert found[name].dtype == jnp.float32
        np.testing.assert_allclose(found[name] / scale, exact[name], rtol=2e-6, atol=1e-6, err_msg=name)


def test_a_nan_is_not_taken_for_zero():
    v = jnp.asarray(draw(), jnp.float32).at[2, 1, 0].set(jnp.nan)
    for name, x in every_prox(v, jnp.float32(100.0), 1.0).items():
        assert np.isnan(x[2, 1, 0]), name


def test_bfloat16_is_kept_and_rounded_once():
    v = jnp.asarray(draw(), jnp.bfloat16)
    operators = [l21(0.3).prox, task_l2(0.3).prox]
    pairs = jax.jit(lambda v: [(operator(v, 1.0), operator(v.astype(jnp.float32), 1.0)) for operator in operators])(v)
    for found, exact in pairs:
        assert found.dtype == jnp.bfloat16
        np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


def test_l1_inf_keeps_the_digits_of_a_small_step():
    # Sums of the magnitudes, 4e6, would swallow the step in float32.
    v = jnp.array([[1e6 + 0.5], [-1e6], [1e6 - 1.0], [0.25]])
    x = jax.jit(l1_inf().prox)(v, 0.75)
    # The largest gives 0.5, then two share the rest.
    np.testing.assert_array_equal(x, [[1e6 - 0.125], [-1e6 + 0.125], [1e6 - 1.0], [0.25]])


def test_whole_positions_units_or_tasks_become_zero():
    with jax.enable_x64(True):
        v = draw(2) * np.array([0.1, 1, 2, 4])[:, None, None] * np.array([0.2, 1, 3])[None, :, None]
        found = {name: np.asarray(x) != 0 for name, x in every_prox(v, 1.0, 3.0).items()}
    for name, axes in {"l21": 0, "l1_inf": 0, "l21_unit": (0, 2), "task_l2": (1, 2), "temporal_unit": (0, 2)}.items():
        nonzero = found[name]
        np.testing.assert_array_equal(nonzero.any(axes), nonzero.all(axes), err_msg=name)
        assert 0 < nonzero.sum() < nonzero.size, name


def test_a_task_is_one_group_over_all_leaves():
    v = {"w": jnp.array([[3.0, 0.0], [0.0, 1.0]]), "b": jnp.array([4.0, 0.0])}
    x = jax.jit(task_l2(2.0).prox)(v, 0.5)
    np.testing.assert_allclose(x["w"], [[2.4, 0.0], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(x["b"], [3.2, 0.0], rtol=1e-6)


def test_dirty_prox_is_part_by_part():
    v = {"block": {"w": jnp.asarray(draw(), jnp.float32)}, "element": {"w": jnp.asarray(draw(1), jnp.float32)}}
    penalty = dirty(0.8, 0.3)
    operators = [penalty.prox, lambda v, s: l1_inf(0.8).prox(v["block"], s), lambda v, s: l1(0.3).prox(v["element"], s)]
    x, block, element = jax.jit(lambda v: [operator(v, 0.5) for operator in operators])(v)
    assert penalty.parts == ("block", "element")
    np.testing.assert_array_equal(x["block"]["w"], block["w"])
    np.testing.assert_array_equal(x["element"]["w"], element["w"])


def capped_objective(x, v, c, cap):
    """`[T, ...]` -> `[...]`."""
    return 0.5 * np.square(x - v).sum(0) + c * np.minimum(np.abs(x).sum(0), cap)


def test_capped_prox_is_the_global_minimizer():
    v = np.random.default_rng(0).normal(size=(2, 30)) * np.linspace(0.1, 4, 30)[None, :]
    grid = np.stack(np.meshgrid(*2 * [np.linspace(-10, 10, 201)]))[:, :, :, None]
    prox = jax.jit(lambda v, c, cap: capped_l1(c, cap).prox(v, 1.0))
    for c, cap in ((0.5, 0.4), (1.0, 1.0), (1.3, 3.0)):
        with jax.enable_x64(True):
            x = np.asarray(prox(v, c, cap))
        lowest = np.stack([capped_objective(grid[..., 0], u[:, None, None], c, cap).min() for u in v.T])
        assert (capped_objective(x, v, c, cap) <= lowest + 1e-12).all()
        # Both kinds occur: shrunk, and left alone.
        assert 0 < (x == v).all(0).sum() < 30


def test_capped_prox_takes_the_sparser_point_where_two_are_as_good():
    # Threshold 1, cap 2: at v = 2.5 the soft threshold costs 2.5 - 0.5, leaving it alone 2.
    v = jnp.array([[2.5, jnp.nextafter(2.5, 3.0)]])
    x = jax.jit(capped_l1(1.0, 2.0).prox)(v, 1.0)
    np.testing.assert_array_equal(x, [[1.5, v[0, 1]]])
    assert float(jax.jit(jax.grad(capped_l1(1.0, 2.0)))(jnp.array([2.0]))[0]) == 0.0

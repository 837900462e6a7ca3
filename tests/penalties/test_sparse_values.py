"""Sparse penalties by value and gradient: by hand, against sums written out in float64, and where they have kinks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.penalties.capped_l1 import capped_l1
from mtljax.penalties.dirty import dirty
from mtljax.penalties.fused import fused
from mtljax.penalties.l1 import l1
from mtljax.penalties.l1_inf import l1_inf
from mtljax.penalties.l21 import l21
from mtljax.penalties.task_l2 import task_l2
from mtljax.penalties.temporal_group_lasso import temporal_group_lasso

INFINITY = float("inf")


def jumps(x):
    return x[1:] - x[:-1]


def lengths(x):
    return np.sqrt(np.square(x).sum(0)).sum()


def task_lengths(leaves):
    return np.sqrt(sum(np.square(x).reshape(len(x), -1).sum(1) for x in leaves)).sum()


# Each: strength -> penalty; strength, leaves in float64 -> value.
PENALTIES = {
    "l1": (l1, lambda s, leaves: s * sum(np.abs(x).sum() for x in leaves)),
    "l21": (l21, lambda s, leaves: s * sum(lengths(x) for x in leaves)),
    "l21_leaf": (lambda s: l21(s, per=()), lambda s, leaves: s * sum(np.sqrt(np.square(x).sum()) for x in leaves)),
    "l1_inf": (l1_inf, lambda s, leaves: s * sum(np.abs(x).max(0).sum() for x in leaves)),
    "task_l2": (task_l2, lambda s, leaves: s * task_lengths(leaves)),
    "fused": (
        lambda s: fused(s, sparse=0.2, joint=0.7),
        lambda s, leaves: sum(s * np.abs(jumps(x)).sum() + 0.2 * np.abs(x).sum() + 0.7 * lengths(x) for x in leaves),
    ),
    "temporal": (
        lambda s: temporal_group_lasso(0.3, s, 0.7),
        lambda s, leaves: sum(
            0.3 * np.square(x).sum() + s * np.square(jumps(x)).sum() + 0.7 * lengths(x) for x in leaves
        ),
    ),
    "capped_l1": (
        lambda s: capped_l1(s, 2.5),
        lambda s, leaves: s * sum(np.minimum(np.abs(x).sum(0), 2.5).sum() for x in leaves),
    ),
}


def of_each(function):
    """One compiled function for all penalties, since compiling is what costs: name -> function(penalty, ...)."""
    return jax.jit(lambda s, *args: {name: function(make(s), *args) for name, (make, _) in PENALTIES.items()})


def tree(size, *, dtype=jnp.float32, seed=0):
    draw = np.random.default_rng(seed).normal
    return {"w": jnp.asarray(draw(size=(size, 4, 2)), dtype), "b": [jnp.asarray(draw(size=(size,)), dtype)]}


def leaves64(stacked):
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(stacked)]


def values(penalties, w):
    return [float(value) for value in jax.jit(lambda w: [penalty(w) for penalty in penalties])(w)]


def test_by_hand():
    w = {"a": jnp.array([[3.0, 0.0], [-4.0, 1.0]]), "b": jnp.array([0.0, -2.0])}
    expected = [
        (l1(2.0), 2 * (3 + 4 + 1 + 2)),
        (l21(2.0), 2 * (5 + 1 + 2)),
        (l1_inf(2.0), 2 * (4 + 1 + 2)),
        (task_l2(2.0), 2 * (3 + 21**0.5)),  # tasks (3, 0, 0) and (-4, 1, -2)
        (fused(2.0), 2 * (7 + 1 + 2)),
        (fused(1.0, sparse=1.0, joint=1.0), 10 + 10 + 8),
        (temporal_group_lasso(1.0, 2.0, 1.0), (9 + 16 + 1 + 4) + 2 * (49 + 1 + 4) + 8),
        (capped_l1(2.0, 1.5), 2 * (1.5 + 1 + 1.5)),
    ]
    penalties, numbers = zip(*expected, strict=True)
    np.testing.assert_allclose(values(penalties, w), numbers, rtol=1e-6)
    assert values([dirty(2.0, 3.0)], {"block": w, "element": w}) == [14.0 + 30.0]


def test_values_and_gradients_equal_float64_for_every_strength():
    with jax.enable_x64(True):
        w, direction = tree(3, dtype=jnp.float64), tree(3, dtype=jnp.float64, seed=1)
        strengths = jnp.array([0.0, 0.5, 2.0])
        found = jax.vmap(of_each(lambda penalty, w: jax.value_and_grad(penalty)(w)), (0, None))(strengths, w)
    pairs = list(zip(leaves64(w), leaves64(direction), strict=True))
    for name, (_, oracle) in PENALTIES.items():
        value, grad = found[name]
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, [oracle(s, leaves64(w)) for s in (0.0, 0.5, 2.0)], rtol=1e-13, err_msg=name)
        for k, s in enumerate((0.0, 0.5, 2.0)):
            ahead, behind = (oracle(s, [a + step * d for a, d in pairs]) for step in (1e-6, -1e-6))
            slope = sum(np.vdot(g[k], d) for g, (_, d) in zip(leaves64(grad), pairs, strict=True))
            assert slope == pytest.approx((ahead - behind) / 2e-6, rel=1e-7, abs=1e-9), name


KINKS = {
    "zero": np.zeros((3, 2)),
    "equal": np.full((3, 2), -0.7),
    "one zero task": np.array([[1.0, 2.0], [0.0, 0.0], [0.5, -1.0]]),
    "one zero position": np.array([[1.0, 0.0], [-2.0, 0.0], [0.5, 0.0]]),
}


def test_derivatives_at_kinks_are_finite_and_zero_at_zero():
    points = np.stack(list(KINKS.values())).astype(np.float32)
    derivatives = of_each(lambda penalty, w: jax.value_and_grad(penalty)(w))
    found = jax.tree.map(np.asarray, jax.vmap(derivatives, (None, 0))(0.9, points))
    for name, (heights, slopes) in found.items():
        assert np.isfinite(slopes).all(), name
        assert not slopes[0].any(), name
        # A subgradient: no point lies below the tangent plane of another (for capped_l1, not convex, inside its cap).
        planes = np.einsum("kij,lij->kl", slopes, points) - np.einsum("kij,kij->k", slopes, points)[:, None]
        inside = np.abs(points).sum(1).max(1) < (2.5 if name == "capped_l1" else INFINITY)
        assert (heights[None, :] - heights[:, None] >= planes - 1e-5)[np.ix_(inside, inside)].all(), name


def test_second_derivatives_at_kinks_are_finite():
    penalties = [temporal_group_lasso(0.3, 0.9, 0.7), l1_inf(), task_l2()]
    points = np.stack(list(KINKS.values())).astype(np.float32)
    found = jax.jit(jax.vmap(lambda w: [jax.hessian(penalty)(w) for penalty in penalties]))(points)
    assert np.isfinite(found).all()
    # The norm has no second derivative to give at zero, and adds none; the squares have theirs.
    difference = np.diff(np.eye(3), axis=0)
    expected = 2 * 0.3 * np.eye(3) + 2 * 0.9 * difference.T @ difference
    np.testing.assert_allclose(found[0][0][:, 0, :, 0], expected, atol=1e-6)


def test_norms_of_one_task_are_the_l1_norm():
    penalties = [l1(1.3), l21(1.3), l1_inf(1.3), fused(9.0, sparse=1.3), fused(joint=1.3)]
    found = values([*penalties, temporal_group_lasso(0, 9, 1.3), task_l2(), l21(per=())], {"w": tree(1)["w"]})
    np.testing.assert_allclose(found[:6], found[0], rtol=1e-6)
    assert found[6] == pytest.approx(found[7], rel=1e-6)


def test_norms_of_several_tasks_are_ordered_as_they_must_be():
    one, capped, two, largest = values([l1(), capped_l1(1.0, INFINITY), l21(), l1_inf()], tree(4))
    assert largest < two < one < 4**0.5 * two < 4 * largest
    assert capped == pytest.approx(one, rel=1e-6)


def test_groups_per_unit():
    w = tree(3)["w"]  # a kernel with 4 input and 2 output units
    groups = {-2: (0, 2), -1: (0, 1), (-1, -2): 0, (): None, None: 0}
    expected = [np.sqrt(np.square(np.asarray(w, np.float64)).sum(axes)).sum() for axes in groups.values()]
    np.testing.assert_allclose(values([l21(per=per) for per in groups], w), expected, rtol=1e-6)
    # The same number means input channels in a convolution.
    kernel = w.reshape(3, 1, 2, 2, 2)
    expected = np.sqrt(np.square(np.asarray(kernel, np.float64)).sum((0, 1, 2, 4))).sum()
    penalties = [l21(per=-2), fused(0.0, joint=1.0, per=-2), temporal_group_lasso(0.0, 0.0, 1.0, per=-2)]
    np.testing.assert_allclose(values(penalties, kernel), expected, rtol=1e-6)


def test_bfloat16_is_summed_in_float32_and_keeps_its_dtype():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 500)), jnp.bfloat16)
    penalties = [l21(0.8), l1_inf(0.8), task_l2(0.8)]
    found = jax.jit(lambda *ws: [[jax.value_and_grad(penalty)(w) for w in ws] for penalty in penalties])
    for (value, grad), (exact, exact_grad) in found(w, w.astype(jnp.float32)):
        assert (value.dtype, grad.dtype) == (jnp.float32, jnp.bfloat16)
        assert float(value) == pytest.approx(float(exact), rel=1e-6)
        np.testing.assert_array_equal(grad, exact_grad.astype(jnp.bfloat16))


@pytest.mark.parametrize("name", PENALTIES)
def test_a_tree_without_leaves_costs_nothing(name):
    penalty = PENALTIES[name][0](1.0)
    assert float(penalty({})) == 0.0
    assert penalty.prox({"a": ()}, 0.1) == {"a": ()}


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: l1(-1.0), ValueError, "l1: strength must be at least 0, found -1.0"),
        (lambda: l21(float("nan")), ValueError, "l21: strength must be at least 0, found nan"),
        (lambda: l1_inf(jnp.ones(2)), ValueError, "l1_inf: strength must be a scalar, found an array of shape (2,)"),
        (lambda: dirty(1.0, -2.0), ValueError, "dirty: strength_element must be at least 0, found -2.0"),
        (lambda: task_l2(-1), ValueError, "task_l2: strength must be at least 0"),
        (lambda: fused(joint=-1.0), ValueError, "fused: joint must be at least 0, found -1.0"),
        (lambda: temporal_group_lasso(1.0, -1.0, 0.0), ValueError, "temporal_group_lasso: smooth must be at least 0"),
        (lambda: capped_l1(1.0, -1.0), ValueError, "capped_l1: cap must be at least 0, found -1.0"),
        (lambda: l21(per=0), ValueError, "l21: per must be axes from the end, -1 the last, found 0"),
        (lambda: l21(per=(-1, -1)), ValueError, "l21: per must be axes that differ, found (-1, -1)"),
        (lambda: fused(per="in"), TypeError, "fused: per must be an integer, a sequence of integers or None"),
        (
            lambda: fused(per=-2).prox({"b": jnp.ones((3, 8))}, 0.1),
            ValueError,
            "fused: per names axis -2 of each parameter, but leaf ['b'] has parameters of shape (8,)",
        ),
        (lambda: task_l2().prox(jnp.ones(2), -0.1), ValueError, "task_l2: step_size must be at least 0, found -0.1"),
        (lambda: l21()({"n": jnp.ones(2, int)}), TypeError, "l21: leaf ['n'] must be of a floating-point type"),
        (
            lambda: l1_inf()({"w": jnp.ones((2, 3)), "b": jnp.ones(3)}),
            ValueError,
            "l1_inf: leaf ['w'] must have a leading task axis of 3, found shape (2, 3)",
        ),
        (
            lambda: dirty()(jnp.ones(2)),
            TypeError,
            "dirty: stacked must be a dict by part of ['block', 'element'], found ArrayImpl",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)

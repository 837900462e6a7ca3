"""Penalties against sums written out in float64, by value, gradient and proximal operator."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtljax.penalties import l2_to_mean, pairwise_l2


def chain(size):
    return np.eye(size, k=1) + np.eye(size, k=-1)


def ring(size):
    return chain(size) + np.eye(size, k=size - 1) + np.eye(size, k=1 - size)


def star(size):
    relation = np.zeros((size, size))
    relation[0, 1:] = relation[1:, 0] = np.arange(1, size)
    return relation


def rank_one(size):
    scale = np.linspace(0.1, 3.0, size)
    return np.outer(scale, scale)


def clusters(size):
    member = np.arange(size) % 3  # interleaved, so that no cluster is a slice
    return 0.7 * (member[:, None] == member[None, :])


def dense(size):
    relation = np.random.default_rng(size).uniform(0, 1, (size, size))
    return relation + relation.T


def split(size):
    """A chain, a dense block, and a task without relations."""
    relation = np.zeros((size, size))
    relation[:3, :3] = chain(3)
    relation[3:-1, 3:-1] = dense(size - 4)
    return relation


RELATIONS = {
    "uniform": lambda size: np.full((size, size), 0.3),
    "chain": chain,
    "ring": ring,
    "star": star,
    "rank_one": rank_one,
    "clusters": clusters,
    "dense": dense,
    "split": split,
    "none": lambda size: np.zeros((size, size)),
}
# One for each way of computing a component, alone and mixed.
each_route = pytest.mark.parametrize(
    "penalty",
    [l2_to_mean(), *(pairwise_l2(make(9)) for make in (clusters, star, dense, split))],
    ids=["mean", "clusters", "star", "dense", "split"],
)
over_relations = pytest.mark.parametrize("relation", [RELATIONS[k](9) for k in RELATIONS], ids=list(RELATIONS))


def tree(size, *, dtype=jnp.float32, seed=0):
    draw = np.random.default_rng(seed).normal
    return {"w": jnp.asarray(draw(size=(size, 4, 3)), dtype), "b": [jnp.asarray(draw(size=(size,)), dtype)]}


def flat(stacked):
    return np.concatenate([np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(stacked)], axis=1)


def oracle(relation, w):
    """`1/2 sum_ij R_ij |w_i - w_j|^2`, every pair written out in float64."""
    return 0.5 * sum(
        relation[i, j] * np.sum((w[i] - w[j]) ** 2) for i in range(len(w)) for j in range(len(w)) if i != j
    )


def laplacian(relation):
    relation = relation * (1 - np.eye(len(relation)))
    return np.diag(relation.sum(1)) - relation


def test_l2_to_mean_by_hand():
    w = {"a": jnp.array([[0.0, 0.0], [2.0, 4.0]]), "b": jnp.array([1.0, 5.0])}
    # Means (1, 2) and 3: 2 * (1 + 4) + 2 * 4 = 18.
    assert float(l2_to_mean(0.5)(w)) == 9.0


def test_pairwise_by_hand():
    w = jnp.array([[0.0], [1.0], [3.0]])
    relation = np.array([[9.0, 1.0, 2.0], [1.0, 9.0, 0.5], [2.0, 0.5, 9.0]])  # the diagonal does not count
    # 1 * 1 + 2 * 9 + 0.5 * 4 = 21.
    assert float(pairwise_l2(relation, strength=2.0)(w)) == pytest.approx(42.0, rel=1e-6)


@over_relations
def test_pairwise_equals_the_double_sum(relation):
    w = tree(9)
    assert float(pairwise_l2(relation, strength=1.7)(w)) == pytest.approx(1.7 * oracle(relation, flat(w)), rel=1e-5)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 7), density=st.floats(0, 1), levels=st.integers(1, 3))
def test_pairwise_equals_the_double_sum_for_any_relation(seed, size, density, levels):
    random = np.random.default_rng(seed)
    upper = np.triu(random.integers(1, levels + 1, (size, size)) * (random.uniform(size=(size, size)) < density), 1)
    relation = (upper + upper.T).astype(np.float32)
    w = random.normal(size=(size, 5)).astype(np.float32)
    assert float(pairwise_l2(relation)(w)) == pytest.approx(oracle(relation, w.astype(np.float64)), rel=1e-5, abs=1e-30)


# Rows in one sum, in more than one, and too many to be walked.
@pytest.mark.parametrize("size", [1, 2, 5, 19, 33])
def test_l2_to_mean_is_the_pairwise_penalty_with_relation_one_over_t(size):
    w = tree(size)
    uniform = pairwise_l2(np.full((size, size), 1 / size))
    value, gradient = jax.value_and_grad(l2_to_mean().value)(w)
    assert float(l2_to_mean()(w)) == pytest.approx(float(uniform(w)), rel=1e-5, abs=1e-30)
    assert float(value) == float(l2_to_mean()(w))
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, 2 * (w - np.mean(w, axis=0, keepdims=True)), rtol=1e-4, atol=1e-6),
        gradient,
        w,
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        l2_to_mean().prox(w, 0.4),
        uniform.prox(w, 0.4),
    )


@pytest.mark.parametrize("name", ["l2_to_mean", "clusters", "star", "split"])
def test_gradients_equal_finite_differences(name):
    with jax.enable_x64(True):
        penalty = l2_to_mean(0.6) if name == "l2_to_mean" else pairwise_l2(RELATIONS[name](9), strength=0.6)
        w, direction = tree(9, dtype=jnp.float64), tree(9, dtype=jnp.float64, seed=1)
        # A quadratic: the central difference is exact at any step, so the step may be large.
        ahead, behind = (penalty(jax.tree.map(lambda a, d, s=s: a + s * d, w, direction)) for s in (0.5, -0.5))
        slope = sum(
            jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (jax.grad(penalty)(w), direction)), strict=True)
        )
        assert ahead.dtype == jnp.float64
        assert float(slope) == pytest.approx(float(ahead - behind), rel=1e-10, abs=1e-12)


@over_relations
@pytest.mark.parametrize("step", [0.0, 0.3, 1e6])
def test_pairwise_prox_solves_its_linear_system(relation, step):
    w = tree(9)
    expected = np.linalg.solve(np.eye(9) + 2 * step * 0.8 * laplacian(relation), flat(w))
    np.testing.assert_allclose(flat(pairwise_l2(relation, strength=0.8).prox(w, step)), expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("penalty", [l2_to_mean(0.8), pairwise_l2(dense(9), strength=0.8)], ids=["mean", "dense"])
def test_prox_is_where_its_objective_is_stationary(penalty):
    with jax.enable_x64(True):
        v = tree(9, dtype=jnp.float64)
        x = penalty.prox(v, 0.3)
        residual = jax.tree.map(lambda x, v, g: x - v + 0.3 * g, x, v, jax.grad(penalty.value)(x))
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(residual)) < 1e-12


def test_prox_keeps_the_mean_and_with_huge_strength_leaves_nothing_else():
    w = tree(5)
    for penalty in (l2_to_mean(1e9), pairwise_l2(np.full((5, 5), 1e9))):
        pulled = penalty.prox(w, 1.0)
        jax.tree.map(
            lambda x, v: np.testing.assert_allclose(x, np.broadcast_to(v.mean(0), v.shape), atol=1e-6), pulled, w
        )


def test_an_unrelated_task_is_left_alone():
    w = tree(9)
    penalty = pairwise_l2(split(9))
    assert not any(leaf[-1].any() for leaf in jax.tree.leaves(jax.jit(jax.grad(penalty.value))(w)))
    jax.tree.map(lambda x, v: np.testing.assert_array_equal(x[-1], v[-1]), jax.jit(penalty.prox)(w, 100.0), w)


@each_route
def test_close_copies_far_from_zero_keep_their_digits(penalty):
    # Differences of 2^-10 around 4096, exact in float32; |w|^2 would swallow their squares, a rounded mean 1 % of them.
    step = np.random.default_rng(0).integers(-4, 5, (9, 50)).astype(np.float32) / 1024
    far, near = jnp.asarray(4096 + step), jnp.asarray(step)
    assert float(penalty(far)) == pytest.approx(float(penalty(near)), rel=1e-5)
    np.testing.assert_allclose(jax.grad(penalty.value)(far), jax.grad(penalty.value)(near), rtol=1e-4, atol=1e-6)


@each_route
def test_equal_copies_are_left_exactly_as_they_are(penalty):
    w = jnp.broadcast_to(jnp.array([0.1, -7.7, 1e5]), (9, 3))
    value, grad = jax.value_and_grad(penalty.value)(w)
    assert float(value) == 0.0
    assert not grad.any()
    np.testing.assert_array_equal(penalty.prox(w, 3.0), w)


@each_route
def test_bfloat16_accumulates_in_float32_and_keeps_its_dtype(penalty):
    w = jnp.asarray(np.random.default_rng(0).normal(size=(9, 3000)), jnp.bfloat16)
    value_and_grad = jax.jit(jax.value_and_grad(penalty.value))
    value, grad = value_and_grad(w)
    exact, exact_grad = value_and_grad(w.astype(jnp.float32))
    assert (value.dtype, grad.dtype, penalty.prox(w, 0.1).dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)
    assert float(value) == pytest.approx(float(exact), rel=1e-6)
    np.testing.assert_array_equal(grad, exact_grad.astype(jnp.bfloat16))


@each_route
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_values_and_prox_are_homogeneous(penalty, scale):
    w = tree(9)
    scaled = jax.tree.map(lambda leaf: scale * leaf, w)
    assert float(penalty(scaled)) == pytest.approx(scale**2 * float(penalty(w)), rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a / scale, b, rtol=1e-4, atol=1e-6),
        penalty.prox(scaled, 0.2),
        penalty.prox(w, 0.2),
    )


def test_strength_may_be_swept():
    w = tree(4)
    strengths = jnp.array([0.0, 0.5, 2.0])
    for make in (l2_to_mean, lambda strength: pairwise_l2(chain(4), strength=strength)):
        values = jax.jit(jax.vmap(lambda strength, make=make: make(strength)(w)))(strengths)
        np.testing.assert_allclose(values, strengths * make(1.0)(w), rtol=1e-6)


def test_a_tree_without_leaves_costs_nothing():
    assert float(l2_to_mean()({})) == float(pairwise_l2(chain(3))(())) == 0.0


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: l2_to_mean(-1.0), ValueError, "l2_to_mean: strength must be at least 0, found -1.0"),
        (lambda: l2_to_mean(float("nan")), ValueError, "l2_to_mean: strength must be at least 0, found nan"),
        (lambda: l2_to_mean(jnp.ones(2)), ValueError, "strength must be a scalar, found an array of shape (2,)"),
        (
            lambda: l2_to_mean().prox(jnp.ones(2), -0.1),
            ValueError,
            "step_size must be at least 0, found -0.1",
        ),
        (
            lambda: l2_to_mean()({"w": jnp.ones((2, 3)), "b": jnp.ones(3)}),
            ValueError,
            "l2_to_mean: leaf ['w'] must have a leading task axis of 3, found shape (2, 3)",
        ),
        (
            lambda: l2_to_mean()({"b": jnp.ones(())}),
            ValueError,
            "leaf ['b'] must have a leading task axis, found shape ()",
        ),
        (
            lambda: l2_to_mean()({"n": jnp.ones(2, int)}),
            TypeError,
            "l2_to_mean: leaf ['n'] must be of a floating-point type, found int32",
        ),
        (lambda: pairwise_l2(np.ones((2, 3))), ValueError, "relation must have shape [T, T], found (2, 3)"),
        (lambda: pairwise_l2(np.full((2, 2), np.inf)), ValueError, "relation must be finite"),
        (
            lambda: pairwise_l2(np.array([[0.0, -2.0], [-2.0, 0.0]])),
            ValueError,
            "relation must be non-negative, found -2.0 at [0, 1]",
        ),
        (
            lambda: pairwise_l2(np.array([[0.0, 2.0], [1.0, 0.0]])),
            ValueError,
            "relation must be symmetric, found 2.0 at [0, 1] but 1.0 at [1, 0]",
        ),
        (
            lambda: pairwise_l2(np.ones((3, 3)))({"w": jnp.ones((2, 4))}),
            ValueError,
            "pairwise_l2: the relation is between 3 tasks, but leaf ['w'] stacks 2",
        ),
        (
            lambda: jax.jit(lambda relation: pairwise_l2(relation)(jnp.ones(2)))(np.ones((2, 2))),
            ValueError,
            "relation must be known when the penalty is made, found a traced array",
        ),
        (lambda: pairwise_l2(np.ones((2, 2)), strength=-1), ValueError, "pairwise_l2: strength must be at least 0"),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)

"""Feature and relation learning against closed forms, cvxpy, and what their certificate promises."""

from __future__ import annotations

import functools

import cvxpy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.convex.alternating.learning import feature_learning, relation_learning

WIDE, TALL = (3, 8, 5), (6, 7, 3)  # tasks, rows, features


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def problem(shape, seed=0):
    """Tasks of unequal lengths, one of no rows; masked rows hold NaN."""
    tasks, rows, features = shape
    random = np.random.default_rng(seed)
    x = random.normal(size=shape) + 0.5
    weights = random.normal(size=(tasks, 1)) * random.normal(size=(1, features)) + 0.3 * random.normal(
        size=(tasks, features)
    )
    y = 2.0 + np.einsum("tnp,tp->tn", x, weights) + 0.5 * random.normal(size=(tasks, rows))
    mask = np.arange(rows)[None, :] < random.integers(rows // 2, rows + 1, tasks)[:, None]
    mask[1] = False
    x[~mask], y[~mask] = np.nan, np.nan
    return x, y, mask


@functools.cache
def features(intercept=False):
    """Over a vector of strengths, and over numbers of rounds."""
    learn = functools.partial(feature_learning, intercept=intercept)
    return jax.jit(
        jax.vmap(lambda gamma, steps, *data: learn(*data, gamma=gamma, max_steps=steps), (0, 0, None, None, None))
    )


@jax.jit
def relations(strengths, steps, *data):
    def learn(strengths, steps):
        return relation_learning(*data, lambda1=strengths[0], lambda2=strengths[1], max_steps=steps)

    return jax.vmap(learn)(strengths, steps)


def at(tree, index):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], tree)


def objective(data, weights, intercepts, *, square, trace, mean=False):
    """And its parts written out: `sum_t c_t SSE_t + a |W|_F^2 + g |W|_*^2`."""
    loss = 0.0
    for x, y, mask, w, b in zip(*data, weights, intercepts, strict=True):
        if mask.any():
            loss += np.sum((y[mask] - x[mask] @ w - b) ** 2) / (mask.sum() if mean else 1)
    return loss + square * np.sum(weights**2) + trace * np.linalg.norm(weights, "nuc") ** 2


def optimum(data, *, square, trace, mean=False, intercept=False):
    x, y, mask = data
    w, b = cvxpy.Variable((x.shape[0], x.shape[2])), cvxpy.Variable(x.shape[0])
    terms = [square * cvxpy.sum_squares(w), trace * cvxpy.square(cvxpy.normNuc(w))]
    for t in np.flatnonzero(mask.any(1)):
        residual = y[t, mask[t]] - x[t, mask[t]] @ w[t] - intercept * b[t]
        terms.append(cvxpy.sum_squares(residual) / (mask[t].sum() if mean else 1))
    found = cvxpy.Problem(cvxpy.Minimize(sum(terms))).solve(solver=cvxpy.CLARABEL)
    return found, w.value


def root(matrix):
    """`matrix^1/2` over its trace."""
    values, vectors = np.linalg.eigh(matrix)
    values = np.sqrt(np.maximum(values, 0.0))
    return vectors * (values / values.sum()) @ vectors.T


# The optimum.

LANES = 24  # always, so that one program serves
GAMMAS = np.resize([0.1, 1.0, 30.0], LANES)
LAMBDAS = np.array([[0.0, 0.2], [0.3, 0.5], [0.5, 5.0]])
MANY = np.full(LANES, 2000)


@pytest.mark.parametrize("shape", [WIDE, pytest.param(TALL, marks=pytest.mark.slow)])
def test_feature_learning_reaches_the_optimum(x64, shape):
    data = problem(shape)
    found = features()(GAMMAS, MANY, *data)
    assert found.converged.all() and found.weights.dtype == jnp.float64
    for index, gamma in enumerate(GAMMAS[:3]):
        one = at(found, index)
        best, weights = optimum(data, square=0.0, trace=gamma)
        assert one.objective == pytest.approx(
            objective(data, one.weights, one.intercepts, square=0.0, trace=gamma), rel=1e-12
        )
        assert one.objective == pytest.approx(best, rel=2e-8)
        np.testing.assert_allclose(one.weights, weights, atol=1e-3)
        np.testing.assert_allclose(one.matrix, root(one.weights.T @ one.weights), atol=1e-7)


@pytest.mark.parametrize("shape", [TALL, pytest.param(WIDE, marks=pytest.mark.slow)])
def test_relation_learning_reaches_the_optimum(x64, shape):
    data = problem(shape)
    found = relations(LAMBDAS, MANY[:3], *data)
    assert found.converged.all()
    for index, (square, trace) in enumerate(LAMBDAS / 2):
        one = at(found, index)
        best, weights = optimum(data, square=square, trace=trace, mean=True, intercept=True)
        written = objective(data, one.weights, one.intercepts, square=square, trace=trace, mean=True)
        assert one.objective == pytest.approx(written, rel=1e-12)
        assert one.objective == pytest.approx(best, rel=2e-8)
        np.testing.assert_allclose(one.weights, weights, atol=1e-3)
        np.testing.assert_allclose(one.matrix, root(one.weights @ one.weights.T), atol=1e-7)


def test_orthonormal_inputs_by_hand(x64):
    # min |Y - W|^2 + |W|_*^2 keeps Y's singular vectors; values 5, 3, 1 become s_i = (v_i - sum(s))_+: with two of them
    # the sum is 8 / 3, and 1 < 8 / 3.
    draw = np.random.default_rng(0).normal
    left, right = (np.linalg.qr(draw(size=(size, 3)))[0] for size in (3, 5))
    x, y = np.zeros(WIDE), np.zeros(WIDE[:2])
    x[:, :5], y[:, :5] = np.eye(5), left * [5.0, 3.0, 1.0] @ right.T
    found = at(features()(np.ones(LANES), MANY, x, y, y == y), 0)
    np.testing.assert_allclose(found.weights, left[:, :2] * [7 / 3, 1 / 3] @ right[:, :2].T, atol=1e-4)
    # 25 + 9 + 1 - 2 (5 7/3 + 3/3) + (7/3)^2 + (1/3)^2 + (8/3)^2
    np.testing.assert_allclose(found.objective, 35 - 76 / 3 + 50 / 9 + 64 / 9, rtol=1e-8)


# The way there.


def test_the_objective_never_rises_and_the_gap_is_one(x64):
    data, gamma = problem(WIDE), 2.0
    rounds = 1 + np.arange(LANES)
    found = features()(np.full(LANES, gamma), rounds, *data)
    best = float(found.objective[-1] - found.gap[-1])
    assert found.gap[-1] < 1e-5 * found.objective[-1] < found.gap[0]
    perturbed = []
    for one in (at(found, index) for index in range(LANES)):
        assert one.gap >= one.objective - best - 1e-9
        values = np.linalg.svd(one.weights)[1]
        # What is promised: the objective with the singular values that this round saw.
        extra = np.sum(np.hypot(values, one.perturbation)) ** 2 - np.sum(values) ** 2
        perturbed.append(one.objective + gamma * extra)
    assert np.all(np.diff(perturbed) <= 1e-10 * perturbed[0])
    assert np.all(np.diff(found.perturbation) <= 0) and np.all(np.diff(found.steps) >= 0)


@pytest.mark.slow
def test_float32_reaches_its_tolerance_at_any_scale():
    x, y, mask = (leaf.astype(np.float32 if leaf.dtype != bool else bool) for leaf in problem(WIDE))
    found = features()(GAMMAS, MANY, x, y, mask)
    assert found.converged.all() and found.weights.dtype == jnp.float32 and (found.gap <= 1e-5 * found.objective).all()
    for scale in (2.0**-30, 2.0**30):
        again = features()(GAMMAS, MANY, x, scale * y, mask)
        np.testing.assert_array_equal(again.weights, scale * found.weights)
        np.testing.assert_array_equal(again.steps, found.steps)


def test_the_degenerate_cases(x64):
    x, y, mask = problem(WIDE)
    nothing = at(features()(GAMMAS, MANY, x, 0.0 * y, mask), 0)
    assert not nothing.weights.any() and nothing.converged and np.trace(nothing.matrix) == pytest.approx(1.0)
    absent = at(features()(GAMMAS, MANY, x, y, np.zeros_like(mask)), 0)
    assert not absent.weights.any() and absent.converged
    # A single task with rows is ridge regression.
    alone = mask & (np.arange(3) == 0)[:, None]
    one = at(features()(GAMMAS, MANY, x, y, alone), 1)
    inputs, targets = x[0][mask[0]], y[0][mask[0]]
    ridge = np.linalg.solve(inputs.T @ inputs + np.eye(5), inputs.T @ targets)
    np.testing.assert_allclose(one.weights, [ridge, 0 * ridge, 0 * ridge], atol=2e-4)
    # Not a number is not converged.
    assert not features()(GAMMAS, MANY, x, np.where(mask, np.nan, y), mask).converged.any()


@pytest.mark.slow
def test_intercepts_make_shifts_of_data_immaterial(x64):
    x, y, mask = problem(WIDE)
    found = features(intercept=True)(GAMMAS, MANY, x, y, mask)
    moved = features(intercept=True)(GAMMAS, MANY, x + 3.0, y - 100.0, mask)
    np.testing.assert_allclose(moved.weights, found.weights, atol=1e-6)
    shift = found.intercepts - 100.0 - 3.0 * found.weights.sum(2)
    np.testing.assert_allclose(moved.intercepts[:, mask.any(1)], shift[:, mask.any(1)], atol=1e-4)
    best, _ = optimum((x, y, mask), square=0.0, trace=GAMMAS[1], intercept=True)
    assert found.objective[1] == pytest.approx(best, rel=2e-8)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            ValueError,
            r"feature_learning: gamma must be above 0, found 0\.0",
            lambda x, y, mask: feature_learning(x, y, gamma=0.0),
        ),
        (
            ValueError,
            "relation_learning: lambda1 must be at least 0, found -1",
            lambda x, y, mask: relation_learning(x, y, lambda1=-1.0, lambda2=1.0),
        ),
        (
            ValueError,
            r"inputs \(3, 8, 5\), targets \(3, 7\), mask \(3, 8\)",
            lambda x, y, mask: feature_learning(x, y[:, 1:], mask, gamma=1.0),
        ),
        (
            ValueError,
            r"inputs \(2, 8, 5\), targets \(3, 8\), mask \(3, 8\)",
            lambda x, y, mask: feature_learning(x[1:], y, mask, gamma=1.0),
        ),
        (
            TypeError,
            "mask must be of type bool, found float",
            lambda x, y, mask: relation_learning(x, y, mask * 1.0, lambda1=1.0, lambda2=1.0),
        ),
        (
            TypeError,
            "targets must be of a floating-point type, found int",
            lambda x, y, mask: relation_learning(x, mask * 1, lambda1=1.0, lambda2=1.0),
        ),
    ],
)
def test_mistakes(error, message, call):
    with pytest.raises(error, match=message):
        call(*problem(WIDE))


# Real data.


@pytest.mark.slow
def test_school_is_learnt_to_the_certificate(real_data):
    from scipy.io import loadmat

    cells = loadmat(real_data("school") / "school.mat")
    inputs = [cell[:, :27].astype(np.float32) for cell in cells["X"][0]]
    targets = [cell[:, 0].astype(np.float32) for cell in cells["Y"][0]]
    center, spread = np.concatenate(inputs).mean(0), np.concatenate(inputs).std(0)
    rows = max(map(len, inputs))
    x, y, mask = np.zeros((139, rows, 27), np.float32), np.zeros((139, rows), np.float32), np.zeros((139, rows), bool)
    for task, (own, labels) in enumerate(zip(inputs, targets, strict=True)):
        x[task, : len(own)], y[task, : len(own)], mask[task, : len(own)] = (own - center) / spread, labels, True
    shuffled = np.argsort(np.where(mask, np.random.default_rng(0).random(mask.shape), 2.0), axis=1)
    train = mask & (np.argsort(shuffled, axis=1) < 0.75 * mask.sum(1, keepdims=True))
    test = mask & ~train
    found = [
        jax.jit(functools.partial(feature_learning, gamma=10.0, intercept=True))(x, y, train),
        jax.jit(functools.partial(relation_learning, lambda1=0.1, lambda2=0.3))(x, y, train),
    ]
    for one in found:
        assert one.converged
        guess = np.einsum("tnp,tp->tn", x, one.weights) + np.asarray(one.intercepts)[:, None]
        explained = 1 - np.sum((y - guess)[test] ** 2) / np.sum((y[test] - y[test].mean()) ** 2)
        assert 0.35 < explained < 0.40

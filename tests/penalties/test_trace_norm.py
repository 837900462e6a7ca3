"""Trace norms, of parameters and of the low-rank part of a sum, against NumPy's SVD of matrices unfolded by hand."""

from __future__ import annotations

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.penalties.alternating_structure import alternating_structure
from mtljax.penalties.clustered import clustered
from mtljax.penalties.learned_relation import learned_relation
from mtljax.penalties.robust import robust
from mtljax.penalties.sparse_low_rank import sparse_low_rank
from mtljax.penalties.trace_norm import tensor_train_trace_norm, trace_norm, tucker_trace_norm

TASKS, STRENGTH, STEP_SIZE = 4, 0.7, 1.5
PENALTIES = {
    "each": trace_norm,
    "joint": lambda strength: trace_norm(strength, joint=True),
    "tucker": tucker_trace_norm,
    "tensor train": tensor_train_trace_norm,
}


def nuclear(matrix):
    return np.linalg.svd(matrix, compute_uv=False).sum()


def tree(seed=0):
    draw = np.random.default_rng(seed).normal
    return {"b": draw(size=(TASKS,)), "w": draw(size=(TASKS, 3, 2))}


def flat(stacked):
    return np.concatenate([stacked[k].reshape(TASKS, -1) for k in ("b", "w")], axis=1)


@jax.jit
def compiled(w, strength):
    """One program for the file: compiling costs more than all of the runs."""
    penalties = {name: make(strength) for name, make in PENALTIES.items()}
    return {
        "values": {name: jax.value_and_grad(penalty.value)(w) for name, penalty in penalties.items()},
        "prox": {name: penalties[name].prox(w, STEP_SIZE) for name in ("each", "joint")},
    }


def evaluated(w, strength=STRENGTH):
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, compiled(jax.tree.map(jnp.asarray, w), jnp.asarray(strength, jnp.float64)))


def test_trace_norm_by_hand():
    # Rows (3, 0), (0, 4): singular values 4 and 3. The bias is a matrix of one column, of norm 5.
    w = {"w": np.zeros((TASKS, 3, 2)), "b": np.array([-3.0, 4.0, 0.0, 0.0])}
    w["w"][0, 0, 0], w["w"][1, 2, 1] = 3.0, 4.0
    values = evaluated(w)["values"]
    assert values["each"][0] == pytest.approx(0.7 * (4 + 3 + 5), rel=1e-14)
    # Two rows in all, W W^T = [[18, -12], [-12, 32]]: (sum of singular values)^2 = trace + 2 sqrt(determinant).
    assert values["joint"][0] == pytest.approx(0.7 * np.sqrt(50 + 2 * np.sqrt(18 * 32 - 144)), rel=1e-14)


def test_values_equal_those_of_matrices_unfolded_by_hand():
    w = tree()
    found, kernel, bias = evaluated(w), w["w"], np.linalg.norm(w["b"])
    last = kernel.transpose(1, 2, 0)  # the paper stacks tasks along the last axis
    unfolded = {
        "each": [kernel.reshape(4, 6)],
        "tucker": [
            kernel.reshape(4, 6),
            kernel.transpose(1, 0, 2).reshape(3, 8),
            kernel.transpose(2, 0, 1).reshape(2, 12),
        ],
        "tensor train": [last.reshape(3, 8), last.reshape(6, 4)],
    }
    for name, matrices in unfolded.items():
        expected = STRENGTH * (bias + sum(map(nuclear, matrices)))
        assert found["values"][name][0] == pytest.approx(expected, rel=1e-13)
    assert found["values"]["joint"][0] == pytest.approx(STRENGTH * nuclear(flat(w)), rel=1e-13)
    assert tucker_trace_norm().prox is tensor_train_trace_norm().prox is None


@pytest.mark.parametrize("name", PENALTIES)
def test_gradients_equal_finite_differences(name):
    w, direction, step = tree(), tree(seed=1), 1e-5
    gradient = evaluated(w)["values"][name][1]
    ahead, behind = (evaluated({k: w[k] + s * direction[k] for k in w})["values"][name][0] for s in (step, -step))
    assert np.sum(flat(gradient) * flat(direction)) == pytest.approx((ahead - behind) / (2 * step), rel=1e-8)


def test_prox_and_that_of_the_conjugate_add_up_to_the_identity():
    """Moreau: v less its prox is its projection on a ball of the dual norm, the largest singular value."""

    def projected(matrix):
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        return (left * np.minimum(values, STRENGTH * STEP_SIZE)[None, :]) @ right

    v = tree()
    prox = evaluated(v)["prox"]
    np.testing.assert_allclose(flat(v) - flat(prox["joint"]), projected(flat(v)), atol=1e-13)
    each = np.concatenate([projected(flat(v)[:, :1]), projected(flat(v)[:, 1:])], 1)
    np.testing.assert_allclose(flat(v) - flat(prox["each"]), each, atol=1e-13)


def test_prox_minimizes_what_it_says():
    v = tree()
    x = cp.Variable((TASKS, 7))
    objective = 0.5 * cp.sum_squares(x - flat(v)) + STEP_SIZE * STRENGTH * cp.normNuc(x)
    cp.Problem(cp.Minimize(objective)).solve(solver="CLARABEL")
    np.testing.assert_allclose(flat(evaluated(v)["prox"]["joint"]), x.value, atol=1e-6)


def test_strength_goes_from_the_identity_to_exact_zeros():
    v = tree()
    nothing, some, everything = (evaluated(v, strength) for strength in (0.0, STRENGTH, 1e3))
    for name in ("each", "joint"):
        np.testing.assert_allclose(flat(nothing["prox"][name]), flat(v), rtol=1e-14, atol=1e-14)
        assert not flat(everything["prox"][name]).any()
    for name, (value, _) in some["values"].items():
        assert nothing["values"][name][0] == 0
        assert everything["values"][name][0] == pytest.approx(1e3 / STRENGTH * value, rel=1e-14)


def test_equal_tasks_are_one_direction():
    w = {k: np.broadcast_to(leaf[:1], leaf.shape) for k, leaf in tree().items()}
    value, gradient = evaluated(w)["values"]["joint"]
    length = np.linalg.norm(flat(w)[0])
    assert value == pytest.approx(STRENGTH * np.sqrt(TASKS) * length, rel=1e-14)
    np.testing.assert_allclose(flat(gradient), STRENGTH * flat(w) / length / np.sqrt(TASKS), atol=1e-13)


def test_the_gradient_at_zero_is_zero():
    values = evaluated({k: np.zeros_like(leaf) for k, leaf in tree().items()})["values"]
    for value, gradient in values.values():
        assert value == 0 and not flat(gradient).any()


def test_a_sum_of_parts_penalizes_each_by_its_own():
    low_rank = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    other = np.array([[3.0, 0.0, -4.0], [0.6, 0.8, 0.0]], np.float32)
    cases = [
        (sparse_low_rank(0.5, 2.0), "sparse", 7.0 + 1.4, [[2.0, 0.0, -3.0], [0.0, 0.0, 0.0]]),
        (robust(0.5, 2.0), "outliers", 5.0 + 1.0, 0.8 * other * [[1.0], [0.0]]),
    ]
    left, values, right = np.linalg.svd(low_rank, full_matrices=False)
    found = jax.jit(
        lambda: [
            (penalty(parts), penalty.prox(parts, 0.5))
            for penalty, name, *_ in cases
            for parts in [{"low_rank": jnp.asarray(low_rank), name: jnp.asarray(other)}]
        ]
    )()
    for (penalty, name, value, thresholded), (total, prox) in zip(cases, found, strict=True):
        assert penalty.parts == ("low_rank", name)
        assert float(total) == pytest.approx(0.5 * nuclear(low_rank) + 2.0 * value, rel=1e-6)
        np.testing.assert_allclose(prox[name], thresholded, atol=1e-6)
        np.testing.assert_allclose(prox["low_rank"], (left * (values - 0.25)[None, :]) @ right, atol=1e-6)


@pytest.mark.slow
def test_robust_decomposition_finds_the_outlier():
    """Five tasks along one line and one across it: the line is the low-rank part, the outlier alone in the other."""
    data = np.outer([1.0, -2.0, 1.5, 1.0, 0.0, 2.0], [1.0, 1.0, 0.0, 1.0])
    data[4] = [0.0, 3.0, -3.0, -3.0]
    data, penalty = jnp.asarray(data, jnp.float32), robust(0.5, 0.4)

    @jax.jit
    def descended(parts):
        def step(_, parts):
            residual = parts["low_rank"] + parts["outliers"] - data
            return penalty.prox({k: x - 0.5 * residual for k, x in parts.items()}, 0.5)

        return jax.lax.fori_loop(0, 300, step, parts)

    found = descended({"low_rank": jnp.zeros_like(data), "outliers": jnp.zeros_like(data)})
    assert np.linalg.matrix_rank(found["low_rank"], tol=1e-3) == 1
    assert np.flatnonzero(np.linalg.norm(found["outliers"], axis=1) > 1e-3).tolist() == [4]


ALL = {
    "trace_norm": trace_norm,
    "tucker_trace_norm": tucker_trace_norm,
    "tensor_train_trace_norm": tensor_train_trace_norm,
    "clustered": lambda strength: clustered(2, strength),
    "alternating_structure": lambda strength: alternating_structure(2, strength),
    "learned_relation": learned_relation,
}


@pytest.mark.parametrize("name", ALL)
def test_a_tree_without_leaves_costs_nothing(name):
    penalty = ALL[name](1.0)
    assert float(penalty({})) == 0.0
    assert penalty.prox is None or penalty.prox((), 0.1) == ()


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: trace_norm(-1.0), ValueError, "trace_norm: strength must be at least 0, found -1.0"),
        (lambda: trace_norm().prox(jnp.ones(2), -0.1), ValueError, "trace_norm: step_size must be at least 0"),
        (lambda: tucker_trace_norm()(jnp.ones(2, int)), TypeError, "tucker_trace_norm: leaf  must be of a floating"),
        (lambda: robust(1.0, -1.0), ValueError, "robust: strength_outliers must be at least 0"),
        (
            lambda: robust()(jnp.ones(2)),
            TypeError,
            "robust: stacked must be a dict by part of ['low_rank', 'outliers'], found ArrayImpl",
        ),
        (
            lambda: sparse_low_rank()({"low_rank": jnp.ones(2), "outliers": jnp.ones(2)}),
            ValueError,
            "sparse_low_rank: stacked must have the parts ['low_rank', 'sparse']",
        ),
        (
            lambda: sparse_low_rank()({"low_rank": jnp.ones(2), "sparse": jnp.ones(3)}),
            ValueError,
            "sparse_low_rank: the parts must have one structure and shape, found (2,) and (3,)",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)

"""Singular values and what is built on them alone, against NumPy's SVD and finite differences in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mtljax.penalties import singular_values as spectral

TASKS, WIDTH = 5, 8


def with_values(values, *, width=WIDTH, seed=0):
    random = np.random.default_rng(seed)
    left = np.linalg.qr(random.normal(size=(len(values), len(values))))[0]
    right = np.linalg.qr(random.normal(size=(width, len(values))))[0]
    return (left * np.asarray(values)[None, :]) @ right.T


def split(matrix):
    """[5, 8] as a kernel [5, 3, 2], a bias [5] and a scale [5, 1]."""
    return {"b": matrix[:, 6], "s": matrix[:, 7:], "w": matrix[:, :6].reshape(-1, 3, 2)}


def flat(tree):
    return np.concatenate([np.asarray(tree[k], np.float64).reshape(len(tree[k]), -1) for k in ("w", "b", "s")], axis=1)


MATRICES = {
    "distinct": with_values([4.0, 3.0, 2.0, 1.0, 0.5]),
    "repeated": with_values([3.0, 3.0, 2.0, 2.0, 0.5]),
    "all equal": with_values([2.0] * 5),
    "low rank": with_values([3.0, 1.0, 0.0, 0.0, 0.0]),
    "equal tasks": np.broadcast_to(np.linspace(-1, 2, WIDTH), (TASKS, WIDTH)),
    "graded": with_values([1.0, 1e-3, 1e-6, 1e-9, 1e-12]),
    "zero": np.zeros((TASKS, WIDTH)),
}
DIRECTION = with_values(np.ones(5), seed=1)
SHARE = 0.1  # of the sum of the singular values, which `softer` takes off each
over_matrices = pytest.mark.parametrize("name", MATRICES)
smooth = pytest.mark.parametrize("name", ["distinct", "repeated", "all equal"])


def power(tree):
    """A smooth symmetric function of the singular values, so that its gradient exists wherever none is 0."""
    return jnp.sum(spectral.singular_values(tree) ** 1.5)


def softer(tree, threshold):
    """The singular values less a share of their sum: each moves with all others."""
    return spectral.rescale(tree, lambda sigma: spectral.lowering(threshold * jnp.sum(sigma)))


@jax.jit
def step(matrix):
    return spectral.singular_values(matrix), jax.grad(power)(matrix), softer(matrix, SHARE)


@jax.jit
def everything(tree, direction, weights, by):
    """One program for all that is asked in float64: compiling costs more than all of the runs."""
    share = jnp.full_like(by, SHARE)
    changed, tangent = jax.jvp(softer, (tree, share), (direction, by))
    pulled = jax.vjp(lambda tree: softer(tree, share), tree)[1](weights)[0]
    return spectral.singular_values(tree), jax.grad(power)(tree), changed, tangent, pulled


def asked(name, *, moved=0.0, by=0.0):
    with jax.enable_x64(True):
        tree = split(MATRICES[name] + moved * DIRECTION)
        weights = split(with_values(np.ones(5), seed=2))
        return jax.tree.map(np.asarray, everything(tree, split(DIRECTION), weights, jnp.array(by)))


@over_matrices
def test_values_and_gradient_equal_those_of_an_svd(name):
    values, gradient, *_ = asked(name)
    left, expected, right = np.linalg.svd(MATRICES[name], full_matrices=False)
    np.testing.assert_allclose(values, expected, atol=1e-14 * max(expected[0], 1e-300))
    np.testing.assert_allclose(
        flat(gradient), (left * 1.5 * np.sqrt(expected)[None, :]) @ right, atol=2e-8 * max(expected[0], 1.0) ** 0.5
    )


@over_matrices
def test_rescale_applies_its_factor_to_each_singular_value(name):
    changed = asked(name)[2]
    left, values, right = np.linalg.svd(MATRICES[name], full_matrices=False)
    expected = (left * np.maximum(values - SHARE * values.sum(), 0.0)[None, :]) @ right
    np.testing.assert_allclose(flat(changed), expected, atol=1e-13)


@smooth
def test_the_gradient_equals_finite_differences(name):
    step = 1e-5
    ahead, behind = (np.sum(asked(name, moved=s)[0] ** 1.5) for s in (step, -step))
    assert np.sum(flat(asked(name)[1]) * DIRECTION) == pytest.approx((ahead - behind) / (2 * step), rel=1e-8)


@smooth
def test_the_derivative_of_rescale_equals_finite_differences(name):
    step = 1e-5
    # The sum that the threshold is a share of moves too.
    ahead, behind = (flat(asked(name, moved=s)[2]) for s in (step, -step))
    np.testing.assert_allclose(flat(asked(name)[3]), (ahead - behind) / (2 * step), atol=1e-8)


def test_rescale_is_differentiable_in_what_its_factor_closes_over():
    left, values, right = np.linalg.svd(MATRICES["repeated"], full_matrices=False)
    tangent = asked("repeated", by=1.0)[3]
    kept = values > SHARE * values.sum()
    expected = flat(asked("repeated")[3]) - (left * (kept * values.sum())[None, :]) @ right
    np.testing.assert_allclose(flat(tangent), expected, atol=1e-12)


def test_forward_and_reverse_derivatives_of_rescale_agree():
    *_, tangent, pulled = asked("repeated")
    weights = with_values(np.ones(5), seed=2)
    assert np.sum(weights * flat(tangent)) == pytest.approx(np.sum(flat(pulled) * DIRECTION), rel=1e-12)


@pytest.mark.parametrize("function", [power, lambda w: jnp.sum(softer(w, 0.1))])
def test_second_derivatives_are_refused(function):
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        jax.eval_shape(jax.hessian(function), jnp.eye(2))


def test_small_singular_values_survive_in_float32():
    size, eps = 32, 2.0**-23
    # One Gramian loses whatever is below 3e-4.
    exact = np.concatenate([np.geomspace(1.0, 1e-5, 16), np.zeros(16)])
    matrix = jnp.asarray(with_values(exact, width=100), jnp.float32)
    oracle = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
    decompose = jax.jit(spectral.decompose)
    left, values = decompose(matrix)
    np.testing.assert_allclose(values, oracle, atol=20 * eps)
    # Exactly: rounding is not taken for a direction.
    assert np.count_nonzero(decompose(jnp.broadcast_to(matrix[:1], matrix.shape)).values) == 1
    left = np.asarray(left, np.float64)
    np.testing.assert_allclose(left.T @ left, np.eye(size), atol=40 * eps)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_singular_values_scale_with_the_matrix(scale):
    scaled = jnp.asarray(scale * MATRICES["low rank"], jnp.float32)
    values, _, changed = step(scaled)
    np.testing.assert_allclose(values / scale, [3.0, 1.0, 0.0, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(jnp.linalg.svd(changed, compute_uv=False) / scale, [2.6, 0.6, 0.0, 0.0, 0.0], atol=1e-6)


def test_one_task_is_a_norm():
    row = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
    length = np.linalg.norm(row)
    values, gradient, changed = step(row)
    np.testing.assert_allclose(values, [length], rtol=1e-6)
    np.testing.assert_allclose(gradient, 1.5 * row / np.sqrt(length), rtol=1e-6)
    np.testing.assert_allclose(changed, (1 - SHARE) * row, rtol=1e-6)


def test_more_tasks_than_parameters_in_half_precision_under_vmap():
    pair = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 2)), jnp.bfloat16)
    found, gradients, changed = jax.jit(jax.vmap(step))(pair)
    assert (found.dtype, gradients.dtype, changed.dtype) == (jnp.float32, jnp.bfloat16, jnp.bfloat16)
    left, values, right = np.linalg.svd(np.asarray(pair, np.float64), full_matrices=False)
    np.testing.assert_allclose(found, np.pad(values, ((0, 0), (0, 4))), rtol=1e-6)
    lowered = values - SHARE * values.sum(1)[:, None]
    half = {"rtol": 2.0**-8, "atol": 1e-6}  # one rounding, at the end
    np.testing.assert_allclose(gradients.astype(float), left * 1.5 * np.sqrt(values)[:, None, :] @ right, **half)
    np.testing.assert_allclose(changed.astype(float), left * lowered[:, None, :] @ right, **half)


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in equation.params.values():
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                yield from primitives(getattr(inner, "jaxpr", inner))


def test_a_step_decomposes_once():
    w = jnp.asarray(MATRICES["distinct"], jnp.float32)
    for function in (jax.value_and_grad(power), lambda w: softer(w, SHARE)):
        names = list(primitives(jax.make_jaxpr(function)(w).jaxpr))
        assert (names.count("eigh"), names.count("svd")) == (2, 1)


def test_a_sharded_leaf_is_not_gathered():
    mesh = Mesh(np.array(jax.devices()[:8]), ("d",))
    w = jnp.asarray(MATRICES["distinct"], jnp.float32)
    sharded = jax.device_put(w, NamedSharding(mesh, PartitionSpec(None, "d")))
    program = jax.jit(lambda w: (jax.grad(power)(w), softer(w, SHARE))).lower(sharded).compile()
    assert "all-gather" not in program.as_text()
    for found, expected in zip(program(sharded), step(w)[1:], strict=True):
        assert found.sharding.spec == PartitionSpec(None, "d")
        np.testing.assert_allclose(found, expected, atol=1e-5)

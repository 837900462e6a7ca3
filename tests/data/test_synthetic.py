"""Generators: the laws that their docstrings state, at every end of the dial, as functions of their keys alone.

Statistics are held against their expectations by their standard errors: a true statement fails at 4.5 of them once in
150,000 times, and keys are fixed.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mtljax.convex import pad
from mtljax.data.synthetic import clustered_linear, gradnorm_toy, mmoe_toy, noise_task, same_function
from mtljax.types import Batch

KEY, OWN, OTHER = jax.random.key(0), jax.random.key(1), jax.random.key(2)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(100)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def assert_mean(values, expected, errors=4.5):
    """Independent values have this mean."""
    values = np.asarray(values, float).ravel()
    assert len(values) >= 50
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - expected) <= errors * error, (values.mean(), expected, error)


def assert_moments(values, mean, variance):
    """Independent values have this mean and this variance."""
    assert_mean(values, mean)
    assert_mean((np.asarray(values, float) - mean) ** 2, variance)


def labels_of(batch):
    return np.stack([np.asarray(batch.targets[name], float) for name in sorted(batch.targets)])


SCALES = np.array([1.0, 2.0, 100.0], np.float32)


@jax.jit
def gradnorm_drawn(key, example_key, shared, task):
    draw = functools.partial(gradnorm_toy, num_examples=64, scales=SCALES, example_key=example_key)
    return draw(key, 3, shared_variance=shared, task_variance=task)


def tanh_moment(correlation, variance):
    """`E tanh(a) tanh(b)` of normal a and b, by quadrature."""
    a, b = NODES[:, None], correlation * NODES[:, None] + math.sqrt(1 - correlation**2) * NODES[None]
    return np.einsum("i,j,ij->", WEIGHTS, WEIGHTS, np.tanh(variance**0.5 * a) * np.tanh(variance**0.5 * b))


def test_gradnorm_labels_have_the_moments_of_the_paper_s_equation():
    batch = gradnorm_drawn(KEY, OWN, 10.0, 3.5)
    assert batch.inputs.shape == (64, 250) and sorted(batch.targets) == ["task_0", "task_1", "task_2"]
    np.testing.assert_allclose(np.linalg.norm(batch.inputs, axis=1), 1, rtol=1e-6)
    scaled = labels_of(batch) / SCALES[:, None, None]
    assert scaled.shape == (3, 64, 100) and np.abs(scaled).max() <= 1
    # Given the inputs, rows of the matrices are independent, and so are outputs averaged over examples.
    for k in range(3):
        assert_mean(scaled[k].mean(0), 0)
        assert_mean((scaled[k] ** 2).mean(0), tanh_moment(1.0, 13.5))
        assert_mean((scaled[k] * scaled[k - 1]).mean(0), tanh_moment(10 / 13.5, 13.5))
    # Standard deviations in place of variances would be seen.
    with pytest.raises(AssertionError):
        assert_mean((scaled[0] ** 2).mean(0), tanh_moment(1.0, 10**2 + 3.5**2))


def test_gradnorm_tasks_go_from_equal_to_unrelated():
    equal = labels_of(gradnorm_drawn(KEY, OWN, 10.0, 0.0)) / SCALES[:, None, None]
    np.testing.assert_allclose(equal, equal[:1].repeat(3, 0), rtol=1e-6)
    assert len(np.unique(equal)) > 1000
    unrelated = labels_of(gradnorm_drawn(KEY, OWN, 0.0, 3.5)) / SCALES[:, None, None]
    for k in range(3):
        assert_mean((unrelated[k] * unrelated[k - 1]).mean(0), 0)
        assert_mean((unrelated[k] ** 2).mean(0), tanh_moment(1.0, 3.5))


@pytest.mark.slow
def test_gradnorm_draws_scales_whose_law_is_half_normal():
    draw = functools.partial(gradnorm_toy, num_tasks=11, num_examples=8, num_features=3, num_outputs=4)
    batch = jax.jit(jax.vmap(functools.partial(draw, task_variance=1e8)))(jax.random.split(KEY, 10))
    assert list(batch.targets)[:2] == ["task_00", "task_01"] and sorted(batch.targets) == list(batch.targets)
    scales = np.abs(labels_of(batch)).max((2, 3))  # tanh is 1 there
    assert scipy.stats.kstest(scales.ravel(), scipy.stats.halfnorm(scale=50).cdf).pvalue > 1e-4


@jax.jit
def mmoe_drawn(key, example_key, alpha, beta, noise, scale):
    draw = functools.partial(mmoe_toy, num_features=4, alpha=alpha, beta=beta, noise=noise, scale=scale)
    return jax.vmap(lambda p: draw(key, p=p, num_examples=20_000, example_key=example_key))(P)


P = np.array([-1.0, -0.5, 0.0, 0.5, 0.9, 1.0], np.float32)
ALPHA = np.array([0.5, -1.3, 0.2, 1.7, -0.4], np.float32)
BETA = np.array([0.1, 2.0, -0.7, 0.4, 1.2], np.float32)


def test_mmoe_weights_have_cosine_p_and_length_c():
    """Without sines and noise labels are `w'x`, and least squares finds w, whichever examples were drawn."""
    found = []
    for example_key in (OWN, OTHER):
        batch = mmoe_drawn(KEY, example_key, 0 * ALPHA, 0 * BETA, 0.0, 3.0)
        inputs, labels = np.asarray(batch.inputs, float), labels_of(batch)
        for i, p in enumerate(P.tolist()):
            weights = np.linalg.lstsq(inputs[i], labels[:, i].T)[0].T
            np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 3, rtol=1e-5)
            np.testing.assert_allclose(weights[0] @ weights[1] / 9, p, atol=1e-5)
            found.append(weights)
        for axis in range(4):
            assert_moments(inputs[0, :, axis], 0, 1)
    np.testing.assert_allclose(found[: len(P)], found[len(P) :], atol=1e-5)


def hermite_coefficients(alpha, beta):
    """Of `s + sum_i sin(alpha_i s + beta_i)` in Hermite polynomials normalised for s ~ N(0, 1)."""
    values = NODES + np.sin(np.multiply.outer(NODES, alpha) + beta).sum(-1)
    basis = [np.polynomial.hermite_e.hermeval(NODES, np.eye(30)[j]) / math.sqrt(math.factorial(j)) for j in range(30)]
    return np.stack(basis) @ (WEIGHTS * values)


def test_mmoe_labels_have_the_correlation_that_hermite_s_expansion_gives():
    """Mehler: `E g(s) g(t) = sum_j h_j^2 p^j` for normal s and t of correlation p."""
    all_labels = labels_of(mmoe_drawn(KEY, OWN, ALPHA, BETA, 0.01, 1.0))
    coefficients = hermite_coefficients(ALPHA, BETA)
    for i, p in enumerate(P.tolist()):
        first, second = all_labels[:, i] - coefficients[0]
        powers = (coefficients[1:] ** 2 * p ** np.arange(1, 30)).sum()
        for labels in (first, second):
            assert_moments(labels, 0, (coefficients[1:] ** 2).sum() + 0.01)
        assert_mean(first * second, powers)
    assert_moments(all_labels[0, -1] - all_labels[1, -1], 0, 0.02)


@pytest.mark.slow
def test_mmoe_correlations_over_drawn_functions_are_those_of_the_docstring():
    """With c = 1 and m = 5; one draw of somebody else's generator is no further from the mean than most."""
    keys, ps = jax.random.split(jax.random.key(1), 256), jnp.array([1.0, 0.9, 0.5, 0.0])
    draw = functools.partial(mmoe_toy, num_examples=500, num_features=2)
    batch = jax.jit(jax.vmap(lambda key: jax.vmap(lambda p: draw(key, p=p))(ps)))(keys)
    first, second = (np.asarray(batch.targets[k], float) for k in ("task_0", "task_1"))
    found = scipy.stats.pearsonr(first, second, axis=-1).statistic
    means, theirs = (0.988, 0.817, 0.362, 0.0), (0.993, 0.775, 0.319, -0.001)
    for each, mean, one in zip(found.T, means, theirs, strict=True):
        assert abs(each.mean() - mean) < 0.001 + 4.5 * each.std() / 16
        assert abs(each.mean() - one) < each.std()


@jax.jit
def clustered_drawn(key, example_key, within, between, noise):
    return clustered_linear(
        key,
        num_clusters=3,
        tasks_per_cluster=2,
        num_examples=30,
        within=within,
        between=between,
        noise=noise,
        num_features=200,
        example_key=example_key,
    )


def test_clustered_weights_scatter_within_and_between_clusters_as_told():
    made = jax.device_get(clustered_drawn(KEY, OWN, 0.5, 2.0, 0.25))
    assert made.clusters.tolist() == [0, 0, 1, 1, 2, 2] and made.clusters.dtype == np.int32
    weights = np.asarray(made.weights, float)
    for cluster in range(3):
        one, other = weights[2 * cluster], weights[2 * cluster + 1]
        assert_moments(one - other, 0, 2 * 0.5)
        assert_moments(one, 0, 2.5)
        assert_mean(one * other, 2.0)
        assert_moments(one - weights[2 * cluster - 1], 0, 2 * 2.5)
    names = sorted(made.batches)
    residuals = []
    for name, w in zip(names, weights, strict=True):
        batch = made.batches[name]
        assert batch.inputs.shape == (30, 200) and list(batch.targets) == [name]
        assert_moments(batch.inputs, 0, 1)
        residuals.append(np.asarray(batch.targets[name], float) - np.asarray(batch.inputs, float) @ w)
    assert_moments(residuals, 0, 0.25)
    rows = pad({k: made.batches[k].inputs for k in names}, {k: made.batches[k].targets[k] for k in names})
    assert rows.targets.shape == (6, 30) and len(np.unique(rows.inputs[..., 0])) == 6 * 30


def test_clustered_tasks_go_from_identical_to_unrelated():
    weights = np.asarray(clustered_drawn(KEY, OWN, 0.0, 2.0, 0.0).weights)
    np.testing.assert_array_equal(weights[0::2], weights[1::2])
    unrelated = np.asarray(clustered_drawn(KEY, OWN, 1.0, 0.0, 0.0).weights, float)
    assert_mean(unrelated[0] * unrelated[1], 0)
    exact = jax.device_get(clustered_drawn(KEY, OWN, 1.0, 1.0, 0.0))
    batch = exact.batches["task_3"]
    np.testing.assert_allclose(batch.targets["task_3"], batch.inputs @ exact.weights[3], atol=1e-3)


@jax.jit
def same_drawn(key, example_key, noise):
    draw = functools.partial(same_function, num_tasks=3, noise=noise, num_examples=5_000, num_features=6)
    return jax.vmap(lambda *keys: draw(keys[0], example_key=keys[1]))(
        *(jax.random.split(k, 8) for k in (key, example_key))
    )


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_same_function_labels_have_variance_1_and_correlation_1_minus_noise(noise):
    drawn = labels_of(same_drawn(KEY, OWN, noise))
    for labels in drawn.swapaxes(0, 1):
        for k in range(3):
            assert_moments(labels[k], 0, 1)
            assert_mean(labels[k] * labels[k - 1], 1 - noise)
        if noise == 0:
            np.testing.assert_array_equal(labels, labels[:1].repeat(3, 0))
    if noise == 0:  # not one function for all keys
        assert np.unique(drawn[0, :, 0]).size == 8


def test_noise_labels_are_normal_or_uniform_and_owe_nothing_to_the_inputs():
    inputs = np.random.default_rng(0).normal(size=(5_000, 2))
    batch = Batch(inputs, {"a": inputs[:, 0]}, {"a": inputs[:, 0] > 0})
    noisy = noise_task(batch, KEY)
    assert noisy.inputs is inputs and noisy.targets["a"] is batch.targets["a"] and noisy.mask is batch.mask
    assert sorted(noisy.targets) == ["a", "noise"] and list(batch.targets) == ["a"]
    noise = np.asarray(noisy.targets["noise"], float)
    assert scipy.stats.kstest(noise, scipy.stats.norm.cdf).pvalue > 1e-4
    assert_mean(noise * inputs[:, 0], 0)
    classes = np.asarray(noise_task(batch, KEY, task="b", shape=(2,), num_classes=3).targets["b"])
    assert classes.shape == (5_000, 2) and classes.dtype == np.int32
    table = np.zeros((3, 3))
    np.add.at(table, tuple(classes.T), 1)
    assert scipy.stats.chisquare(table.ravel()).pvalue > 1e-4


DRAWN = {
    "gradnorm_toy": lambda *keys: gradnorm_drawn(*keys, 10.0, 3.5),
    "mmoe_toy": lambda *keys: mmoe_drawn(*keys, ALPHA, BETA, 0.01, 1.0),
    "clustered_linear": lambda *keys: clustered_drawn(*keys, 0.5, 2.0, 0.25),
    "same_function": lambda *keys: same_drawn(*keys, 0.3),
}


@pytest.mark.parametrize("name", DRAWN)
def test_tasks_come_from_the_key_and_examples_from_theirs(name):
    """In the programs that the tests above compiled."""
    made = [jax.device_get(DRAWN[name](*keys)) for keys in ((KEY, OWN), (KEY, OTHER), (OTHER, OWN))]
    batches = [[drawn] if isinstance(drawn, Batch) else list(drawn.batches.values()) for drawn in made]
    for ours, other_rows, other_tasks in zip(*batches, strict=True):
        np.testing.assert_array_equal(ours.inputs, other_tasks.inputs)
        assert np.isclose(ours.inputs, other_rows.inputs).mean() < 0.01
        for task, labels in ours.targets.items():
            assert np.isclose(labels, other_rows.targets[task]).mean() < 0.05  # at the ends of tanh some are equal
            assert np.isclose(labels, other_tasks.targets[task]).mean() < 0.05
    if name == "clustered_linear":
        np.testing.assert_array_equal(made[0].weights, made[1].weights)
        assert not np.isclose(made[0].weights, made[2].weights).all()

"""Gaussian processes against a float64 implementation in NumPy, scikit-learn, finite differences, and each other."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from mtljax import gaussian_process as gp

TASKS, ROWS, FEATURES, ASKED = 4, 18, 3, 5


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def observations():
    """Task 2 has one row, task 3 none; masked rows hold NaN and a task number out of range."""
    random = np.random.default_rng(0)
    x, tasks = random.normal(size=(ROWS, FEATURES)), random.integers(0, 2, ROWS)
    tasks[7] = 2
    y = 3.0 + np.sin(x.sum(1)) * (1 + tasks) + 0.3 * random.normal(size=ROWS)
    mask = random.random(ROWS) < 0.8
    mask[7] = True
    x[~mask], y[~mask], tasks[~mask] = np.nan, np.nan, 99
    return gp.Observations(x, tasks, y, mask)


def hyperparameters(kernel="sum", rank=2, **given):
    draw = np.random.default_rng(1).normal
    parts = (draw(size=FEATURES), draw(size=FEATURES))
    params = {"rbf": parts[0], "linear": parts[1], "sum": gp.SumParams(draw(size=2), parts)}[kernel]
    mean, factor, log_kappa, log_noise = (draw(size=size) for size in (TASKS, (TASKS, rank), TASKS, TASKS))
    return gp.Hyperparameters(3.0 + mean, factor, log_kappa, log_noise - 1.0, params)._replace(**given)


def without_linear(log_scales):
    """The sum of kernels with weights 1 and 0."""
    return gp.SumParams(np.array([0.0, -np.inf]), (log_scales, np.zeros(FEATURES)))


def questions():
    return np.random.default_rng(9).normal(size=(ASKED, FEATURES)), np.arange(ASKED) % TASKS


# The model, written out in float64.


def exact_kernel(name, params, a, b):
    if name == "sum":
        parts = zip(np.exp(params.log_weights), ("rbf", "linear"), params.parts, strict=True)
        return sum(weight * exact_kernel(kernel, part, a, b) for weight, kernel, part in parts)
    scales = np.exp(params)
    if name == "linear":
        return (a / scales) @ (b / scales).T
    return np.exp([[-0.5 * np.sum(((x - z) / scales) ** 2) for z in b] for x in a])


def between_tasks(params):
    return params.factor @ params.factor.T + np.diag(np.exp(params.log_kappa))


def exact(params, data, inputs=None, tasks=None, kernel="sum"):
    """The log marginal likelihood, or mean and variance at new inputs, by explicit inverses, without masked rows."""
    keep = np.ones(len(data.tasks), bool) if data.mask is None else data.mask
    x, t, y = (np.asarray(leaf)[keep] for leaf in data[:3])
    b = between_tasks(params)
    mean = np.broadcast_to(params.mean, len(b))
    covariance = b[np.ix_(t, t)] * exact_kernel(kernel, params.kernel, x, x) + np.diag(np.exp(params.log_noise)[t])
    if inputs is None:
        quadratic = (y - mean[t]) @ np.linalg.inv(covariance) @ (y - mean[t])
        return -0.5 * (quadratic + np.linalg.slogdet(covariance)[1] + len(y) * np.log(2 * np.pi))
    cross = b[np.ix_(tasks, t)] * exact_kernel(kernel, params.kernel, inputs, x)
    own = b[tasks, tasks] * np.diag(exact_kernel(kernel, params.kernel, inputs, inputs))
    solved = cross @ np.linalg.inv(covariance)
    return mean[tasks] + solved @ (y - mean[t]), own - np.sum(solved * cross, axis=1)


@jax.jit
def dense(params, data, inputs, tasks):
    """Likelihood, its gradient, and predictions, in one program."""
    options = {"kernel": gp.sum_of(gp.rbf(), gp.linear()), "jitter": 0.0}
    likelihood = jax.value_and_grad(functools.partial(gp.log_marginal_likelihood, **options))(params, data)
    return likelihood, gp.predict(params, data, inputs, tasks, **options)


@functools.partial(jax.jit, static_argnames="gradient")
def linear(params, data, inputs, tasks, *, gradient=False):
    data = gp.linear_statistics(data, TASKS)
    likelihood = (jax.value_and_grad if gradient else lambda f: f)(gp.linear_log_likelihood)(params, data)
    return likelihood, gp.linear_predict(params, data, inputs, tasks)


@jax.jit
def complete(params, data, inputs):
    return jax.value_and_grad(gp.block_log_likelihood)(params, data), gp.block_predict(params, data, inputs)


def agree(found, expected, rtol=1e-9):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


def check_gradient(value, gradient, params):
    """Along one direction of each leaf, against differences of `value(params)`."""
    leaves, structure = jax.tree.flatten(params)
    for index, leaf in enumerate(leaves):
        along = np.random.default_rng(index).normal(size=leaf.shape)

        def at(step, index=index, leaf=leaf, along=along):
            return value(jax.tree.unflatten(structure, [*leaves[:index], leaf + step * along, *leaves[index + 1 :]]))

        expected = (8 * (at(1e-3) - at(-1e-3)) - (at(2e-3) - at(-2e-3))) / 12e-3
        np.testing.assert_allclose(np.sum(jax.tree.leaves(gradient)[index] * along), expected, rtol=1e-7, atol=1e-7)


def test_likelihood_gradient_and_posterior_are_the_models(x64):
    data, asked, params = observations(), questions(), hyperparameters()
    (likelihood, gradient), predicted = dense(params, data, *asked)
    assert likelihood.dtype == predicted.mean.dtype == jnp.float64
    agree([likelihood], [exact(params, data)], 1e-11)
    agree(predicted, exact(params, data, *asked))
    check_gradient(lambda params: exact(params, data), gradient, params)


def test_nothing_observed_leaves_the_prior(x64):
    params, (inputs, tasks) = hyperparameters(), questions()
    (likelihood, _), predicted = dense(params, observations()._replace(mask=np.zeros(ROWS, bool)), inputs, tasks)
    own = np.diag(exact_kernel("sum", params.kernel, inputs, inputs))
    agree(predicted, (params.mean[tasks], np.diagonal(between_tasks(params))[tasks] * own), 1e-12)
    assert likelihood == 0


def test_unrelated_tasks_are_processes_of_their_own(x64):
    data, (inputs, tasks) = observations(), questions()
    params = hyperparameters(factor=np.zeros((TASKS, 2)), log_kappa=np.zeros(TASKS))
    total, expected = 0.0, np.zeros((2, ASKED))
    for task in range(TASKS):
        alone = data._replace(mask=data.mask & (data.tasks == task))
        total += exact(params, alone)
        expected[:, tasks == task] = exact(params, alone, inputs[tasks == task], tasks[tasks == task])
    (likelihood, _), predicted = dense(params, data, inputs, tasks)
    agree([likelihood], [total], 1e-11)
    agree(predicted, expected)


def test_one_task_is_scikit_learns_process(x64):
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    data, (inputs, tasks) = observations(), questions()
    log_scales = np.array([0.3, -0.2, 0.1])
    params = hyperparameters(mean=np.zeros(TASKS))._replace(kernel=without_linear(log_scales))
    data = data._replace(tasks=0 * data.tasks)
    kernel = ConstantKernel(between_tasks(params)[0, 0]) * RBF(np.exp(log_scales))
    peer = GaussianProcessRegressor(kernel, alpha=np.exp(params.log_noise[0]), optimizer=None)
    peer.fit(data.inputs[data.mask], data.targets[data.mask])
    (likelihood, _), predicted = dense(params, data, inputs, 0 * tasks)
    agree([likelihood], [peer.log_marginal_likelihood_value_], 1e-11)
    mean, deviation = peer.predict(inputs, return_std=True)
    agree(predicted, (mean, deviation**2))


def block():
    draw = np.random.default_rng(3).normal
    return gp.Block(draw(size=(6, FEATURES)), draw(size=(6, TASKS)))


@pytest.mark.parametrize("alike", [False, True], ids=["", "tasks alike"])
def test_a_block_is_its_rows(x64, alike):
    # Where tasks are alike B has equal eigenvalues, and its eigenvectors no derivative.
    same = {"factor": np.ones((TASKS, 2)), "log_kappa": np.zeros(TASKS), "log_noise": np.zeros(TASKS)}
    params, (inputs, _) = hyperparameters("rbf", **(same if alike else {})), questions()
    rows = gp.block_observations(block())
    (likelihood, gradient), predicted = complete(params, block(), inputs)
    agree([likelihood], [exact(params, rows, kernel="rbf")], 1e-11)
    check_gradient(lambda params: exact(params, rows, kernel="rbf"), gradient, params)
    for task in range(TASKS):
        agree((leaf[:, task] for leaf in predicted), exact(params, rows, inputs, np.full(ASKED, task), "rbf"))


@pytest.mark.parametrize("rank", [2, *(pytest.param(rank, marks=pytest.mark.slow) for rank in (0, 1, TASKS))])
def test_weight_space_is_function_space(x64, rank):
    data, asked, params = observations(), questions(), hyperparameters("linear", rank)
    likelihood, predicted = linear(params, data, *asked)
    agree([likelihood], [exact(params, data, kernel="linear")], 1e-11)
    agree(predicted, exact(params, data, *asked, "linear"))


@pytest.mark.slow
def test_weight_space_has_function_spaces_gradient(x64):
    data, params = observations(), hyperparameters("linear")
    (_, gradient), _ = linear(params, data, *questions(), gradient=True)
    check_gradient(lambda params: exact(params, data, kernel="linear"), gradient, params)


@pytest.mark.slow
def test_fitting_reaches_the_maximum_whatever_the_units(x64):
    data = observations()

    @jax.jit
    @jax.vmap
    def fit(data):
        start = gp.init(data, TASKS)
        return gp.fit(start, data, tolerance=1e-6), start

    stretched, broken = data._replace(targets=1e3 * data.targets), data._replace(targets=np.nan * data.targets)
    found = jax.tree.map(np.asarray, fit(jax.tree.map(lambda *leaves: np.stack(leaves), data, stretched, broken)))
    (fitted, start), (stretched, _), (broken, _) = (jax.tree.map(lambda leaf, i=i: leaf[i], found) for i in range(3))
    targets = [data.targets[data.mask & (data.tasks == task)] for task in range(TASKS)]
    mean, pooled = np.mean(data.targets[data.mask]), np.var(data.targets[data.mask])
    agree(2 * np.exp(start.log_noise), [(np.sum((own - mean) ** 2) + 2 * pooled) / (len(own) + 2) for own in targets])
    assert not broken.converged and broken.evaluations == 1
    assert fitted.converged and fitted.gradient <= 1e-6
    agree([fitted.log_likelihood], [exact(fitted.params, data, kernel="rbf")])
    assert fitted.log_likelihood > exact(start, data, kernel="rbf") + 3
    agree([stretched.log_likelihood], [fitted.log_likelihood - data.mask.sum() * np.log(1e3)], 1e-6)
    np.testing.assert_allclose(stretched.params.log_noise[0], fitted.params.log_noise[0] + np.log(1e6), rtol=1e-4)
    # Another optimiser, from somewhere else, comes to no more.
    flat, unravel = ravel_pytree(fitted.params)
    loss = jax.jit(jax.value_and_grad(lambda flat: -gp.log_marginal_likelihood(unravel(flat), data)))
    peer = minimize(lambda flat: tuple(map(np.asarray, loss(flat))), flat + 0.3, jac=True, method="L-BFGS-B")
    assert -peer.fun <= fitted.log_likelihood + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dense", "linear"])
def test_float32_is_right_to_what_the_docstring_says(x64, form):
    random = np.random.default_rng(0)
    x, tasks = random.normal(size=(1000, FEATURES)), random.integers(0, TASKS, 1000)
    signal = np.sin(x.sum(1)) if form == "dense" else x.sum(1)
    data = gp.Observations(x, tasks, signal + np.sqrt(0.1) * random.normal(size=1000))
    scales = np.full(FEATURES, 0.5)
    params = hyperparameters(log_noise=np.full(TASKS, np.log(0.1)))
    params = params._replace(kernel=scales if form == "linear" else without_linear(scales))
    run = dense if form == "dense" else functools.partial(linear, gradient=True)
    wide = (params, data, *questions())
    narrow = jax.tree.map(lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf, wide)
    (found, slopes), predicted = run(*narrow)
    (expected, right_slopes), right = run(*wide)
    assert found.dtype == jnp.float32
    for rtol, one, other in ((1e-5, found, expected), (1e-3, slopes, right_slopes), (1e-4, predicted, right)):
        for leaf, wanted in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            assert np.abs(leaf - wanted).max() <= rtol * np.abs(wanted).max()


def test_the_default_jitter_keeps_smooth_noiseless_processes_positive_definite():
    x = np.linspace(0, 1, 200, dtype=np.float32)
    data = gp.Observations(x[:, None], np.arange(200) % TASKS, x)
    small = np.full(TASKS, -40.0)
    params = hyperparameters(log_noise=small, log_kappa=small)._replace(kernel=np.full(1, 5.0))
    assert np.isfinite(jax.jit(gp.log_marginal_likelihood)(params, data))


def test_task_numbers_out_of_range_are_never_silent(x64):
    data, (inputs, tasks) = observations(), questions()
    with pytest.raises(ValueError, match="log_marginal_likelihood: tasks must be from 0 to 3, found 99"):
        gp.log_marginal_likelihood(hyperparameters(), data._replace(mask=None))
    tasks[2] = -1
    _, predicted = dense(hyperparameters(), data, inputs, tasks)
    assert [np.isnan(leaf).tolist() for leaf in predicted] == 2 * [[False, False, True, False, False]]
    wrong = data._replace(tasks=np.where(data.mask, np.where(data.tasks == 1, 4, 0), 99))
    assert np.isnan(dense(hyperparameters(), wrong, *questions())[0][0])
    assert np.isnan(linear(hyperparameters("linear"), wrong, *questions())[0])


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            ValueError,
            r"targets must have shape \(18,\), found \(17,\)",
            lambda data, params: gp.init(data._replace(targets=data.targets[1:]), TASKS),
        ),
        (
            TypeError,
            "tasks must be of type integer, found float",
            lambda data, params: gp.init(data._replace(tasks=data.targets), TASKS),
        ),
        (ValueError, "init: rank must be from 0 to 4, found 5", lambda data, params: gp.init(data, TASKS, rank=5)),
        (
            ValueError,
            "jitter must be at least 0, found -1",
            lambda data, params: gp.log_marginal_likelihood(params, data, jitter=-1),
        ),
        (
            ValueError,
            r"log_noise must have shape \(4,\), found \(\)",
            lambda data, params: gp.log_marginal_likelihood(params._replace(log_noise=np.zeros(())), data),
        ),
        (
            ValueError,
            r"predict: inputs must have shape \[N, 3\], found \(5, 2\)",
            lambda data, params: jax.eval_shape(gp.predict, params, data, questions()[0][:, :2], questions()[1]),
        ),
        (
            ValueError,
            r"rbf: .* found \(18, 3\), \(18, 3\) and \(2,\)",
            lambda data, params: jax.eval_shape(gp.log_marginal_likelihood, params._replace(kernel=np.zeros(2)), data),
        ),
        (
            TypeError,
            r"rbf: expected an array of log scales \[p\], found SumParams",
            lambda data, params: jax.eval_shape(gp.log_marginal_likelihood, hyperparameters(), data),
        ),
        (
            ValueError,
            r"targets \[N, 4\], found \(6, 3\) and \(6, 3\)",
            lambda data, params: gp.block_log_likelihood(params, block()._replace(targets=np.ones((6, 3)))),
        ),
        (
            ValueError,
            "same tasks, found 4 and 3 tasks",
            lambda data, params: gp.linear_log_likelihood(params, gp.LinearStatistics(*6 * [np.zeros((3, 3))])),
        ),
        (ValueError, "sum_of: kernels must be at least one", lambda data, params: gp.sum_of()),
    ],
)
def test_mistakes(error, message, call):
    with pytest.raises(error, match=message):
        call(observations(), hyperparameters("rbf"))

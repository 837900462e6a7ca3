"""Task-wise sharpness-aware minimisation, on losses whose perturbed gradients are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax.methods import aggregate, equal, fixed, fs_mtl, graddrop
from mtljax.methods.from_gramian.config import config
from mtljax.methods.from_jacobian import m_config, trimmed_mean

CURVATURE = {"a": jnp.array([1.0, 4.0]), "b": jnp.array([2.0, 0.5]), "c": jnp.array([1.0, 1.0])}
PARAMS = mtljax.Params(
    {"w": jnp.array([1.0, -2.0])},
    {"a": jnp.array([2.0, 0.5]), "b": jnp.array([-1.0, 3.0]), "c": jnp.array([0.5, -2.5])},
)
MEDIAN, METHOD = trimmed_mean(1), config()


def losses_fn(params):
    """`1/2 (w - t_k)' H_k (w - t_k)`, whose gradient is linear."""
    return {k: 0.5 * jnp.sum(CURVATURE[k] * (params.shared["w"] - params.tasks[k]) ** 2) for k in sorted(params.tasks)}


def sharp(losses_fn, method, **options):
    return mtljax.value_and_grad(losses_fn, fs_mtl(method, **options))


def state_for(method, num_tasks=3):
    return fs_mtl(method).init(num_tasks, PARAMS.shared)


def by_hand(rho, rho_tasks, adaptive):
    """Clean and sharp gradients by w, sharp ones by t_k: all float64."""
    w = np.asarray(PARAMS.shared["w"], np.float64)
    low, flat, heads = [], [], {}
    for k in "abc":
        h, t = np.asarray(CURVATURE[k], np.float64), np.asarray(PARAMS.tasks[k], np.float64)
        g = h * (w - t)

        def step(params, gradient, rho):
            scaled = np.abs(params) * gradient if adaptive else gradient
            return rho * (np.abs(params) * scaled if adaptive else scaled) / np.linalg.norm(scaled)

        sharp = h * (w + step(w, g, rho) - t - step(t, -g, rho_tasks))
        low.append(g)
        flat.append(sharp - g)
        heads[k] = -sharp
    return jnp.asarray(low, jnp.float32), jnp.asarray(flat, jnp.float32), heads


@pytest.mark.parametrize(
    ("rho", "rho_tasks", "adaptive"),
    [pytest.param(0.3, 0.1, False, marks=pytest.mark.slow), (0.3, 0.1, True), (0.5, None, False)],
)
def test_low_and_flat_are_reconciled_apart(rho, rho_tasks, adaptive):
    low, flat, heads = by_hand(rho, rho if rho_tasks is None else rho_tasks, adaptive)
    f = jax.jit(sharp(losses_fn, MEDIAN, rho=rho, rho_tasks=rho_tasks, adaptive=adaptive))
    losses, grads, _ = f(PARAMS, state_for(MEDIAN))
    expected = aggregate(MEDIAN, low) + aggregate(MEDIAN, flat)
    np.testing.assert_allclose(grads.shared["w"], expected, rtol=1e-4, atol=1e-5)
    for k in "abc":
        np.testing.assert_allclose(losses[k], losses_fn(PARAMS)[k], rtol=1e-6)
        np.testing.assert_allclose(grads.tasks[k], heads[k], rtol=1e-4, atol=1e-5)


def test_a_radius_of_zero_is_the_method_itself():
    f = jax.jit(sharp(losses_fn, MEDIAN, rho=0.0))
    _, grads, _ = f(PARAMS, state_for(MEDIAN))
    _, expected, _ = mtljax.value_and_grad(losses_fn, MEDIAN)(PARAMS, MEDIAN.init(3))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), grads, expected)


def test_weights_reach_heads_where_the_method_says_so():
    weights = [0.5, 2.0, 3.0]
    _, _, heads = by_hand(0.05, 0.05, False)
    _, grads, _ = jax.jit(sharp(losses_fn, fixed(weights)))(PARAMS, state_for(fixed(weights)))
    for weight, k in zip(weights, "abc", strict=True):
        np.testing.assert_allclose(grads.tasks[k], weight * heads[k], rtol=1e-4)


@pytest.mark.parametrize("as_array", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_absent_or_broken_task_is_as_good_as_removed(as_array):
    def broken(params):
        losses = losses_fn(params)
        losses["c"] = losses["c"] * jnp.nan
        return losses

    def arrays(params):
        return jnp.stack([losses_fn(params)[k] for k in "abc"])

    fewer = mtljax.Params(PARAMS.shared, {k: PARAMS.tasks[k] for k in "ab"})
    _, expected, _ = jax.jit(sharp(losses_fn, METHOD))(fewer, state_for(METHOD, 2))
    if as_array:
        f = jax.jit(sharp(arrays, METHOD))
        _, grads, _ = f(PARAMS, state_for(METHOD), active=jnp.array([True, True, False]))
    else:
        losses, grads, _ = jax.jit(sharp(broken, METHOD))(PARAMS, state_for(METHOD))
        assert np.isnan(losses["c"])
    np.testing.assert_allclose(grads.shared["w"], expected.shared["w"], rtol=1e-5)
    for k in "ab":
        np.testing.assert_allclose(grads.tasks[k], expected.tasks[k], rtol=1e-5)
    np.testing.assert_array_equal(grads.tasks["c"], 0)


def test_without_a_sound_task_nothing_moves():
    method = mtljax.methods.uncertainty()
    state = state_for(method)
    broken = lambda params: {k: jnp.nan * v for k, v in losses_fn(params).items()}  # noqa: E731
    _, grads, after = jax.jit(sharp(broken, method))(PARAMS, state)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(grads))
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_aux_keys_zero_gradients_and_narrow_parameters():
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    still = narrow._replace(tasks=dict.fromkeys("abc", narrow.shared["w"]))
    f = jax.jit(mtljax.value_and_grad(lambda params, x: (losses_fn(params), x), fs_mtl(graddrop()), has_aux=True))
    (_, aux), grads, _ = f(still, state_for(graddrop()), 7, key=jax.random.key(0))
    assert aux == 7
    for leaf in jax.tree.leaves(grads):
        assert leaf.dtype == jnp.bfloat16
        np.testing.assert_array_equal(leaf, 0)


MISTAKES = [
    (lambda: fs_mtl(equal(), rho=-1.0), "fs_mtl: rho must be"),
    (lambda: fs_mtl(m_config()), "fs_mtl: method must read .* found m_config, one task's gradient per step"),
    (lambda: fs_mtl(fs_mtl(equal())), r"fs_mtl: method must read .* found fs_mtl\(equal\), batches"),
    (
        lambda: sharp(losses_fn, equal())(PARAMS, equal().init(3)),
        r"fs_mtl\(equal\): state must be what fs_mtl\(equal\)'s init makes",
    ),
    (
        lambda: sharp(losses_fn, equal())(PARAMS, state_for(equal(), 2)),
        r"equal\) was initialised for 2 tasks but params.tasks has \['a', 'b', 'c'\]",
    ),
    (
        lambda: sharp(lambda p: {"a": 0.0}, equal())(PARAMS, state_for(equal())),
        r"losses_fn: losses must be of the tasks .*found \['a'\]",
    ),
    (
        lambda: sharp(lambda p: jnp.zeros(2), equal())(PARAMS, state_for(equal())),
        r"losses_fn: losses must be of shape \(3,\) .*found \(2,\)",
    ),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_named(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()

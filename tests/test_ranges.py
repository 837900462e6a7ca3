"""Gradients of any size: every homogeneous method gives the result at 1 times the scale."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import engines, methods, ranges, training
from tests.methods.table import CASES, over

ROWS = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
SCALES = (2e19, 1e12, 1e-12, 1e-30)
POWERS = (2.0**64, 2.0**42, 2.0**-42, 2.0**-100)
HOMOGENEOUS = [case for case in CASES if case.degree is not None and case.make(2).reads != "losses"]


@functools.cache
def aggregated(name):
    method = next(case for case in CASES if case.name == name).make(2)
    return jax.jit(lambda rows: mtljax.aggregate(method, rows, losses=jnp.array([0.5, 2.0]), key=jax.random.key(0)))


@over(HOMOGENEOUS, at_once=lambda case: case.name in {"pcgrad", "graddrop", "normalize"})
def test_the_update_scales_from_one_end_of_float32_to_the_other(case):
    f = aggregated(case.name)
    expected = np.asarray(f(ROWS), np.float64)
    # Rows times another number are rounded, and bargaining makes more of that than is allowed here. Where weights grow
    # faster than gradients shrink, they leave float32's range first.
    for scale in SCALES if case.degree == 1.0 else POWERS if case.degree >= 0 else POWERS[:3]:
        found = np.asarray(f(ROWS * scale), np.float64) / scale**case.degree
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max(), err_msg=str(scale))


@pytest.mark.parametrize(
    "method",
    [methods.rescale(methods.ntkmtl(), 5.0), methods.clip(methods.ntkmtl(), 1e-3)],
    ids=["rescale", "clip"],
)
def test_a_length_is_that_of_the_gradients_themselves(method):
    f = jax.jit(lambda rows: mtljax.aggregate(method, rows))
    expected = np.asarray(f(ROWS))
    for scale in (2e19, 1e12):
        np.testing.assert_allclose(f(ROWS * scale), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def losses_fn(params, scale):
    hidden = jnp.tanh(params.shared["w"] @ jnp.arange(1.0, 4.0))
    return {k: scale * jnp.sum(hidden * params.tasks[k]) for k in "ab"}


PARAMS = mtljax.Params(
    {"w": 0.1 * jnp.arange(1.0, 7.0).reshape(2, 3)}, {"a": jnp.array([1.0, 2.0]), "b": jnp.array([0.3, -2.0])}
)
ENGINES = {
    "full": engines.full(),
    "chunked": engines.chunked(1),
    "gramian": engines.gramian(),
    "features": engines.features(),
}


@pytest.mark.parametrize(
    "name", [pytest.param(k, marks=[] if k in ("full", "gramian") else pytest.mark.slow) for k in ENGINES]
)
def test_every_engine_scales(name):
    method = methods.pcgrad()
    f = mtljax.value_and_grad(losses_fn, method, engine=ENGINES[name])
    run = jax.jit(lambda scale: f(PARAMS, method.init(2), scale, key=jax.random.key(0))[1].shared["w"])
    expected = np.asarray(run(1.0), np.float64)
    for scale in SCALES:
        found = np.asarray(run(scale), np.float64) / scale
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max(), err_msg=str(scale))


def test_norms_of_the_metrics_are_the_gradients_own():
    def train_losses(params, state, batch, key, train):
        return losses_fn(params, batch), mtljax.Aux(state)

    init, step = training.make_train_step(train_losses, methods.pcgrad(), optax.sgd(0.0))
    state, step = init(PARAMS, key=jax.random.key(0)), jax.jit(step)
    ordinary, large = step(state, jnp.array(1.0))[1], step(state, jnp.array(1e15))[1]
    for name in "ab":
        np.testing.assert_allclose(large["grad_norms"][name] / 1e15, ordinary["grad_norms"][name], rtol=1e-6)
    np.testing.assert_allclose(large["cosines"], ordinary["cosines"], rtol=1e-6)


def test_in_the_comfortable_range_nothing_is_touched():
    found = ranges.gramian(ROWS, num_tasks=2)
    assert float(found.scale) == 1.0
    np.testing.assert_array_equal(found.gramian, mtljax.trees.gramian(ROWS))


def test_rows_far_from_one_another_have_one_scale():
    powers = jnp.array([2.0**64, 2.0**44])
    found = ranges.gramian(ROWS * powers[:, None], num_tasks=2)
    by = found.scale * powers
    np.testing.assert_allclose(found.gramian / by[:, None] / by[None, :], mtljax.trees.gramian(ROWS), rtol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 2.0**64])
def test_a_row_that_is_not_finite_is_named_and_leaves_the_others(factor):
    rows = jnp.concatenate([factor * ROWS, jnp.array([[jnp.nan, 1.0, 2.0], [jnp.inf, 0.0, 0.0]])])
    found = ranges.gramian(rows, num_tasks=4)
    assert found.finite.tolist() == [True, True, False, False]
    scale = float(found.scale) * factor
    np.testing.assert_array_equal(found.gramian[:2, :2] / scale**2, mtljax.trees.gramian(ROWS))
    np.testing.assert_array_equal(found.gramian[2:], 0.0)


def test_a_vmapped_sweep_scales_where_a_member_needs_it_and_touches_no_other():
    """To the bit; and where none needs it, nothing is computed twice: the condition stays one."""
    f = jax.vmap(lambda rows: ranges.gramian(rows, num_tasks=2))
    for scales in ([1.0, 3.0, 0.1], [1.0, 3e25, 0.1]):
        members = jnp.stack([ROWS * scale for scale in scales])
        found = f(members)
        for k, rows in enumerate(members):
            alone = ranges.gramian(rows, num_tasks=2)
            for a, b in zip(alone, found, strict=True):
                np.testing.assert_array_equal(a, b[k])
    compiled = jax.jit(f).lower(jnp.stack([ROWS] * 3)).compile().as_text()
    assert compiled is not None and "conditional(" in compiled


def test_a_member_of_a_sweep_that_has_nan_leaves_the_others():
    def train_losses(params, state, batch, key, train):
        return losses_fn(params, batch), mtljax.Aux(state)

    init, step = training.make_train_step(train_losses, methods.equal(), optax.sgd(0.1))
    state = init(PARAMS, key=jax.random.key(0))
    scales = jnp.array([1.0, jnp.nan, 0.5])
    many = jax.jit(jax.vmap(step, in_axes=(None, 0)))(state, scales)
    for k, scale in enumerate(scales):
        alone = jax.jit(step)(state, scale)
        for a, b in zip(jax.tree.leaves(alone[0].params), jax.tree.leaves(many[0].params), strict=True):
            np.testing.assert_allclose(a, b[k], rtol=1e-6)
        assert bool(alone[1]["active"]["a"]) == bool(many[1]["active"]["a"][k]) == bool(jnp.isfinite(scale))

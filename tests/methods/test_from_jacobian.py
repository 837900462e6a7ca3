"""Methods that read task gradients: rules by hand, references' numbers, absent tasks, mistakes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods import aggregate
from mtljax.methods.from_jacobian import db_mtl, excess_mtl, graddrop, m_config, moco, sam_gs, trimmed_mean
from mtljax.methods.from_jacobian.moco import norms_over_losses
from mtljax.methods.rows import UNROLL_LIMIT, row_norms, sum_over_tasks
from tests.methods.steps.jacobian import J_BASE, LIBMTL_MOCO, STATEFUL, draw, run


def test_golden_values():
    ones = jnp.ones(2)
    np.testing.assert_allclose(aggregate(moco(**LIBMTL_MOCO), J_BASE, losses=ones), [0.0076, 0.0995, 0.0995], atol=5e-5)
    np.testing.assert_allclose(aggregate(db_mtl(), J_BASE, losses=ones), [0.0188, 0.2453, 0.2453], atol=5e-5)


@pytest.mark.parametrize("name", STATEFUL)
def test_absent_at_all_steps_is_removed(name):
    rows, losses = draw(5, 4, 6), 0.5 + np.abs(draw(5, 4, seed=1))
    active = np.ones((5, 4), bool)
    active[:, 1] = False
    active[2, 3] = False
    poisoned = np.where(active[:, :, None], rows, np.nan)
    update, weights, state = run(STATEFUL[name], poisoned, losses=np.where(active, losses, np.nan), active=active)
    kept = [0, 2, 3]
    fewer, fewer_weights, _ = run(STATEFUL[name], rows[:, kept], losses=losses[:, kept], active=active[:, kept])
    np.testing.assert_allclose(update, fewer, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(weights[:, kept], fewer_weights, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(weights[:, 1], 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", STATEFUL)
def test_a_step_without_any_task_leaves_no_trace(name):
    rows = draw(4, 3, 6)
    active = np.ones((4, 3), bool)
    active[2] = False
    update, weights, _ = run(STATEFUL[name], rows, active=active)
    np.testing.assert_array_equal(update[2], 0)
    fewer, fewer_weights, _ = run(STATEFUL[name], rows[[0, 1, 3]])
    np.testing.assert_allclose(update[[0, 1, 3]], fewer, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(weights[[0, 1, 3]], fewer_weights, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("num_tasks", [1, 3, UNROLL_LIMIT + 2])
def test_sums_over_tasks_written_out_and_in_a_loop(num_tasks):
    values, factors = draw(num_tasks, 4, 2), draw(num_tasks, 1, 1, seed=1)
    double, product = sum_over_tasks(lambda row, factor: (2 * row, factor * row), *map(jnp.asarray, (values, factors)))
    np.testing.assert_allclose(double, 2 * values.sum(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(product, (factors * values).sum(axis=0), rtol=1e-5, atol=1e-6)


# mistakes

MISTAKES = [
    (lambda: trimmed_mean(-1), "trimmed_mean: trim must be"),
    (lambda: db_mtl(beta=1.0), r"db_mtl: beta must be"),
    (lambda: db_mtl(eps=-1.0), "db_mtl: eps must be"),
    (lambda: db_mtl().init(2), "db_mtl: shared must be the shared parameters or their shapes, found None"),
    (lambda: aggregate(db_mtl(), J_BASE), r"db_mtl: losses must be of shape \(2,\), found None"),
    (
        lambda: aggregate(db_mtl(), J_BASE, losses=jnp.ones(3)),
        r"db_mtl: losses must be of shape \(2,\), .*found shape \(3,\)",
    ),
    (lambda: moco(beta=0.0), "moco: beta must be"),
    (lambda: moco(rho=float("nan")), "moco: rho must be"),
    (lambda: aggregate(moco(normalization=norms_over_losses), J_BASE), "moco: losses must be of shape"),
    (
        lambda: aggregate(moco(normalization=lambda norms, losses: norms[0]), J_BASE),
        r"moco: what normalization returned must be of shape .*found shape \(\)",
    ),
    (lambda: excess_mtl(step_size=0.0), "excess_mtl: step_size must be"),
    (lambda: excess_mtl(eps=-1e-7), "excess_mtl: eps must be"),
    (lambda: sam_gs(momentum=1.0), r"sam_gs: momentum must be"),
    (lambda: sam_gs(threshold=-1.0), "sam_gs: threshold must be"),
    (lambda: m_config(beta=-0.1), r"m_config: beta must be"),
    (lambda: m_config().init(2), "m_config: shared must be the shared parameters or their shapes, found None"),
    (
        lambda: m_config().update(J_BASE, m_config().init(2, J_BASE[0])),
        "m_config: state must be what m_config's init makes for 2 tasks",
    ),
    (
        lambda: m_config().update({"w": J_BASE[0]}, m_config().init(2, J_BASE[0])),
        "m_config: state must be what m_config's init makes for 2 tasks",
    ),
    (lambda: graddrop(leak=[0.5, 2.0]), r"graddrop: leak must be"),
    (lambda: graddrop(leak=[0.5] * 3).init(2), r"graddrop: leak must have an entry for each of 2 tasks, found 3"),
    (lambda: graddrop(leak=np.zeros((2, 2))), r"graddrop: leak must be a number or of shape \[T\], found"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_named(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()


def test_lengths_of_rows_of_any_size():
    """In the ordinary range to the bit what plain squares give."""
    rows = {"a": draw(4, 5), "b": draw(4, 2, 3)}
    flat = np.concatenate([rows["a"], rows["b"].reshape(4, -1)], axis=1).astype(np.float64)
    plain = np.sqrt(
        sum(jnp.sum(jnp.square(jnp.asarray(leaf)), axis=tuple(range(1, leaf.ndim))) for leaf in rows.values())
    )
    norms = jax.jit(lambda rows: row_norms(rows, 4))
    np.testing.assert_array_equal(norms(rows), plain)
    factors = np.float32([1e-30, 1.0, 0.0, 1e30])
    found = norms(jax.tree.map(lambda leaf: leaf * factors.reshape(4, *[1] * (leaf.ndim - 1)), rows))
    np.testing.assert_allclose(found, factors * np.linalg.norm(flat, axis=1), rtol=1e-5)
    assert found[1] == plain[1]


@pytest.mark.parametrize("make", [db_mtl, excess_mtl, moco, sam_gs], ids=lambda make: make.__name__)
def test_gradients_of_any_size_give_finite_updates(make):
    """Those of 1e15 and more have squares beyond float32; what has no unit, scales."""
    rows, losses = jnp.asarray(draw(3, 4)), jnp.ones(3)
    run = jax.jit(lambda rows: aggregate(make(), rows, losses=losses))
    small, large = run(rows), run(1e20 * rows)
    assert np.isfinite(small).all() and (make is sam_gs or np.isfinite(large).all())
    if make in (db_mtl, excess_mtl):
        np.testing.assert_allclose(large / 1e20, small, rtol=1e-5)

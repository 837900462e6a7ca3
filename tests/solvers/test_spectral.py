"""Equal projections and alignment against float64 oracles on the rows themselves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.solvers import TRUSTED
from mtljax.solvers.spectral import alignment, mean, median, projections, smallest
from tests.solvers.solver_problems import FAMILIES, gramian, jacobian, norms_of

project = jax.jit(jax.vmap(projections))
LEVELS = {"smallest": smallest, "median": median, "mean": mean}
# Eigenvalues either far above or exactly zero, so that their number is beyond doubt in float32.
CLEAR = (
    "random",
    "conflict",
    "common",
    "rank_1",
    "rank_2",
    "rank_half",
    "zero_row",
    "duplicate",
    "duplicates",
    "opposed",
)


def stacked(problems):
    return jnp.asarray(np.stack([gramian(rows) for rows in problems]))


def exact_projections(rows, targets):
    """The shortest least-squares solution of `<g_i, u> / |g_i| = targets_i`, and its projections."""
    norms, _ = norms_of(rows)
    unit = rows / np.where(norms > 0, norms, 1.0)[:, None]
    direction = np.linalg.pinv(unit, rcond=2.0**-10) @ np.where(norms > 0, targets, 0.0)
    return direction, unit @ direction


def rank_is_clear(rows):
    """Whether no eigenvalue of the unit gradients' Gramian is near the one from which on they count as zero."""
    norms, _ = norms_of(rows)
    unit = rows / np.where(norms > 0, norms, 1.0)[:, None]
    values = np.linalg.svd(unit, compute_uv=False) ** 2
    ratios = values / (2.0**-20 * values[0]) if values[0] > 0 else values
    return not ((ratios > 0.1) & (ratios < 10.0)).any()


@pytest.mark.parametrize("num_tasks", [2, 8, 32])
def test_projections_are_exact(num_tasks):
    problems = [jacobian(family, num_tasks, seed) for family in FAMILIES for seed in range(3)]
    found = project(stacked(problems))
    assert (np.asarray(found.residual) >= 0).all() and (np.asarray(found.residual) <= 1).all()
    assert sum(map(rank_is_clear, problems)) >= 0.85 * len(problems)
    for index, rows in enumerate(problems):
        if not rank_is_clear(rows):
            continue
        norms, _ = norms_of(rows)
        direction, gains = exact_projections(rows, np.ones(num_tasks))
        answer = np.asarray(found.amounts[index], float) / np.where(norms > 0, norms, 1.0) @ rows
        length = np.linalg.norm(direction)
        if np.abs(gains).max() < 2.0**-13:
            assert not found.amounts[index].any() and (float(found.residual[index]) == 1 or not norms.any())
            continue
        assert np.linalg.norm(answer - direction) <= 1e-3 * length
        assert float(found.length[index]) == pytest.approx(length, rel=1e-3, abs=1e-3)
        # Where unit gradients nearly cancel u is long, and its rounding is what shows here.
        noise = 1e-5 * (1.0 + length)
        np.testing.assert_allclose(found.gains[index], gains, atol=noise)
        worst = np.max(np.where(norms > 0, np.abs(gains - 1.0), 0.0))
        residual = float(found.residual[index])
        assert residual >= min(worst, 1.0) - noise
        assert residual <= TRUSTED or worst > 1e-3
        assert np.linalg.norm(answer - direction) <= residual * length
        np.testing.assert_allclose(found.norms[index], np.where(norms > 0, norms, 1.0), rtol=1e-6)


@pytest.mark.slow
def test_projections_of_many_tasks():
    problems = [jacobian(family, 128, 0) for family in CLEAR]
    found = project(stacked(problems))
    for index, rows in enumerate(problems):
        norms, _ = norms_of(rows)
        direction, _ = exact_projections(rows, np.ones(128))
        answer = np.asarray(found.amounts[index], float) / np.where(norms > 0, norms, 1.0) @ rows
        assert np.linalg.norm(answer - direction) <= 1e-3 * np.linalg.norm(direction) + 1e-6


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e12])
def test_projections_have_no_scale(scale):
    rows = jacobian("rank_half", 8, 0) * scale
    direction, _ = exact_projections(rows, np.ones(8))
    found = project(jnp.asarray((rows @ rows.T)[None], jnp.float32))
    norms, _ = norms_of(rows)
    answer = np.asarray(found.amounts[0], float) / norms @ rows
    np.testing.assert_allclose(answer, direction, atol=1e-4 * np.linalg.norm(direction))


def test_projections_on_targets():
    rows = jacobian("random", 8, 0)
    targets = np.array([1.0, 2.0, 0.0, -1.0, 0.5, 3.0, 1.0, 1.0])
    found = jax.jit(projections)(gramian(rows), targets)
    np.testing.assert_allclose(found.gains, targets, atol=1e-5)
    assert found.residual < 1e-5


def test_a_second_refinement_is_worth_its_while():
    """Near duplicates: one refinement leaves 4e-4 of the amounts wrong, two leave 6e-5, which is the Gramian's own."""
    targets, gramians, expected = np.array([1.0, 2.0, 0.0, -1.0, 0.5, 3.0, 1.0, 1.0]), [], []
    for seed in range(12):
        rows = np.random.default_rng(seed).normal(size=(8, 40))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows[1:] = rows[:1] + 0.005 * rows[1:]
        gramians.append(np.asarray(rows @ rows.T, np.float32))
        own = np.sqrt(np.diag(gramians[-1]).astype(float))
        expected.append(np.linalg.solve(gramians[-1] / own[:, None] / own[None, :], targets))
    found = jax.jit(jax.vmap(lambda g: projections(g, targets)))(np.stack(gramians)).amounts
    lengths = np.linalg.norm(expected, axis=1)
    assert np.median(np.linalg.norm(found - np.array(expected), axis=1) / lengths) < 1.5e-4


def exact_alignment(rows, weights, level):
    values, vectors = np.linalg.eigh(rows @ rows.T)
    kept = values > 2.0**-23 * len(rows) * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    size = {"smallest": values.min, "median": lambda: np.sort(values)[(len(values) - 1) // 2], "mean": values.mean}
    return np.sqrt(size[level]()) * (vectors / np.sqrt(values)) @ vectors.T @ weights


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("num_tasks", [2, 8])
def test_alignment_is_exact(level, num_tasks):
    problems = [jacobian(family, num_tasks, seed) for family in CLEAR for seed in range(3)]
    weights = np.linspace(0.5, 2.0, num_tasks)
    align = jax.jit(jax.vmap(lambda g: alignment(g, weights, level=LEVELS[level]).weights))
    for rows, found in zip(problems, np.asarray(align(stacked(problems)), float), strict=True):
        norms, _ = norms_of(rows)
        wanted = np.where(norms > 0, exact_alignment(rows, weights, level), 0.0)
        noise = 2.0**-22 * np.abs(wanted) @ norms
        assert np.linalg.norm((found - wanted) @ rows) <= 1e-3 * np.linalg.norm(wanted @ rows) + noise


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3, 1e12])
def test_alignment_has_no_scale(scale):
    rows = jacobian("conflict", 5, 0)
    align = jax.jit(lambda g: alignment(g, jnp.ones(5)).weights)
    scaled = align(jnp.asarray(scale**2 * (rows @ rows.T), jnp.float32))
    np.testing.assert_allclose(scaled, align(gramian(rows)), rtol=1e-4)


def test_aligned_gradients_are_orthogonal_and_alike():
    rows = jacobian("conflict", 5, 0)
    align = jax.jit(jax.vmap(lambda w: alignment(gramian(rows), w).weights))
    aligned = np.asarray(align(jnp.eye(5)), float) @ rows
    np.testing.assert_allclose(aligned @ aligned.T, np.linalg.eigvalsh(rows @ rows.T)[0] * np.eye(5), atol=1e-3)


def test_nothing_to_go_by():
    found = jax.jit(projections)(jnp.zeros((3, 3)))
    assert found.amounts.tolist() == [0.0] * 3 and found.length == 0 and not found.takes_part.any()
    assert jax.jit(alignment)(jnp.zeros((3, 3)), jnp.ones(3)).weights.tolist() == [1.0] * 3


def test_inactive_is_absent_and_not_read():
    rows = jacobian("conflict", 6, 0)
    keep = np.array([True, False, True, True, False, True])
    whole = gramian(rows)
    whole[~keep] = np.nan
    whole[:, ~keep] = np.nan
    found = jax.jit(lambda g, mask: projections(g, active=mask))(whole, keep)
    alone = project(stacked([rows[keep]]))
    np.testing.assert_allclose(found.amounts[keep], alone.amounts[0], rtol=1e-5)
    assert (np.asarray(found.amounts)[~keep] == 0).all()
    for level in LEVELS.values():
        align = jax.jit(lambda g, mask, level=level: alignment(g, jnp.ones(len(g)), level=level, active=mask))
        aligned, residual = align(whole, keep)
        expected, expected_residual = align(gramian(rows[keep]), np.ones(4, bool))
        assert float(residual) == pytest.approx(float(expected_residual), rel=0.5)
        np.testing.assert_allclose(aligned[keep], expected, rtol=1e-5)
        assert (np.asarray(aligned)[~keep] == 0).all()


def test_mistakes():
    with pytest.raises(ValueError, match=r"targets must have shape \(2,\) .* found \(3,\)"):
        projections(jnp.eye(2), jnp.ones(3))
    with pytest.raises(ValueError, match=r"weights must have shape \(2,\) .* found \(3,\)"):
        alignment(jnp.eye(2), jnp.ones(3))

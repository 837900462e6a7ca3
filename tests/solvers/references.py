"""Exact weights in float64, from the task gradients themselves: what solvers that see a rounded Gramian are held to."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import brentq, nnls

# SciPy's own types are of another form.
root: Any = brentq


def norms_of(rows):
    return np.linalg.norm(rows, axis=1)


def projection(rows, lower):
    """Weights of the projection of `lower @ rows` on the dual cone."""
    norms = norms_of(rows)
    keep = norms > 0
    start = lower @ rows
    size = np.linalg.norm(start)
    weights = lower.astype(float)
    if size > 0:
        system = (rows[keep] / norms[keep, None]).T
        weights[keep] += nnls(system, -start / size, maxiter=1000 * len(rows))[0] * size / norms[keep]
    return weights


def upgrad(rows):
    return np.mean([projection(rows, row) for row in np.eye(len(rows))], axis=0)


def dualproj(rows):
    return projection(rows, np.full(len(rows), 1 / len(rows)))


def mgda(rows):
    """Weights of the shortest vector of the convex hull."""
    norms = norms_of(rows)
    if not norms.all():
        return (norms == 0) / (norms == 0).sum()
    share = norms.min() / norms
    system = np.vstack([(rows / norms[:, None]).T, share])
    parts = nnls(system, np.r_[np.zeros(rows.shape[1]), 1.0], maxiter=1000 * len(rows))[0] * share
    return parts / parts.sum()


def _at_level(rows, mean, level):
    """What is added to `mean` in the nearest direction with `<g_i, d> >= level`; None where there is none."""
    norms, size = norms_of(rows), np.linalg.norm(mean)
    unit = rows / norms[:, None]
    system = np.vstack([unit.T, (level / norms - unit @ mean) / size])
    goal = np.zeros(len(system))
    goal[-1] = 1.0
    found = nnls(system, goal, maxiter=1000 * len(rows))[0]
    left = (system @ found - goal)[-1]
    return None if left > -1e-14 else -size * found / left / norms


def _path(rows, excess, *, capped):
    """The last point of the path from the mean to the shortest vector at which `excess(weights)` is not positive."""
    norms, mean, even = norms_of(rows), rows.mean(0), np.full(len(rows), 1 / len(rows))
    keep = norms > 0
    size, start = np.linalg.norm(mean), (rows[keep] @ mean).min()

    def weights_at(place):
        level = -start * place if place < 0 else max(start, 0.0) + size * norms[keep].min() * place / (1 - place)
        added = _at_level(rows[keep], mean, level)
        if added is None:
            return None
        weights = even.copy()
        weights[keep] += added
        return weights

    def beyond(place):
        weights = weights_at(place)
        return np.pi if weights is None else excess(weights)

    low, high = (-1.0 if start < 0 else 0.0), (0.0 if capped else 1.0 - 1e-12)
    if low >= high:
        return even
    if beyond(high) <= 0:
        return weights_at(high)
    if beyond(low + 1e-15) >= 0:
        return even
    place = root(beyond, low + 1e-15, high, xtol=1e-15, rtol=8.9e-16, maxiter=300)
    for exponent in range(50, 0, -1):
        if beyond(place) < 1e-6:
            return weights_at(place)
        place -= (place - low) * 2.0**-exponent
    return even


def cagrad(rows, c=0.5):
    norms, mean, even = norms_of(rows), rows.mean(0), np.full(len(rows), 1 / len(rows))
    radius = c * np.linalg.norm(mean)
    if radius < 1e-13 * norms.max():
        return even
    shortest = mgda(rows)
    capped = not norms.all() or np.linalg.norm(shortest @ rows) < 1e-9 * shortest @ norms
    found = _path(rows, lambda w: np.linalg.norm(w @ rows - mean) / radius - 1.0, capped=capped)
    away = np.linalg.norm(found @ rows - mean)
    return even + (found - even) * (radius / away if abs(away / radius - 1.0) < 1e-3 else 1.0)


def conicgrad(rows, c=0.5):
    """None where the mean is 0: no direction has an angle to it."""
    norms, mean = norms_of(rows), rows.mean(0)
    size, keep = np.linalg.norm(mean), norms_of(rows) > 0
    if size < 1e-13 * norms.max():
        return None

    def excess(weights):
        direction = weights @ rows
        along = direction @ mean / size
        if np.linalg.norm(direction) < 1e-10 * np.abs(weights) @ norms:
            return np.pi
        return np.arctan2(np.linalg.norm(direction - along * mean / size), along) - np.arccos(c)

    found = np.zeros(len(rows))
    found[keep] = mgda(rows[keep])
    capped = np.linalg.norm(found @ rows) < 1e-9 * found @ norms
    if capped or excess(found) > 0:
        found = _path(rows, excess, capped=capped)
        assert found is not None
    return found * size / np.linalg.norm(found @ rows)


def _equal_projections(rows):
    norms = norms_of(rows)
    unit = rows / np.where(norms > 0, norms, 1.0)[:, None]
    left, values, _ = np.linalg.svd(unit, full_matrices=False)
    kept = values > 1e-11 * values[0]
    amounts = (left[:, kept] / values[kept] ** 2) @ (left[:, kept].T @ (norms > 0))
    if np.linalg.norm(amounts @ unit) < 1e-9:
        amounts = 0.0 * norms
    return np.where(norms > 0, amounts / np.where(norms > 0, norms, 1.0), 0.0)


def config(rows):
    weights = _equal_projections(rows)
    direction = weights @ rows
    square = direction @ direction
    return weights * np.sum(rows @ direction) / square if square > 0 else weights


def imtl_g(rows):
    """None where weights cancel, so that they have no sum to be divided by, or float64 does not tell their sum."""
    norms = norms_of(rows)
    # The sum moves by 2^-52 over the square of a singular value, the direction of the pseudo-inverse does not.
    values = np.linalg.svd(rows / np.where(norms > 0, norms, 1.0)[:, None], compute_uv=False)
    if ((values > 1e-11) & (values < 2.0**-15)).any():
        return None
    weights = _equal_projections(rows)
    if abs(weights.sum()) <= 1e-5 * np.abs(weights).sum():
        return None
    return weights / weights.sum()


def aligned_mtl(rows):
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    kept = values**2 > len(rows) * 2.0**-23 * values[0] ** 2
    sums = left[:, kept].sum(0)
    # Of tasks that cancel, float64 makes a sum of about 2^-53.
    sums = np.where(np.abs(sums) < 2.0**-48, 0.0, sums)
    weights = values[kept].min() * (left[:, kept] / values[kept]) @ sums
    return np.where(norms_of(rows) > 0, weights, 0.0)


def pcd(rows, tau=0.02):
    """At a first step, where averages are the norms; None where no direction exists, or float64 does not tell."""
    norms = norms_of(rows)
    weights = np.zeros(len(rows))
    first, *others = np.flatnonzero(norms > 0)
    unit = rows / np.where(norms > 0, norms, 1.0)[:, None]
    missing = np.float32(tau) - unit[others] @ unit[first]
    weights[first] = 1.0
    if others and (missing > 0).any():
        solution, left = nnls(np.vstack([unit[others].T, missing]), np.r_[np.zeros(rows.shape[1]), 1.0])
        # The square of what is left is one over 1 + the square of how far d has to go.
        if left < 2.0**-6:
            return None
        weights[others] = solution / (1.0 - missing @ solution)
    length = np.linalg.norm(weights @ unit)
    if length < 2.0**-20 * np.abs(weights).sum():
        return None
    return weights / np.where(norms > 0, norms, 1.0) * norms[first] / length


def bargaining(rows, power):
    """Weights with `<g_i, sum_k w_k g_k> = w_i^(-power)`, by Newton's method; None where it does not converge."""
    norms = norms_of(rows)
    keep = norms > 0
    unit, weights = rows[keep] / norms[keep, None], np.zeros(len(rows))
    gramian, level = unit @ unit.T, norms[keep] ** (power - 1.0)
    z = level ** (1.0 / (1.0 + power))
    for _ in range(500):
        force = level * z**-power - gramian @ z
        try:
            step = np.linalg.solve(gramian + np.diag(power * level * z ** (-power - 1.0)), force)
        except np.linalg.LinAlgError:  # weights that run off, as at a Pareto-stationary point
            return None
        z = z + step * min(1.0, 0.5 / np.max(np.maximum(-step / z, 1e-300)))
        if not np.isfinite(z).all():  # likewise, where the solution overflows before the matrix is singular
            return None
        if np.max(np.abs(step / z)) < 1e-12:
            weights[keep] = z / norms[keep]
            return weights
    return None

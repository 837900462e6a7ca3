"""Tests of `go4align`."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.methods.from_losses import go4align
from mtljax.methods.from_losses.go4align import group_means
from tests.methods.steps.history import STEPS, softmax, weights_of


@pytest.mark.parametrize("num_groups", [1, 2, 3])
def test_go4align_by_hand(num_groups):
    found, _ = weights_of(go4align(num_groups, step_size=0.1), STEPS)
    p = np.full(3, 1 / 3)
    for step, losses in enumerate(STEPS.astype(np.float64)):
        p = p * np.exp(-0.1 * losses)
        p = p / p.sum()
        indicator = p * losses.sum() / losses
        np.testing.assert_allclose(found[step], clustered(indicator, num_groups), rtol=1e-4)


def clustered(values, num_groups):
    """Best least-squares clustering by trying every assignment."""

    def means(labels):
        return np.array([values[labels == label].mean() for label in labels])

    options = [means(np.array(labels)) for labels in itertools.product(range(num_groups), repeat=len(values))]
    return min(options, key=lambda option: np.sum((values - option) ** 2))


def test_group_means_are_the_best_of_all_clusterings():
    rng = np.random.default_rng(0)
    cases = np.exp(rng.normal(size=(8, 5)) * 2).astype(np.float32)
    active = rng.random((8, 5)) < 0.8
    active[:, 0] = True
    for num_groups in (2, 3):
        found = jax.jit(jax.vmap(lambda x, a, g=num_groups: group_means(x, a, g)))(cases, active)
        for values, mask, means in zip(cases, active, np.asarray(found), strict=True):
            np.testing.assert_allclose(means[mask], clustered(values[mask], num_groups), rtol=1e-4)
            assert (means[~mask] == 0).all()
    assert group_means(jnp.array([5.0]), jnp.array([True]), 3).tolist() == [5.0]


def test_go4align_takes_a_newcomer_in_at_the_others_geometric_mean():
    active = np.ones(STEPS.shape, bool)
    active[:5, 2] = False
    found, _ = weights_of(go4align(3, step_size=0.5), STEPS, active)
    shares = -0.5 * STEPS[:5].astype(np.float64).sum(0)
    shares[:2] -= shares[:2].mean()
    shares[2] = 0.0
    p = softmax(shares - 0.5 * STEPS[5])
    np.testing.assert_allclose(found[5], p * STEPS[5].sum() / STEPS[5], rtol=1e-5)

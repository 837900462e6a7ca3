"""Tests of `config`."""

from __future__ import annotations

import numpy as np
import pytest

from mtljax.methods.from_gramian import config_lengths as lengths
from mtljax.methods.from_gramian.config import config
from tests.methods.steps.padded import weights_of
from tests.methods.steps.spectral import METHODS, SHORTEST, random_rows

LENGTHS = {
    "projection": (METHODS["config"], lambda n: n),
    "track_min": (SHORTEST, np.min),
    "track_max": (config(length=lengths.track_max), np.max),
    "track_harmonic": (config(length=lengths.track_harmonic), lambda n: len(n) / np.sum(1 / n)),
    "track_arithmetic": (config(length=lengths.track_arithmetic), np.mean),
    "track_geometric": (config(length=lengths.track_geometric), lambda n: np.prod(n) ** (1 / len(n))),
    "track_task": (config(length=lengths.track_task(1)), lambda n: n[1]),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_length_models_of_config(name):
    method, tracked = LENGTHS[name]
    rows = random_rows(4, seed=2).astype(float) * np.array([1.0, 3.0, 0.5, 20.0])[:, None]
    norms = np.linalg.norm(rows, axis=1)
    unit = rows / norms[:, None]
    direction = np.linalg.pinv(unit) @ np.ones(4)
    direction /= np.linalg.norm(direction)
    expected = np.sum(tracked(norms) * (unit @ direction)) * direction
    np.testing.assert_allclose(weights_of(method, rows) @ rows, expected, rtol=1e-4, atol=1e-4)
    # A task without gradient and one that is absent leave the length alone.
    more = np.insert(rows, 2, 0.0, axis=0)
    np.testing.assert_allclose(weights_of(method, more) @ more, expected, rtol=1e-4, atol=1e-4)


def test_preference_of_config_sets_the_angles():
    rows, share = random_rows(3), np.array([1.0, 2.0, 4.0])
    direction = weights_of(config(preference=[*share, 9.0, 9.0, 9.0, 9.0, 9.0]), rows) @ rows
    cosines = rows @ direction / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(cosines / cosines[0], share, rtol=1e-4)

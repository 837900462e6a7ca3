"""Methods that do not scale with their gradients are told by which number an engine has multiplied them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtljax import methods
from mtljax.methods.from_gramian.mgda import l2_norms
from tests.solvers.families import rounded, rows_of

METHODS = {
    "nash_mtl": lambda: methods.nash_mtl(max_norm=1.0),
    "fairgrad": lambda: methods.fairgrad(2.0),
    "pivrg": methods.pivrg,
    "consmtl": methods.consmtl,
    "mgda": lambda: methods.mgda(normalization=l2_norms),
    "modo": methods.modo,
    "sdmgrad": lambda: methods.sdmgrad(normalize=False, steps=2, rate=0.1),
    "gradnorm": lambda: methods.gradnorm(normalize=False, optimizer=optax.sgd(0.1)),
}
# The power of the scale that weights go with, for methods without a scale of their own.
DEGREES = {"nash_mtl": 1.0, "fairgrad": 4 / 3, "pivrg": 4 / 3, "consmtl": 4 / 3, "mgda": 1.0}


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_those_of_the_gradients_themselves(name):
    method = METHODS[name]()
    rows = rows_of("generic", 3, 0)

    @jax.jit
    def two_steps(gramian, scale):
        state = method.init(3)
        for _ in range(2):
            weights, state = method.update(gramian, state, losses=jnp.array([1.0, 2.0, 3.0]), scale=scale)
        return weights

    expected = np.asarray(two_steps(rounded(rows), 1.0))
    np.testing.assert_allclose(two_steps(rounded(2.0**8 * rows), 2.0**8), expected, rtol=1e-4)
    if name in DEGREES:
        # What an engine has made of rows that are 2^40 times as long, or as short.
        for exponent in (-40, 40):
            found = two_steps(rounded(rows), 2.0**exponent)
            np.testing.assert_allclose(found, expected * 2.0 ** (exponent * DEGREES[name]), rtol=1e-5)


def test_nash_of_gradients_that_are_too_short_to_square():
    """At 1e-19, squares are denormal: the answer depended on the thread that saw them."""
    rows = 1e-19 * np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    method = methods.nash_mtl()
    weights, _ = jax.jit(method.update)(rounded(2.0**64 * rows), method.init(2), scale=2.0**64)
    np.testing.assert_allclose(np.asarray(weights, float) @ rows, [0.0766, 0.9985, 0.9985], atol=1e-3)


@pytest.mark.parametrize(("name", "expected"), [("modo", [1.0, 0.0]), ("sdmgrad", [0.15 / 1.3, 1.15 / 1.3])])
def test_shares_of_gradients_that_are_too_long_to_square(name, expected):
    """Squares of 1e20 are beyond float32: the shares were NaN, where a step of such a length ends at a vertex.

    SDMGrad's second step goes from (1, 0) to (0, 1), and its weights are pulled towards the mean.
    """
    rows = 1e20 * np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    method = METHODS[name]()
    weights, _ = jax.jit(method.update)(rounded(2.0**-64 * rows), method.init(2), scale=2.0**-64)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)

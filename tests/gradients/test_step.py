"""What a step makes of a method's answer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax import methods

PARAMS = mtljax.Params(jnp.array([1.0, -2.0]), {"a": jnp.array(0.5), "b": jnp.array(-1.0)})
SLOPES = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([-2.0, 0.5])}


@pytest.mark.parametrize("weighed", [True, False])
@pytest.mark.parametrize("make", [methods.mgda, methods.moco])
def test_heads_are_weighed_where_the_method_says_so(make, weighed):
    method = make(weigh_tasks=weighed)
    f = mtljax.value_and_grad(lambda params: {k: SLOPES[k] @ params.shared + params.tasks[k] for k in "ab"}, method)
    _, grads, state = jax.jit(lambda: f(PARAMS, method.init(2, PARAMS.shared)))()
    found = [grads.tasks[k] for k in "ab"]
    np.testing.assert_allclose(found, state.weights if weighed else [1.0, 1.0], rtol=1e-6)
    assert state.weights[0] != 1

"""Metrics element by element."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.metrics import accuracy


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_accuracy_of_every_position(dtype):
    logits = jnp.asarray(np.eye(3)[np.array([[0, 1], [2, 2], [1, 1]])], dtype)
    values = accuracy(logits, jnp.array([[0, 1], [2, 0], [0, 0]]))
    assert values.dtype == jnp.float32
    assert values.tolist() == [[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]


def test_accuracy_mistakes():
    with pytest.raises(ValueError, match=r"accuracy: outputs must be \[B, ..., C\] and targets \[B, ...\], found"):
        accuracy(jnp.zeros([4, 5]), jnp.zeros([4, 1], int))
    with pytest.raises(TypeError, match=r"accuracy: targets must be integer labels, found .* float32"):
        accuracy(jnp.zeros([4, 5]), jnp.zeros(4))

"""Networks written out by hand, from which the tests build every architecture."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax.sharing import Network


def dense(size, *, rate=0.5, bias=False, activation=lambda y: y):
    """A linear layer with dropout and a counter of training calls as its state."""

    def init(key, x):
        params = {"w": jax.random.normal(key, (x.shape[-1], size), x.dtype)}
        return params | ({"b": jnp.zeros(size, x.dtype)} if bias else {}), {"calls": jnp.zeros((), jnp.int32)}

    def apply(params, state, x, *, key=None, train=False):
        y = x @ params["w"]
        if bias:
            y = y + params["b"][None, :]
        y = activation(y)
        if train:
            if rate:
                kept = jax.random.bernoulli(key, 1 - rate, y.shape)
                y = jnp.where(kept, y / (1 - rate), jnp.zeros((), y.dtype))
            state = {"calls": state["calls"] + 1}
        return y, state

    return Network(init, apply)

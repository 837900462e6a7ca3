"""Bad calls of the adapters for Flax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx

from mtljax import methods
from mtljax.adapters import flax_nnx
from mtljax.adapters.flax_linen import from_linen, model_from_linen
from mtljax.adapters.flax_nnx import from_nnx
from tests.bad_calls.bad import NO_FUNCTIONS, Bad, each

KEY, X = np.zeros(2, np.uint32), np.ones((2, 3), np.float32)
LAYER = nn.Dense(4)
NO_MODULES = (nn.Dense, None, "Dense", lambda x: x, from_linen(LAYER))
HEADS = {"a": "head"}


class Untold(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5)(x)


class Dropping(nnx.Module):
    def __init__(self, rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(x)


BAD = [
    *each(lambda module: from_linen(module), ("from_linen", "module"), NO_MODULES, TypeError),
    *each(lambda x: from_linen(LAYER, call_kwargs=x), ("from_linen", "call_kwargs"), ({}, "train", True), TypeError),
    *each(lambda x: from_linen(LAYER, rngs=x), ("from_linen", "rngs"), ("dropout", None, 1, (1,)), TypeError),
    Bad(lambda: from_linen(LAYER, rngs=("dropout", "dropout")), ("from_linen", "rngs")),
    Bad(lambda: jax.eval_shape(from_linen(Untold()).init, KEY, X), ("from_linen", "Untold", "deterministic")),
    *each(lambda module: model_from_linen(module, HEADS), ("model_from_linen", "module"), NO_MODULES, TypeError),
    *each(
        lambda heads: model_from_linen(LAYER, heads), ("model_from_linen", "heads"), ("head", None, ["head"]), TypeError
    ),
    *each(
        lambda own: model_from_linen(LAYER, {"a": own}), ("model_from_linen", "heads['a']"), (None, 1, (1,)), TypeError
    ),
    *each(lambda own: model_from_linen(LAYER, {"a": own}), ("model_from_linen", "heads['a']"), ((), ("b", "b"))),
    Bad(lambda: model_from_linen(LAYER, {}), ("model_from_linen", "heads")),
    Bad(lambda: model_from_linen(LAYER, {1: "head"}), ("model_from_linen", "heads"), TypeError),
    Bad(lambda: model_from_linen(LAYER, {"a": "head", "b": "head"}), ("model_from_linen", "'head'", "'a'", "'b'")),
    Bad(lambda: jax.eval_shape(model_from_linen(LAYER, HEADS).init, KEY, X), ("model_from_linen", "'head'", "kernel")),
    *each(lambda key: model_from_linen(LAYER, HEADS).init(key, X), ("init", "key"), (0, None), TypeError),
    *each(lambda make: from_nnx(make), ("from_nnx", "make_module"), (None, "Linear", 1, LAYER), TypeError),
    Bad(lambda: from_nnx(lambda rngs: LAYER), ("from_nnx", "make_module", "nnx.Module"), TypeError),
    *each(lambda x: from_nnx(Dropping, call_kwargs=x), ("from_nnx", "call_kwargs"), ({}, "train", True), TypeError),
    *each(
        lambda f: flax_nnx.value_and_grad(f, methods.mgda()), ("value_and_grad", "losses_fn"), NO_FUNCTIONS, TypeError
    ),
    *each(lambda m: flax_nnx.value_and_grad(print, m), ("value_and_grad", "method"), (methods.mgda, None), TypeError),
    *each(
        lambda module: flax_nnx.value_and_grad(print, methods.mgda())(module, methods.mgda().init(2)),
        ("value_and_grad", "module"),
        ({}, LAYER, None),
        TypeError,
    ),
    *each(
        lambda optimizer: flax_nnx.observe(methods.famo(), jnp.ones(2), optimizer),
        ("observe", "optimizer"),
        (optax.adam(0.1), methods.famo().init(2), None),
        TypeError,
    ),
    Bad(lambda: jax.eval_shape(lambda x: from_nnx(Dropping).apply({}, {}, x, train=True)[0], X), ("from_nnx", "key")),
]

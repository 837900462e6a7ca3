"""A problem with training and validation losses, its derivatives in float64, and steps of bilevel methods."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtljax import value_and_grad
from mtljax.methods.from_batches import auto_lambda, forum, moml
from mtljax.types import Params

NAMES = "abc"


GENERATOR = np.random.default_rng(0)


INPUTS = {"train": GENERATOR.normal(size=(6, 4)), "val": GENERATOR.normal(size=(6, 4))}


TARGETS = {part: GENERATOR.normal(size=(3, 6)) for part in INPUTS}


WEIGHTS = {"shared": GENERATOR.normal(size=(4, 5)), "heads": GENERATOR.normal(size=(3, 5))}


def losses_fn(params, inputs, targets):
    hidden = jnp.tanh(inputs @ params.shared["w"])
    return {
        name: jnp.mean((hidden @ params.tasks[name] - targets[index]) ** 2)
        for name, index in zip(sorted(params.tasks), range(len(params.tasks)), strict=True)
    }


def problem(dtype=jnp.float32, keep=(0, 1, 2)):
    keep = list(keep)
    params = Params(
        {"w": jnp.asarray(WEIGHTS["shared"], dtype)}, {NAMES[k]: jnp.asarray(WEIGHTS["heads"][k], dtype) for k in keep}
    )
    batches = [(jnp.asarray(INPUTS[part], dtype), jnp.asarray(TARGETS[part][keep], dtype)) for part in INPUTS]
    return params, *batches


def vector(params, batch):
    losses = losses_fn(params, *batch)
    return jnp.stack([losses[name] for name in sorted(losses)])


def differences(function, point, step=1e-5):
    columns = []
    for index in range(point.size):
        shift = np.zeros(point.size)
        shift[index] = step
        columns.append((np.asarray(function(point + shift)) - np.asarray(function(point - shift))) / (2 * step))
    return np.stack(columns, axis=-1)


MAKERS = {
    "auto_lambda": functools.partial(auto_lambda, inner_lr=0.1),
    "moml": functools.partial(moml, inner_lr=0.1),
    "forum": functools.partial(forum, inner_lr=0.1),
}


@functools.cache
def stepper(name, **options):
    """One trace for a method and T; Adam's first step is the sign alone, so plain descent shows more."""
    method = MAKERS[name](optimizer=optax.sgd(1.0), **options)
    f = value_and_grad(losses_fn, method)
    return method, jax.jit(lambda params, state, train, val, active: f(params, state, train, val, active=active))


def quadratics():
    """`L_k = |theta - c_k|^2 / 2` on training data, centres elsewhere on validation data; no heads."""
    centers = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, -1.0]])
    others = np.array([[0.5, 0.3], [0.1, 1.5], [-2.0, 0.7]])
    point = np.array([0.2, -0.4])

    def quadratic(params, centers):
        return 0.5 * jnp.sum((params.shared[None, :] - centers) ** 2, axis=1)

    params = Params(jnp.asarray(point, jnp.float32), dict.fromkeys(NAMES, ()))
    return quadratic, params, point, centers, others

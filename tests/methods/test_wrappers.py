"""Methods made of methods: recurrences by hand, identities, what is kept for absent tasks, what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax.methods.apply import aggregate
from mtljax.methods.from_gramian import mgda, pcgrad
from mtljax.methods.from_jacobian import graddrop
from mtljax.methods.from_losses import equal
from mtljax.methods.wrappers import by_leaf, clip, ema, every, log_losses, normalize, per_group, rescale, warmup
from tests.methods.steps.wrapper import ROWS, counting, picking


@pytest.mark.parametrize(
    "wrap", [lambda m: rescale(m, 2.0), lambda m: clip(m, 2.0), log_losses, normalize], ids=range(4)
)
def test_kept_weights_keep_their_units(wrap):
    method = wrap(every(counting(), 2))
    losses = jnp.array([1.0, 2.0, 4.0])
    weights, state = method.update(4.0 * jnp.eye(3), method.init(3), losses=losses)
    assert not method.due(state)
    again, state = method.reuse(state, active=jnp.array([True, False, True]))
    np.testing.assert_allclose(again, jnp.where(jnp.array([True, False, True]), weights, 0.0))
    np.testing.assert_array_equal(state.weights, again)
    observed = method.observe(losses, state)
    assert jax.tree.structure(observed) == jax.tree.structure(state)


MISTAKES = [
    (lambda: ema(mgda(), 1.5), r"ema: decay must be"),
    (lambda: ema(graddrop()), "ema: method must return weights, found graddrop"),
    (lambda: ema(mgda(), initial=[1.0]).init(2), r"ema: initial must be of shape \[2\]"),
    (lambda: log_losses(mgda(), eps=-1.0), "log_losses: eps must be"),
    (
        lambda: log_losses(picking()),
        "log_losses: method must be one that reads all tasks in each step, .* found picking",
    ),
    (lambda: aggregate(log_losses(mgda()), ROWS), r"log_losses\(mgda\): losses must be of shape \(2,\), found None"),
    (lambda: normalize(equal()), "normalize: method must be one that reads gradients, found equal"),
    (lambda: rescale(equal()), "rescale: method must be one that reads gradients, found equal"),
    (lambda: rescale(mgda(), 0.0), "rescale: to must be"),
    (lambda: rescale(picking()), "rescale: method must be one that reads all tasks .* found picking"),
    (lambda: clip(mgda(), -1.0), "clip: max_norm must be"),
    (lambda: clip(equal(), 1.0), "clip: method must be one that reads gradients, found equal"),
    (lambda: warmup(mgda(), -1), "warmup: steps must be"),
    (
        lambda: warmup(equal(), 1, mgda()),
        "warmup: first must be a method that reads no more than equal, which reads losses, found mgda",
    ),
    (lambda: warmup(picking(), 1), "warmup: method must be one that reads all tasks in each step, .* found picking"),
    (lambda: per_group({}, by_leaf), "per_group: methods must hold one method per group, found none"),
    (
        lambda: per_group(picking(), by_leaf),
        "per_group: method must be one that reads all tasks in each step, .* found picking",
    ),
    (
        lambda: per_group(mgda(), by_leaf).init(2),
        "per_group: shared must be the shared parameters or their shapes, found None",
    ),
    (
        lambda: per_group({"a": mgda()}, by_leaf).init(2, {"b": ROWS}),
        r"methods must be for the groups \['b'\], found \['a'\]",
    ),
    (
        lambda: per_group(mgda(), {"a": "g"}).init(2, {"b": ROWS}),
        "per_group: groups must have the parameters' structure",
    ),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_are_named(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()


@pytest.mark.parametrize("name", ["ema", "log_losses", "normalize", "rescale", "clip", "warmup", "per_group"])
def test_a_train_step_takes_them(name):
    wrap = {
        "ema": ema,
        "log_losses": log_losses,
        "normalize": normalize,
        "rescale": rescale,
        "clip": lambda method: clip(method, 1.0),
        "warmup": lambda method: warmup(method, 1),
        "per_group": lambda method: per_group(method, by_leaf),
    }[name]
    method = wrap(pcgrad())
    params = mtljax.Params({"w": jnp.ones(2)}, {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, -4.0])})

    def losses_fn(params):
        return {k: jnp.sum((params.shared["w"] - params.tasks[k]) ** 2) for k in "ab"}

    step = jax.jit(mtljax.value_and_grad(losses_fn, method))
    _, grads, state = step(params, method.init(2, params.shared))
    _, grads, state = step(params, state)
    assert np.isfinite(grads.shared["w"]).all() and np.abs(grads.shared["w"]).max() > 0

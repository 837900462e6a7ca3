"""Bad batches given to a model's loss function, and bad models."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

import mtljax
from mtljax import losses, methods
from mtljax.types import Batch, Model, Params, Task
from tests.bad_calls.bad import Bad

SIZE = 4
TASKS = {"a": Task(losses.squared_error), "b": Task(losses.squared_error)}
PARAMS = Params({"w": jnp.ones((2, 3))}, {"a": (), "b": ()})
TARGETS = {"a": jnp.zeros((SIZE, 3)), "b": jnp.zeros((SIZE, 3))}
BATCH = Batch(jnp.ones((SIZE, 2)), TARGETS)
NO_MASKS = (jnp.ones(SIZE, int), None, True, [True])


def apply(params, state, inputs, *, tasks=None, key=None, train=False):
    return {k: inputs @ params.shared["w"] for k in ("ab" if tasks is None else tasks)}, state


def given(batch, tasks=TASKS, apply=apply):
    f = mtljax.make_losses_fn(Model(lambda key, inputs: (PARAMS, ()), apply), tasks)
    return functools.partial(jax.eval_shape, lambda: f(PARAMS, (), batch))


def masked(**mask):
    return given(BATCH._replace(mask=mask))


def returning(outputs):
    return given(BATCH, apply=lambda *args, **rest: (outputs, ()))


def judged(loss):
    return given(BATCH, {**TASKS, "b": Task(loss)})


BAD = [
    Bad(given(BATCH._replace(targets={"a": TARGETS["a"]})), ("losses_fn", "target", "'b'", "['a']")),
    Bad(given(BATCH._replace(targets={**TARGETS, "z": TARGETS["a"]})), ("losses_fn", "targets", "'z'", "['a', 'b']")),
    Bad(given(BATCH._replace(targets={**TARGETS, 3: TARGETS["a"]})), ("losses_fn", "targets", "3", "['a', 'b']")),
    *(Bad(given(BATCH._replace(targets=each)), ("losses_fn", "targets"), TypeError) for each in (None, TARGETS["a"])),
    *(Bad(given(BATCH._replace(mask=each)), ("losses_fn", "mask"), TypeError) for each in (None, jnp.ones(4, bool))),
    Bad(masked(z=jnp.ones(SIZE, bool)), ("losses_fn", "mask", "'z'")),
    Bad(masked(b=jnp.ones(3, bool)), ("losses_fn", "mask['b']", "B = 4", "[3]")),
    *(Bad(masked(b=each), ("losses_fn", "mask['b']", "bool"), TypeError) for each in NO_MASKS),
    # Of the elements, [4, 3], it has to be the first axes.
    *(
        Bad(masked(b=jnp.ones(shape)), ("the loss of task 'b'", "mask", "[4, 3]", str(list(shape))))
        for shape in ((SIZE, 1), (SIZE, 2), (SIZE, 3, 1))
    ),
    *(
        Bad(masked(b=jnp.ones((SIZE, 3)).at[1, 2].set(wrong)), ("losses_fn", "mask['b']", "at least 0"))
        for wrong in (-1.0, jnp.nan, jnp.inf)
    ),
    Bad(given(BATCH._replace(targets={**TARGETS, "b": jnp.zeros((SIZE, 1))})), ("'b'", "[4, 1]")),
    *(Bad(given(each), ("losses_fn", "batch", "Batch"), TypeError) for each in ((1, 2), None, TARGETS, {"a": 1})),
    Bad(given({"a": BATCH}), ("losses_fn", "multi-input", "['a', 'b']", "['a']")),
    Bad(given({"a": BATCH._replace(targets={}), "b": BATCH}), ("losses_fn", "the batch of task 'a'", "target")),
    Bad(returning({"a": TARGETS["a"]}), ("losses_fn", "model", "'b'", "['a']")),
    *(Bad(returning(each), ("losses_fn", "model"), TypeError) for each in (None, TARGETS["a"])),
    *(Bad(judged(lambda x, y, each=each: each), "'b'") for each in (jnp.ones(1), jnp.ones(2 * SIZE), jnp.ones(()))),
    Bad(
        lambda: mtljax.value_and_grad(lambda p: {"a": jnp.array(1.0)}, methods.equal(), has_aux=True)(
            Params((), {"a": ()}), methods.equal().init(1)
        ),
        ("losses_fn", "(losses, aux)", "has_aux"),
        TypeError,
    ),
]

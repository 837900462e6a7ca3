"""Bad calls of methods as links of an optax chain, and of steps made by hand."""

from __future__ import annotations

import jax.numpy as jnp

import mtljax
from mtljax import methods
from tests.bad_calls.bad import Bad, each

PARAMS = mtljax.Params(jnp.ones(2), {"a": jnp.ones(2), "b": jnp.ones(2)})
ROWS = PARAMS._replace(shared=jnp.eye(2))


def update(method=None, updates=ROWS, state=None, **rest):
    link = mtljax.as_optax(methods.equal() if method is None else method)
    return link.update(updates, link.init(PARAMS) if state is None else state, **rest)


def told(losses, state=None):
    method = methods.famo()
    return mtljax.observe(method, losses, mtljax.Unobserved(*method.init(2)) if state is None else state)


BAD = [
    *each(lambda losses: update(losses=losses), ("as_optax", "losses"), (jnp.ones(3), jnp.ones(()), jnp.ones((2, 2)))),
    *each(
        lambda losses: update(losses=losses),
        ("as_optax", "losses", "['a', 'b']"),
        ({"a": 1.0}, {"a": 1.0, "c": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}),
    ),
    Bad(lambda: update(losses=jnp.ones(2), task_losses=jnp.ones(2)), ("as_optax", "losses=", "task_losses=")),
    Bad(lambda: update(), ("equal", "losses")),
    Bad(lambda: update(losses=jnp.ones(2), active=jnp.ones(3, bool)), ("equal", "active")),
    Bad(lambda: update(losses=jnp.ones(2), active=jnp.ones(2)), ("equal", "active"), TypeError),
    Bad(lambda: update(updates=PARAMS._replace(shared=jnp.ones(3))), ("as_optax", "updates.shared", "(3,)")),
    Bad(lambda: update(updates={"w": jnp.ones(3)}), ("as_optax", "names", "Params", "None")),
    Bad(lambda: update(updates=ROWS._replace(tasks={"a": jnp.ones(2)}), losses=jnp.ones(2)), ("as_optax", "tasks")),
    *each(lambda state: update(state=state), ("as_optax", "state"), (methods.equal().init(2), (), 1.0), TypeError),
    Bad(
        lambda: update(methods.famo(), state=update(methods.famo(), losses=jnp.ones(2))[1], losses=jnp.ones(2)),
        ("as_optax", "famo", "mtljax.observe"),
    ),
    *each(told, ("observe", "losses"), (jnp.ones(3), jnp.ones(()), {"a": 1.0})),
    *each(lambda state: told(jnp.ones(2), state), ("observe", "state", "famo"), (methods.famo().init(2), (), {})),
]

"""Bad calls with parameters that are one pytree: `names=`, `own=`, and the link that carries a method's state."""

from __future__ import annotations

import jax
import jax.numpy as jnp

import mtljax
from mtljax import methods
from tests.bad_calls.bad import NO_FUNCTIONS, Bad, count, each

MGDA = methods.mgda()
TREE = {"trunk": jnp.ones(2), "heads": {"a": jnp.ones(2), "c": jnp.ones(2)}}
PARAMS = mtljax.Params({"w": jnp.ones(2)}, {"a": jnp.ones(2), "c": jnp.ones(2)})
HEADS = {"a": "heads/a", "c": "heads/c"}
ROWS = jax.tree.map(lambda leaf: jnp.ones((2, *leaf.shape)), TREE)


def losses_fn(tree):
    return {k: jnp.sum(tree["trunk"] * tree["heads"][k]) for k in "ac"}


def value(losses_fn=losses_fn, params=TREE, method=MGDA, state=None, **rest):
    f = mtljax.value_and_grad(losses_fn, method, **rest)
    return jax.eval_shape(lambda: f(params, method.init(2) if state is None else state))


def rows(losses_fn=losses_fn, params=TREE, **rest):
    return jax.eval_shape(lambda: mtljax.value_and_task_grads(losses_fn, **rest)(params))


def link(own, **rest):
    made = mtljax.as_optax(MGDA, **{"names": ["a", "c"], **rest}, own=own)
    return jax.eval_shape(lambda: made.update(ROWS, made.init(TREE)))


def carried(params=TREE, own=None, num_tasks=2):
    return jax.eval_shape(lambda: mtljax.carry(methods.moco(), num_tasks, own=own).init(params))


NOWHERE = [{"a": "heads/b"}, {"a": "head"}, {"a": ["heads/a", "nowhere"]}]
TWICE = {"a": "heads", "c": "heads/c"}

BAD = [
    # names
    *each(lambda n: value(names=n), ("value_and_grad", "names"), ["ac", 2, [1, 2]], TypeError),
    *each(lambda n: value(names=n), ("value_and_grad", "names"), [[], ["a", "a"]]),
    *each(lambda n: value(names=n), ("value_and_grad", "losses", "['a', 'c']"), [["a"], ["a", "b"], ["a", "b", "c"]]),
    *each(lambda n: rows(names=n), ("value_and_task_grads", "losses", "['a', 'c']"), [["a"], ["a", "b"]]),
    Bad(
        lambda: value(lambda tree: jnp.ones(2) * tree["trunk"].sum(), names=["a", "b", "c"]),
        ("value_and_grad", "losses", "(3,)", "(2,)"),
    ),
    Bad(lambda: value(params=PARAMS, names=["a", "c"]), ("value_and_grad", "names", "Params", "['a', 'c']")),
    Bad(lambda: rows(params=PARAMS, names=["a", "c"]), ("value_and_task_grads", "names", "Params")),
    # losses of one pytree
    Bad(lambda: value(lambda tree: {1: tree["trunk"].sum()}), ("losses_fn", "losses", "1"), TypeError),
    *each(lambda x: value(lambda tree: x), ("losses_fn", "losses"), [None, "ac", [1.0], jnp.ones(())], TypeError),
    Bad(
        lambda: value(lambda tree: {"a": tree["trunk"], "c": tree["trunk"]}),
        ("value_and_grad", "'a'", "scalar", "(2,)"),
    ),
    Bad(lambda: value(lambda tree: {"a": jnp.array(1)}), ("value_and_grad", "'a'", "int32"), TypeError),
    Bad(lambda: value(state=MGDA.init(3)), ("mgda", "3 tasks", "['a', 'c']")),
    Bad(lambda: value(state=(MGDA.init(2), MGDA.init(2))), ("value_and_grad", "state", "mgda", "2")),
    Bad(lambda: value(state={"w": jnp.ones(2)}), ("mgda", "state"), TypeError),
    # own
    *each(lambda o: value(own=o), ("value_and_grad", "own"), ["heads", 1.0, ["heads"]], TypeError),
    *each(lambda o: value(own=o), ("value_and_grad", "own['a']"), [{"a": 1}, {"a": [1]}], TypeError),
    *each(lambda o: value(own=o), ("value_and_grad", "own['a']", "heads/a"), NOWHERE),
    Bad(lambda: value(own=TWICE), ("value_and_grad", "own", "'heads/c'", "'a'", "'c'")),
    Bad(lambda: value(own={"x": "heads/a"}), ("value_and_grad", "own", "['a', 'c']", "'x'")),
    Bad(lambda: value(own=lambda path: "x"), ("value_and_grad", "own", "['a', 'c']", "'x'")),
    Bad(lambda: value(own=lambda path: 1), ("value_and_grad", "own", "['a', 'c']", "1")),
    Bad(lambda: value(own={"a": "trunk"}), ("losses_fn", "own", "'trunk'", "'a'", "['c']")),
    Bad(lambda: value(own={"c": "heads/a"}), ("losses_fn", "own", "'heads/a'", "'c'", "['a']")),
    *each(lambda o: value(params=PARAMS, own=o), ("value_and_grad", "own", "Params"), [{}, HEADS]),
    # as_optax
    *each(lambda o: link(o), ("as_optax", "own"), ["heads", 1.0], TypeError),
    *each(lambda o: link(o), ("as_optax", "own['a']"), NOWHERE),
    Bad(lambda: link(TWICE), ("as_optax", "own", "'heads/c'")),
    Bad(lambda: link({"x": "heads/a"}), ("as_optax", "own", "'x'")),
    Bad(lambda: link(None, names=None), ("as_optax", "names", "Params", "None")),
    # carry
    *each(lambda m: mtljax.carry(m, 2), ("carry", "method"), [*NO_FUNCTIONS, methods.mgda], TypeError),
    *count(lambda n: mtljax.carry(MGDA, n), ("carry", "num_tasks"), 0),
    *each(lambda o: carried(own=o), ("carry", "own"), ["heads", 1.0], TypeError),
    *each(lambda o: carried(own=o), ("carry", "own['a']"), NOWHERE),
    Bad(lambda: carried(own=TWICE), ("carry", "own", "'heads/c'")),
    Bad(lambda: carried(PARAMS, own=HEADS), ("carry", "own", "Params")),
    Bad(lambda: carried(PARAMS, num_tasks=3), ("carry", "num_tasks", "2", "3")),
    Bad(
        lambda: value(method=methods.moco(), state=methods.moco().init(2, TREE)),
        ("value_and_grad", "moco", "own=", "mtljax.carry", "heads/a"),
    ),
]

"""Bad calls of what joins losses and methods: `aggregate`, `value_and_grad`, engines, `as_optax`, the step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from mtljax import engines, methods, training
from mtljax.types import Params, Task
from tests.bad_calls.bad import NAN, NO_FLAGS, NO_FUNCTIONS, Bad, count, each

MGDA, KEY = methods.mgda(), jax.random.key(0)
NO_METHODS = (methods.pcgrad, "mgda", None, optax.sgd(0.1))
NO_ENGINES = (engines.full, "full", 1)
PARAMS = Params({"w": jnp.ones(2)}, {"a": jnp.ones(2), "c": jnp.ones(2)})
J = jnp.ones((2, 3))


def losses_fn(params, *args):
    return {k: jnp.sum(params.shared["w"] * params.tasks[k]) for k in "ac"}


def step_losses(params, state, batch, key, train):
    return losses_fn(params), mtljax.Aux(state)


def aggregate(*args, **rest):
    """Traced, so that nothing is compiled on the way to the error."""
    return jax.eval_shape(lambda: mtljax.aggregate(*args, **rest))


def value(losses, params=PARAMS, method=MGDA, state=None, **rest):
    f = mtljax.value_and_grad(lambda params: losses, method)
    state = method.init(2, PARAMS.shared) if state is None else state
    return lambda: jax.eval_shape(lambda: f(params, state, **rest))


def made(**rest):
    given = {"losses_fn": step_losses, "method": MGDA, "optimizer": optax.sgd(0.1), **rest}
    return training.make_train_step(**given)


def plain_step(**rest):
    """A step on one pytree of which a and c each have a leaf of their own."""

    def losses(params, state, batch, key, train):
        return {k: jnp.sum(params["w"] * params[k]) for k in "ac"}, mtljax.Aux(state)

    init, step = made(losses_fn=losses, **rest)
    params = {k: jnp.ones(2) for k in ("a", "c", "w")}
    return lambda: jax.eval_shape(lambda: step(init(params, key=KEY), None))


LINK = mtljax.as_optax(MGDA, names=["a", "c"])
STATE = LINK.init({"w": jnp.ones(3)})
TWO = {"a": jnp.array(1.0), "c": jnp.array(1.0)}
MODEL, TASK = mtljax.Model(losses_fn, losses_fn), Task(mtljax.losses.squared_error)

BAD = [
    # aggregate
    *each(lambda m: aggregate(m, J), ("aggregate", "method"), NO_METHODS, TypeError),
    *each(
        lambda x: aggregate(MGDA, x),
        ("aggregate", "jacobian"),
        [J.astype(int), J.astype(bool), J.astype(complex), [[1.0, 2.0]], "J", 1.0, {"w": "x"}, np.ones((2, 3), int)],
        TypeError,
    ),
    *each(
        lambda x: aggregate(MGDA, x),
        ("aggregate", "jacobian"),
        [None, {}, jnp.ones(()), {"a": J, "b": J[:1]}, jnp.ones((0, 3))],
    ),
    *each(lambda x: aggregate(MGDA, J, losses=x), ("mgda", "losses"), [[1.0, 2.0], "12", 1.0], TypeError),
    Bad(lambda: aggregate(MGDA, J, losses=jnp.ones(2, int)), ("mgda", "losses", "int32"), TypeError),
    Bad(lambda: aggregate(MGDA, J, losses=jnp.ones(3)), ("mgda", "losses", "(2,)", "(3,)")),
    *each(lambda x: aggregate(methods.pcgrad(), J, key=x), ("pcgrad", "key"), [0, "key"], TypeError),
    *each(lambda x: aggregate(MGDA, J, active=x), ("mgda", "active"), [[True, False], jnp.ones(2), 1], TypeError),
    Bad(lambda: aggregate(MGDA, J, active=jnp.ones(3, bool)), ("mgda", "active", "(2,)", "(3,)")),
    Bad(lambda: aggregate(methods.equal(), J), ("equal", "losses", "(2,)")),
    *each(lambda m: methods.reconcile(m, MGDA.init(2), J), ("reconcile", "method"), NO_METHODS, TypeError),
    *each(lambda s: methods.reconcile(MGDA, s, J), ("mgda", "state"), [None, (), jnp.ones(2)], TypeError),
    *each(lambda m: methods.weigh(m, J, MGDA.init(2)), ("weigh", "method"), NO_METHODS, TypeError),
    Bad(lambda: methods.reconcile(MGDA, MGDA.init(3), J), ("mgda", "jacobian", "3 rows", "found 2")),
    # value_and_grad and its kin
    *each(lambda f: mtljax.value_and_grad(f, MGDA), ("value_and_grad", "losses_fn"), NO_FUNCTIONS, TypeError),
    *each(lambda m: mtljax.value_and_grad(losses_fn, m), ("value_and_grad", "method"), NO_METHODS, TypeError),
    Bad(lambda: mtljax.value_and_grad(losses_fn, methods.pcgrad), "call it: pcgrad()", TypeError),
    *each(
        lambda x: mtljax.value_and_grad(losses_fn, MGDA, has_aux=x), ("value_and_grad", "has_aux"), NO_FLAGS, TypeError
    ),
    *each(
        lambda x: mtljax.value_and_grad(losses_fn, MGDA, engine=x), ("value_and_grad", "engine"), NO_ENGINES, TypeError
    ),
    *each(
        lambda x: mtljax.value_and_grad(losses_fn, MGDA, axis_name=x),
        ("value_and_grad", "axis_name"),
        [1, (1, 2), 2.5],
        TypeError,
    ),
    *each(mtljax.value_and_task_grads, ("value_and_task_grads", "losses_fn"), NO_FUNCTIONS, TypeError),
    *each(
        lambda x: mtljax.value_and_task_grads(losses_fn, has_aux=x),
        ("value_and_task_grads", "has_aux"),
        NO_FLAGS,
        TypeError,
    ),
    *each(methods.sampled, ("sampled", "method"), NO_METHODS, TypeError),
    Bad(lambda: methods.sampled(methods.equal()), ("sampled", "method", "equal")),
    *count(lambda n: methods.sampled(MGDA, n), ("sampled", "batches"), 1),
    *(
        Bad(value(TWO, params), ("value_and_grad", "params"), TypeError)
        for params in (None, (1, 2), "w", {"n": jnp.arange(2)}, Params({}, {}))
    ),
    Bad(value(TWO, Params({}, [jnp.ones(2)])), ("value_and_grad", "params.tasks"), TypeError),
    *(
        Bad(value(TWO, Params({"n": leaf}, PARAMS.tasks)), ("value_and_grad", "['n']"), TypeError)
        for leaf in (jnp.arange(2), jnp.ones(2, bool), jnp.ones(2, complex))
    ),
    Bad(value({"a": jnp.array(1.0)}), ("losses_fn", "['a', 'c']", "['a']")),
    Bad(value(jnp.ones(3)), ("losses_fn", "(2,)", "(3,)")),
    Bad(value({**TWO, "c": jnp.ones(4)}), ("losses_fn", "task 'c'", "scalar", "(4,)")),
    Bad(value({**TWO, "c": jnp.array(1)}), ("losses_fn", "task 'c'", "int32"), TypeError),
    Bad(value({**TWO, "c": "x"}), ("losses_fn", "task 'c'", "'x'"), TypeError),
    Bad(value({**TWO, "c": None}), ("losses_fn", "task 'c'", "None"), TypeError),
    *(Bad(value(each), ("losses_fn", "losses"), TypeError) for each in (None, "12", [jnp.ones(())] * 2)),
    Bad(value(TWO, state=MGDA.init(3)), ("mgda", "3 tasks", "['a', 'c']")),
    Bad(value(TWO, state=methods.famo().init(2)), ("mgda", "state", "FamoState")),
    Bad(value(TWO, state=jnp.ones(2)), ("mgda", "state"), TypeError),
    Bad(value(TWO, active=jnp.ones(3, bool)), ("mgda", "active", "(2,)")),
    Bad(value(TWO, active=jnp.ones(2)), ("mgda", "active"), TypeError),
    Bad(value(TWO, key=0), ("mgda", "key"), TypeError),
    # engines
    *count(engines.chunked, ("chunked", "size"), 0, -1),
    *(row for row in count(engines.gramian, ("gramian", "chunk"), 0, -1) if row.call.args != (None,)),
    *each(engines.full, ("full", "rows"), ["looped", 2], TypeError),
    *each(engines.features, ("features", "model"), ["model", losses_fn], TypeError),
    Bad(lambda: engines.features(mtljax.Model(losses_fn, losses_fn)), ("features", "encode")),
    *each(lambda m: engines.explain(losses_fn, m, PARAMS), ("explain", "method"), NO_METHODS, TypeError),
    *each(lambda f: engines.explain(f, MGDA, PARAMS), ("explain", "losses_fn"), NO_FUNCTIONS, TypeError),
    Bad(
        lambda: jax.eval_shape(
            lambda: mtljax.value_and_grad(losses_fn, methods.db_mtl(), engine=engines.features())(
                PARAMS, methods.db_mtl().init(2, PARAMS.shared)
            )
        ),
        ("features", "db_mtl", "state"),
    ),
    # as_optax
    *each(mtljax.as_optax, ("as_optax", "method"), NO_METHODS, TypeError),
    *each(lambda n: mtljax.as_optax(MGDA, names=n), ("as_optax", "names"), ["ab", 2, [1, 2]], TypeError),
    *each(lambda n: mtljax.as_optax(MGDA, names=n), ("as_optax", "names"), [[], ["a", "a"]]),
    Bad(lambda: LINK.update({"w": jnp.ones((3, 2))}, STATE), ("as_optax", "updates['w']", "2", "(3, 2)")),
    Bad(lambda: LINK.update({"w": jnp.ones((2, 2), int)}, STATE), ("jacobian['w']", "int32"), TypeError),
    Bad(lambda: LINK.update({"w": J}, STATE, losses=jnp.ones(3)), ("as_optax", "losses", "(2,)", "(3,)")),
    Bad(
        lambda: LINK.update(Params({"w": J}, PARAMS.tasks), STATE, losses={"a": 1.0, "b": 1.0}),
        ("as_optax", "losses", "['a', 'c']", "['a', 'b']"),
    ),
    *(
        Bad(lambda state=state: LINK.update({"w": J}, state), ("as_optax", "state", "OptaxState"), TypeError)
        for state in (methods.famo().init(2), (STATE,), None)
    ),
    Bad(lambda: LINK.update({"w": J}, STATE._replace(method=methods.famo().init(2))), ("mgda", "state", "FamoState")),
    # training
    *each(lambda f: made(losses_fn=f), ("make_train_step", "losses_fn"), NO_FUNCTIONS, TypeError),
    *each(lambda m: made(method=m), ("make_train_step", "method"), NO_METHODS, TypeError),
    *each(
        lambda o: made(optimizer=o), ("make_train_step", "optimizer"), [optax.adam, "adam", None, 1e-3, MGDA], TypeError
    ),
    *each(lambda p: made(penalty=p), ("make_train_step", "penalty"), [1.0, "l2"], TypeError),
    *each(lambda e: made(engine=e), ("make_train_step", "engine"), NO_ENGINES, TypeError),
    *each(lambda n: made(names=n), ("make_train_step", "names"), ["ab", 2, [1, 2]], TypeError),
    *each(lambda n: made(names=n), ("make_train_step", "names"), [[], ["a", "a"]]),
    Bad(lambda: made(names=["a", "c"])[0](PARAMS, key=KEY), ("make_train_step", "names", "Params", "['a', 'c']")),
    *each(lambda a: made(axis_name=a), ("make_train_step", "axis_name"), [1, (1, 2), 2.5], TypeError),
    *each(lambda k: made()[0](PARAMS, key=k), ("init", "key"), [0, None, "key", jnp.ones(2)], TypeError),
    *each(lambda p: made()[0](p, key=KEY), ("init", "params", "names"), [{"w": 1.0}, None, [1.0]], TypeError),
    *each(
        lambda p: made(names=["a", "c"])[0](p, key=KEY), ("init", "params"), [None, {}, {"w": jnp.arange(2)}], TypeError
    ),
    Bad(plain_step(names=["a", "b"]), ("losses", "['a', 'b']", "['a', 'c']")),
    Bad(plain_step(names=["a", "c"], method=methods.moco()), ("make_train_step", "moco", "Params", "['a', 'c']")),
    # losses_fn
    *each(
        lambda m: mtljax.make_losses_fn(m, {"a": TASK}), ("losses_fn", "model"), [None, losses_fn, "model"], TypeError
    ),
    *each(
        lambda t: mtljax.make_losses_fn(MODEL, t), ("losses_fn", "tasks"), [None, TASK, [TASK], {1: TASK}], TypeError
    ),
    Bad(lambda: mtljax.make_losses_fn(MODEL, {}), ("losses_fn", "tasks")),
    *each(
        lambda task: mtljax.make_losses_fn(MODEL, {"a": task}),
        ("losses_fn", "'a'"),
        [None, "mse", mtljax.losses.squared_error, Task, Task("mse"), Task(None)],
        TypeError,
    ),
    *each(
        lambda prior: mtljax.make_losses_fn(MODEL, {"a": TASK._replace(prior=prior)}),
        ("losses_fn", "'a'", "prior"),
        [0.0, -1.0, NAN, float("inf"), jnp.ones(2)],
    ),
    *each(
        lambda prior: mtljax.make_losses_fn(MODEL, {"a": TASK._replace(prior=prior)}),
        ("losses_fn", "'a'", "prior"),
        ["1", None, True, 1j],
        TypeError,
    ),
]

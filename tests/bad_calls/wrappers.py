"""Bad arguments of the wrappers."""

from __future__ import annotations

import jax.numpy as jnp

from mtljax import methods
from mtljax.methods import options
from tests.bad_calls.bad import INF, NAN, NO_NUMBERS, Bad, count, each, number

MGDA = methods.mgda()
WRAPPERS = {
    "clip": (1.0,),
    "ema": (),
    "every": (2,),
    "log_losses": (),
    "normalize": (),
    "per_group": (options.by_leaf,),
    "preference": ([1.0, 2.0],),
    "rescale": (),
    "warmup": (2,),
}
VECTORS = [([1.0, NAN], ValueError), ([[1.0]], ValueError), (1.0, ValueError), ("1", TypeError), ([True], TypeError)]
STATES = [
    (methods.ema(MGDA), "ema"),
    (methods.every(MGDA, 2), "every"),
    (methods.clip(MGDA, 1.0), "clip"),
    (methods.rescale(MGDA), "rescale"),
    (methods.warmup(MGDA, 2), "warmup"),
    (methods.normalize(MGDA), "normalize"),
]

BAD = [
    *(
        row
        for name, rest in WRAPPERS.items()
        for row in each(
            lambda method, name=name, rest=rest: getattr(methods, name)(method, *rest),
            (name, "method"),
            [methods.pcgrad, "mgda", None, 1.0],
            TypeError,
        )
    ),
    Bad(lambda: methods.ema(methods.pcgrad), "call it: pcgrad()", TypeError),
    *number(lambda x: methods.clip(MGDA, x), ("clip", "max_norm"), 0.0, -1.0),
    *each(lambda x: methods.ema(MGDA, x), ("ema", "decay"), ["1", None, 1j, True, {}], TypeError),
    *each(lambda x: methods.ema(MGDA, x), ("ema", "decay"), [1.5, -0.1, NAN, [0.5, 0.5]]),
    *(Bad(lambda x=x: methods.ema(MGDA, initial=x), ("ema", "initial"), error) for x, error in VECTORS),
    Bad(lambda: methods.cr_mogm(MGDA, initial=[NAN, 1.0, 1.0]), ("ema", "initial")),
    Bad(lambda: methods.ema(MGDA, initial=[1.0]).init(2), ("ema", "initial", "[2]")),
    *count(lambda n: methods.every(MGDA, n), ("every", "n"), 0, -1),
    *count(lambda n: methods.warmup(MGDA, n), ("warmup", "steps"), -1),
    *each(lambda x: methods.warmup(MGDA, 1, x), ("warmup", "first"), [methods.equal, "equal", 1.0], TypeError),
    *number(lambda x: methods.log_losses(MGDA, eps=x), ("log_losses", "eps"), -1.0, INF),
    *each(lambda x: methods.rescale(MGDA, x), ("rescale", "to"), ["1", None, 1j, True, {}], TypeError),
    *each(lambda x: methods.rescale(MGDA, x), ("rescale", "to"), [0.0, -1.0, NAN, INF, [1.0, 2.0]]),
    *each(lambda x: methods.preference(MGDA, x), ("preference", "vector"), NO_NUMBERS, TypeError),
    *(Bad(lambda x=x: methods.preference(MGDA, x), ("preference", "vector"), error) for x, error in VECTORS),
    Bad(lambda: methods.preference(MGDA, [1.0, -1.0]), ("preference", "vector", "at least 0")),
    Bad(lambda: methods.preference(MGDA, [1.0, 2.0]).init(3), ("preference", "vector", "[3]")),
    Bad(lambda: methods.per_group(MGDA, "layers"), ("per_group", "groups", "'layers'"), TypeError),
    *each(
        lambda groups: methods.per_group(MGDA, groups).init(2, jnp.ones(3)),
        ("per_group", "groups"),
        [1.0, lambda path: None, jnp.ones(2)],
        TypeError,
    ),
    Bad(lambda: methods.per_group({}, options.by_leaf), ("per_group", "methods")),
    Bad(lambda: methods.per_group({"a": methods.mgda}, options.by_leaf), ("per_group", "methods"), TypeError),
    Bad(lambda: methods.per_group(MGDA, options.by_leaf).init(2), ("per_group", "shared")),
    Bad(lambda: methods.per_group(MGDA, options.by_leaf, weigh_tasks=1), ("per_group", "weigh_tasks"), TypeError),
    *(
        Bad(lambda method=method: method.update(jnp.eye(3), methods.famo().init(3)), (name, "state", "FamoState"))
        for method, name in STATES
    ),
    *(
        Bad(lambda method=method: method.update(jnp.eye(2), method.init(3)), (name, "gramian", "(3, 3)", "(2, 2)"))
        for method, name in STATES
    ),
]

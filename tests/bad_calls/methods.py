"""Bad arguments of the methods."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from mtljax import methods
from mtljax.methods import options
from tests.bad_calls.bad import INF, NAN, NO_FLAGS, NO_FUNCTIONS, NO_NUMBERS, Bad, count, each, number


def call(name: str, argument: str, **rest):
    return lambda value: getattr(methods, name)(**{**rest, argument: value})


# Method, argument, numbers out of its range.
NUMBERS = [
    ("uncertainty", "log_variance", INF),
    ("uncertainty_softmax", "temperature", 0.0, -1),
    ("dwa", "temperature", 0, -2.0),
    ("cov_weighting", "epsilon", -1.0, INF),
    ("dynamic_task_priority", "smoothing", 0, 1.5),
    ("dynamic_task_priority", "floor", 0.0),
    ("famo", "learning_rate", 0, INF),
    ("famo", "gamma", -1.0),
    ("famo", "epsilon", 0.0),
    ("go4align", "step_size", -1e-4),
    ("ldc_mtl", "penalty", -0.1),
    ("loss_normalization", "step_size", 0, 2),
    ("loss_normalization", "floor", -1),
    ("stch", "mu", 0, -1.0),
    ("pbi", "theta", -0.5),
    ("cosmos", "penalty", -1.0),
    ("epo", "eps", -1.0),
    ("cagrad", "c", -1.0, INF),
    ("conicgrad", "c", -0.1, 1.1),
    ("fairgrad", "alpha", -1.0, INF),
    ("ntkmtl", "exponent", INF),
    ("gradnorm", "alpha", -1.0),
    ("gradvac", "beta", -0.1, 1.5),
    ("modo", "gamma", -1.0),
    ("modo", "rho", -1.0),
    ("pivrg", "bound", 1.0),
    ("pivrg", "min_temperature", 0.0),
    ("sdmgrad", "pull", -1.0),
    ("sdmgrad", "rate", 0.0),
    ("sdmgrad", "momentum", 1.0, -0.1),
    ("db_mtl", "beta", 1.0),
    ("db_mtl", "decay", -1.0),
    ("db_mtl", "eps", -1.0),
    ("excess_mtl", "step_size", 0.0),
    ("excess_mtl", "eps", -1.0),
    ("m_config", "beta", 1.0),
    ("moco", "beta", 0.0),
    ("moco", "beta_decay", -1.0),
    ("moco", "gamma", -1.0),
    ("moco", "gamma_decay", -1.0),
    ("moco", "rho", -1.0),
    ("sam_gs", "momentum", 1.0),
    ("sam_gs", "beta", -0.1),
    ("sam_gs", "threshold", -1.0),
    ("sam_gs", "eps", -1.0),
]
COUNTS = [
    ("dwa", "period", 0),
    ("igb", "period", 0),
    ("go4align", "num_groups", 0),
    ("krum", "n_byzantine", -1),
    ("krum", "n_selected", 0),
    ("trimmed_mean", "trim", -1),
]
OPTIONAL_COUNTS = [("igb", "start", -1), ("sdmgrad", "steps", 0)]
# Numbers [T]: method, argument, whether negative ones are refused.
VECTORS = [
    ("fixed", "weights", False),
    ("stch", "reference", False),
    ("pbi", "reference", False),
    ("tchebycheff", "reference", False),
    ("famo", "min_losses", False),
    ("dynamic_task_priority", "gamma", True),
    ("graddrop", "leak", True),
]
PREFERRING = ["upgrad", "dualproj", "config", "aligned_mtl", "epo", "sdmgrad", "stch", "tchebycheff", "pbi", "cosmos"]
FLAGS = [
    ("random", "rescale"),
    ("mean_log", "mean"),
    ("cagrad", "rescale"),
    ("gradnorm", "softmax"),
    ("gradnorm", "normalize"),
    ("gradvac", "follow_all"),
    ("gradvac", "mean"),
    ("krum", "squared"),
    ("mgda", "normalized_update"),
    ("modo", "normalize"),
    ("pcgrad", "mean"),
    ("aligned_mtl", "mean"),
    ("sdmgrad", "normalize"),
    ("epo", "relax"),
    ("excess_mtl", "mean"),
    ("excess_mtl", "relative_from_first"),
    *((name, "weigh_tasks") for name in ("mgda", "upgrad", "nash_mtl", "imtl_g", "consmtl", "moco")),
]
FUNCTIONS = [
    ("dynamic_task_priority", "kpi"),
    ("ldc_mtl", "scaling"),
    ("config", "length"),
    ("aligned_mtl", "level"),
    ("graddrop", "monotone"),
    ("moco", "projection"),
]
OPTIMIZERS = ["uncertainty", "imtl_l", "ldc_mtl", "gradnorm", "adatask"]
GRAMIAN, LOSSES = jnp.eye(3), jnp.ones(3)


def fed(name: str, evidence, *, tasks: int = 3, state=None, **rest):
    method = getattr(methods, name)()
    shared = jnp.ones(2)
    return lambda: method.update(evidence, method.init(tasks, shared) if state is None else state, **rest)


FED = [
    # Another number of tasks.
    *(Bad(fed(name, GRAMIAN, tasks=2), (name, "gramian", "(2, 2)", "(3, 3)")) for name in ("krum", "mgda", "pcgrad")),
    *(Bad(fed(name, LOSSES, tasks=2), (name, "losses", "(2,)", "(3,)")) for name in ("go4align", "equal", "famo")),
    Bad(fed("pooled", LOSSES, weight_sum=jnp.ones(2)), ("pooled", "weight_sum", "(3,)", "(2,)")),
    Bad(fed("pooled", LOSSES, weight_sum=jnp.ones(3, int)), ("pooled", "weight_sum", "floating"), TypeError),
    *(Bad(fed(name, jnp.ones((3, 2)), tasks=2), (name, "task gradients")) for name in ("db_mtl", "graddrop")),
    *(
        Bad(fed(name, GRAMIAN, losses=jnp.ones(2)), (name, "losses", "(3,)", "(2,)"))
        for name in ("gradnorm", "epo", "mgda")
    ),
    # Other types.
    *(
        Bad(fed("mgda", GRAMIAN.astype(kind)), ("mgda", "gramian", "floating"), TypeError)
        for kind in (int, bool, complex)
    ),
    *(Bad(fed("equal", LOSSES.astype(kind)), ("equal", "losses", "floating"), TypeError) for kind in (int, bool)),
    *(
        Bad(fed("graddrop", jnp.ones((3, 2), kind)), ("graddrop", "task gradients", "floating"), TypeError)
        for kind in (int, bool, complex)
    ),
    *(Bad(fed("pcgrad", GRAMIAN, key=key), ("pcgrad", "key"), TypeError) for key in (0, "key", np.zeros(2))),
    Bad(fed("pcgrad", GRAMIAN), ("pcgrad", "key")),
    Bad(fed("graddrop", jnp.ones((3, 2))), ("graddrop", "key")),
    *(Bad(fed("mgda", GRAMIAN, active=each), ("mgda", "active"), TypeError) for each in ([True] * 3, jnp.ones(3), 1)),
    Bad(fed("mgda", GRAMIAN, active=jnp.ones(2, bool)), ("mgda", "active", "(3,)", "(2,)")),
    # The state of another method.
    Bad(fed("mgda", GRAMIAN, state=methods.famo().init(3)), ("mgda", "state", "FamoState")),
    Bad(fed("famo", LOSSES, state=methods.mgda().init(3)), ("famo", "state", "FamoState", "nothing")),
    Bad(fed("modo", GRAMIAN, state=methods.sdmgrad().init(3)), ("modo", "state", "SDMGradState")),
    Bad(fed("db_mtl", jnp.ones((3, 2)), state=methods.db_mtl().init(3, jnp.ones(5))), ("db_mtl", "state", "(3, 5)")),
    *(Bad(fed("mgda", GRAMIAN, state=each), ("mgda", "state"), TypeError) for each in ((), LOSSES)),
    *count(lambda tasks: methods.mgda().init(tasks), ("mgda", "num_tasks"), 0, -1),
    Bad(lambda: methods.famo().observe(jnp.ones(2), methods.famo().init(3)), ("famo", "losses_after", "(3,)", "(2,)")),
    Bad(lambda: methods.pivrg().update(GRAMIAN, methods.pivrg().init(3), scores=[1.0]), ("pivrg", "scores", "[3]")),
    # Settings for another number of tasks.
    *(Bad(lambda name=name: getattr(methods, name)(preference=[1.0, 2.0]).init(3), name) for name in PREFERRING),
    Bad(lambda: methods.fixed([1.0, 2.0]).init(3), ("fixed", "weights", "3 tasks", "2 entries")),
    Bad(lambda: methods.stch(reference=[1.0, 2.0]).init(3), ("stch", "reference", "3", "2")),
    Bad(lambda: methods.graddrop(leak=[0.1, 0.2]).init(3), ("graddrop", "leak", "3", "2")),
    Bad(lambda: methods.gradnorm(initial_losses=[1.0]).init(3), ("gradnorm", "initial_losses", "3 tasks")),
    Bad(lambda: methods.trimmed_mean(2).init(3), ("trimmed_mean", "trim")),
    Bad(lambda: methods.db_mtl().init(3), ("db_mtl", "shared")),
    Bad(
        lambda: jax.eval_shape(
            lambda: methods.config(length=options.track_task(7)).update(GRAMIAN, methods.mgda().init(3))
        ),
        ("track_task", "task", "from 0 to 2", "7"),
    ),
    *count(options.track_task, ("track_task", "task"), -1),
]


def nothing(*args, **rest) -> None:
    """What a function returns that forgot to return."""


def run(name: str, argument: str, **rest):
    def first():
        method = getattr(methods, name)(**{argument: nothing}, **rest)
        state = method.init(3, jnp.ones(2))
        evidence = {"losses": LOSSES, "gramian": GRAMIAN, "task_grads": jnp.ones((3, 2))}[method.reads]
        jax.eval_shape(lambda: method.update(evidence, state, losses=LOSSES, key=jax.random.key(0)))

    return name, argument, first


RETURNING_NONE = [
    run("uncertainty", "forms"),
    run("ldc_mtl", "scaling"),
    run("dynamic_task_priority", "kpi"),
    run("mgda", "normalization"),
    run("config", "length"),
    run("aligned_mtl", "level"),
    run("graddrop", "monotone"),
    run("moco", "normalization"),
    run("moco", "projection"),
    run("ema", "decay", method=methods.mgda()),
    run("rescale", "to", method=methods.mgda()),
]
BAD = [
    *(row for name, what, *outside in NUMBERS for row in number(call(name, what), (name, what), *outside)),
    *(row for name, what, *outside in COUNTS for row in count(call(name, what), (name, what), *outside)),
    *(
        row
        for name, what, *outside in OPTIONAL_COUNTS
        for row in count(call(name, what), (name, what), *outside)
        if row.call.args != (None,)
    ),
    *(
        row
        for name, what, nonnegative in VECTORS
        for row in number(call(name, what), (name, what), [1.0, NAN], *[[1.0, -1.0]] * nonnegative, scalar=False)
    ),
    *(
        row
        for name in PREFERRING
        for row in [
            *each(call(name, "preference"), (name, "preference"), ["12", 1j, True, [1j, 2.0], ["1", "2"]], TypeError),
            *each(
                call(name, "preference"),
                (name, "preference"),
                [1.0, [1.0, -1.0], [1.0, NAN], [0.0, 0.0], [1.0, INF], [[1.0]]],
            ),
        ]
    ),
    *(row for name, what in FLAGS for row in each(call(name, what), (name, what), NO_FLAGS, TypeError)),
    *(row for name, what in FUNCTIONS for row in each(call(name, what), (name, what), NO_FUNCTIONS, TypeError)),
    *each(call("mgda", "normalization"), ("mgda", "normalization"), ["l2", 1.0], TypeError),
    *each(call("moco", "normalization"), ("moco", "normalization"), ["l2", 1.0], TypeError),
    *(
        row
        for name in OPTIMIZERS
        for row in each(
            call(name, "optimizer"), (name, "optimizer"), ["adam", 1e-3, optax.adam, methods.mgda()], TypeError
        )
    ),
    *each(call("nash_mtl", "max_norm"), ("nash_mtl", "max_norm"), ["1", 1j, True, print], TypeError),
    *each(call("nash_mtl", "max_norm"), ("nash_mtl", "max_norm"), [0.0, -1.0, NAN, [1.0, 2.0]]),
    *each(call("gradnorm", "initial_losses"), ("gradnorm", "initial_losses"), ["1", 1.0j, True], TypeError),
    *each(call("gradnorm", "initial_losses"), ("gradnorm", "initial_losses"), [1.0, [0.0, 1.0], [1.0, NAN]]),
    *each(call("uncertainty", "forms"), ("uncertainty", "forms"), ["gaussian", None, 1.0, [1.0]], TypeError),
    Bad(lambda: methods.aligned_mtl(mean=True, preference=[1.0]), ("aligned_mtl", "mean", "preference")),
    *each(call("pcd", "tau"), ("pcd", "tau"), NO_NUMBERS, TypeError),
    *(Bad(made, (name, f"what {what} returned"), TypeError) for name, what, made in RETURNING_NONE),
    *FED,
]

# Those that read batches.
WRAPS = [
    *(methods.ema, methods.cr_mogm, methods.log_losses, methods.normalize, methods.rescale, methods.sampled),
    *(methods.fs_mtl, lambda m: methods.every(m, 2), lambda m: methods.clip(m, 1.0)),
    *(
        lambda m: methods.preference(m, [1.0]),
        lambda m: methods.warmup(m, 2),
        lambda m: mtljax.as_optax(m, names=["a"]),
    ),
    lambda m: methods.per_group(m, methods.options.by_leaf),
]
BILEVEL = [
    *number(call("moml", "inner_lr"), ("moml", "inner_lr"), 0.0, -1.0, INF),
    *number(call("forum", "inner_lr"), ("forum", "inner_lr"), -1.0),
    *number(call("forum", "rho", inner_lr=0.1), ("forum", "rho"), 0.0),
    *number(call("fs_mtl", "rho", method=methods.mgda()), ("fs_mtl", "rho"), -1.0),
    *number(call("auto_lambda", "initial", inner_lr=0.1), ("auto_lambda", "initial"), INF),
    *each(call("auto_lambda", "inner_lr"), ("auto_lambda", "inner_lr"), ["1", None, True, 1j], TypeError),
    *each(call("auto_lambda", "inner_lr"), ("auto_lambda", "inner_lr"), [-1.0, 0.0, NAN]),
    *each(call("auto_lambda", "primary", inner_lr=0.1), ("auto_lambda", "primary"), [[-1.0], [NAN], 1.0]),
    *count(call("moml", "steps", inner_lr=0.1), ("moml", "steps"), 0),
    *count(call("forum", "steps", inner_lr=0.1), ("forum", "steps"), 0),
    *(
        row
        for name in ("auto_lambda", "forum", "moml")
        for row in [
            *each(call(name, "optimizer", inner_lr=0.1), (name, "optimizer"), [optax.adam, "adam"], TypeError),
            Bad(
                lambda name=name: getattr(methods, name)(inner_lr=0.1).update({}, bilevel(name)),
                (name, "evidence", "Batches"),
                TypeError,
            ),
            Bad(
                lambda name=name: mtljax.aggregate(getattr(methods, name)(inner_lr=0.1), jnp.eye(2)),
                ("aggregate", name, "batches"),
            ),
            *each(
                lambda wrap, name=name: wrap(getattr(methods, name)(inner_lr=0.1)), (name, "method", "batches"), WRAPS
            ),
        ]
    ),
    *each(call("fs_mtl", "method"), ("fs_mtl", "method"), [None, methods.mgda, "mgda"], TypeError),
]


def bilevel(name: str):
    return getattr(methods, name)(inner_lr=0.1).init(1)


BAD += BILEVEL

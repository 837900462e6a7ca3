"""Bad calls of `mtljax.convex`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mtljax import convex, gaussian_process
from mtljax.convex import TaskRows, columns, pad
from mtljax.convex.losses import squared
from mtljax.penalties import l1, tucker_trace_norm
from tests.bad_calls.bad import INF, NAN, NO_FLAGS, NO_FUNCTIONS, Bad, count, each, number

KEY, X, Y = np.zeros(2, np.uint32), np.ones((2, 4, 3), np.float32), np.ones((2, 4), np.float32)
ROWS = TaskRows(jnp.asarray(X), jnp.asarray(Y), jnp.ones((2, 4), bool))
NO_ROWS = (None, X, (X, Y, None), "rows", {"inputs": X})
GRID = np.array([1.0, 0.5], np.float32)
DATA = gaussian_process.Observations(jnp.ones((4, 1)), jnp.zeros(4, int), jnp.ones(4))
PARAMS = gaussian_process.Hyperparameters(jnp.zeros(()), jnp.ones((2, 1)), jnp.zeros(2), jnp.zeros(2), ())


def validated(**wrong):
    return convex.cross_validate(ROWS, l1, GRID, **({"folds": 2, "key": KEY} | wrong))


def learned(name, **wrong):
    strengths = {"gamma": 1.0} if name == "feature_learning" else {"lambda1": 1.0, "lambda2": 1.0}
    given = {"inputs": X, "targets": Y, "mask": None} | strengths | wrong
    return getattr(convex, name)(given.pop("inputs"), given.pop("targets"), given.pop("mask"), **given)


SOLVERS = {
    "fit": lambda **wrong: convex.fit(wrong.pop("rows", ROWS), wrong.pop("penalty", l1()), **wrong),
    "fit_path": lambda **wrong: convex.fit_path(wrong.pop("rows", ROWS), l1, wrong.pop("strengths", GRID), **wrong),
    "cross_validate": lambda **wrong: convex.cross_validate(
        wrong.pop("rows", ROWS), l1, wrong.pop("strengths", GRID), folds=2, key=KEY, **wrong
    ),
}
BASELINES = {
    "ridge_per_task": lambda rows=ROWS, strength=1.0, **more: convex.ridge_per_task(rows, strength, **more),
    "pooled": lambda rows=ROWS, strength=1.0, **more: convex.pooled(rows, strength, **more),
    "mean_regularized": lambda rows=ROWS, strength=1.0, **more: convex.mean_regularized(rows, strength, **more),
}

BAD = [
    *(
        bad
        for name, call in (SOLVERS | BASELINES).items()
        for bad in (
            *each(lambda x, call=call: call(rows=x), (name, "rows"), NO_ROWS, TypeError),
            *each(lambda x, call=call: call(intercept=x), (name, "intercept"), NO_FLAGS, TypeError),
        )
    ),
    *(
        bad
        for name, call in SOLVERS.items()
        for bad in (
            *each(lambda x, call=call: call(average=x), (name, "average"), NO_FLAGS, TypeError),
            *each(lambda x, call=call: call(loss=x), (name, "loss"), (None, "squared", squared.value), TypeError),
            *count(lambda n, call=call: call(max_iterations=n), (name, "max_iterations"), 0, -1),
            *each(lambda x, call=call: call(tolerance=x), (name, "tolerance"), ("1e-3", 1j, True), TypeError),
            *each(lambda x, call=call: call(tolerance=x), (name, "tolerance"), (0.0, -1.0, NAN, INF, np.ones(2))),
        )
    ),
    *(
        bad
        for name, call in BASELINES.items()
        for bad in number(lambda x, call=call: call(strength=x), (name, "strength"), -1.0, INF)
    ),
    *number(lambda x: convex.mean_regularized(ROWS, 1.0, x), ("mean_regularized", "shared_strength"), -1.0),
    Bad(lambda: convex.mean_regularized(ROWS, 0.0), ("mean_regularized", "strength")),
    *each(lambda x: convex.fit(ROWS, x), ("fit", "penalty"), (None, l1, "l1", 1.0), TypeError),
    Bad(lambda: convex.fit(ROWS, tucker_trace_norm()), ("fit", "penalty", "prox")),
    *(
        bad
        for name in ("fit_path", "cross_validate")
        for bad in (
            *each(lambda x, name=name: SOLVERS[name](strengths=x), (name, "strengths"), ("1", 1j, True), TypeError),
            *each(lambda x, name=name: SOLVERS[name](strengths=x), (name, "strengths"), (1.0, [], np.ones(0), {})),
        )
    ),
    *each(lambda x: convex.fit_path(ROWS, x, GRID), ("fit_path", "make_penalty"), (*NO_FUNCTIONS,), TypeError),
    Bad(lambda: convex.fit_path(ROWS, lambda strength: strength, GRID), ("fit_path", "penalty"), TypeError),  # type: ignore[arg-type]
    *count(lambda n: validated(at_once=n), ("cross_validate", "at_once"), 0),
    *each(lambda x: validated(folds=x), ("cross_validate", "folds"), ("2", None, 2.0, np.ones((2, 4))), TypeError),
    *each(lambda x: validated(folds=x), ("cross_validate", "folds"), (0, 1, np.zeros((2, 4), int), np.zeros(4, int))),
    *each(lambda x: validated(key=x), ("cross_validate", "key"), (None, 0, "0"), TypeError),
    *each(lambda x: validated(score=x), ("cross_validate", "score"), ("r2", 1.0), TypeError),
    *each(lambda key: convex.split_rows(key, ROWS, 0.5), ("split_rows", "key"), (None, 0, X), TypeError),
    *number(lambda x: convex.split_rows(KEY, ROWS, x), ("split_rows", "fraction"), -0.1, 1.1),
    *each(lambda x: convex.split_rows(KEY, x, 0.5), ("split_rows", "rows"), NO_ROWS, TypeError),
    *each(lambda key: convex.fold_numbers(key, ROWS, 2), ("fold_numbers", "key"), (None, 0), TypeError),
    *count(lambda n: convex.fold_numbers(KEY, ROWS, n), ("fold_numbers", "folds"), 1, 0),
    # Rows.
    Bad(lambda: convex.pooled(ROWS._replace(inputs=X.astype(int)), 1.0), ("pooled", "inputs"), TypeError),
    Bad(lambda: convex.pooled(ROWS._replace(targets="y"), 1.0), ("pooled", "targets"), TypeError),  # type: ignore[arg-type]
    Bad(lambda: convex.pooled(ROWS._replace(mask=Y), 1.0), ("pooled", "mask"), TypeError),  # type: ignore[arg-type]
    Bad(lambda: convex.pooled(ROWS._replace(mask=None), 1.0), ("pooled", "mask"), TypeError),  # type: ignore[arg-type]
    Bad(lambda: convex.pooled(ROWS._replace(mask=np.ones(4, bool)), 1.0), ("pooled", "mask")),  # type: ignore[arg-type]
    Bad(lambda: convex.pooled(ROWS._replace(targets=Y[0]), 1.0), ("pooled", "targets")),  # type: ignore[arg-type]
    Bad(lambda: convex.pooled(ROWS._replace(inputs=X[:, :2]), 1.0), ("pooled", "inputs")),  # type: ignore[arg-type]
    Bad(lambda: pad([], []), ("pad", "inputs")),
    *each(
        lambda x: pad(x, [Y[0]]),
        ("pad", "inputs_by_task"),
        (None, "x", 3, [None], ["x"], [[[1.0], [1.0, 2.0]]]),
        TypeError,
    ),
    *each(lambda y: pad([X[0]], y), ("pad", "targets_by_task"), (None, "y", 3, [None], ["y"]), TypeError),
    Bad(lambda: pad([X[0]], [Y[0], Y[1]]), ("pad", "inputs", "targets")),
    Bad(lambda: pad([X[0]], [Y[0, :2]]), ("pad", "inputs", "targets")),
    Bad(lambda: pad({"a": X[0]}, [Y[0]]), ("pad", "inputs_by_task"), TypeError),
    Bad(lambda: pad({"a": X[0]}, {"b": Y[0]}), ("pad", "'a'", "'b'")),
    *each(lambda x: columns(x, Y.T), ("columns", "inputs"), ("x", None, [[1.0], [1.0, 2.0]], X[0] * 1j), TypeError),
    *each(lambda y: columns(X[0], y), ("columns", "targets"), ("y", None), TypeError),
    *each(lambda y: columns(X[0], y), ("columns", "targets"), (Y[0], Y)),
    *each(
        lambda x: convex.predict(convex.pooled(ROWS, 1.0), x), ("predict", "inputs"), (None, "x", [[1.0]]), TypeError
    ),
    *each(lambda model: convex.predict(model, X), ("predict", "model"), (None, X, "model"), TypeError),
    Bad(lambda: convex.predict(convex.Linear(jnp.ones((2, 3)), jnp.ones(2)), X[:, :, :2]), ("predict", "inputs")),  # type: ignore[arg-type]
    Bad(lambda: convex.explained_variance(jnp.ones((2, 3)), ROWS), ("explained_variance", "outputs")),
    # Alternating closed forms.
    *number(lambda x: learned("feature_learning", gamma=x), ("feature_learning", "gamma"), 0.0, -1.0, INF),
    *number(lambda x: learned("relation_learning", lambda1=x), ("relation_learning", "lambda1"), -1.0),
    *number(lambda x: learned("relation_learning", lambda2=x), ("relation_learning", "lambda2"), 0.0),
    *(
        bad
        for name in ("feature_learning", "relation_learning")
        for bad in (
            *number(lambda x, name=name: learned(name, max_steps=x), (name, "max_steps"), 0),
            *each(lambda x, name=name: learned(name, tolerance=x), (name, "tolerance"), (0.0, -1.0, NAN)),
            *each(lambda x, name=name: learned(name, intercept=x), (name, "intercept"), NO_FLAGS, TypeError),
            *each(lambda x, name=name: learned(name, inputs=x), (name, "inputs"), (X.astype(int), X > 0), TypeError),
            *each(lambda x, name=name: learned(name, inputs=x), (name, "inputs"), (X[0], X[:, :2], X[:0])),
            *each(lambda x, name=name: learned(name, mask=x), (name, "mask"), (Y, Y.astype(int)), TypeError),
            Bad(lambda name=name: learned(name, mask=np.ones(4, bool)), (name, "mask")),
        )
    ),
    # Gaussian processes.
    *each(lambda x: gaussian_process.init(x, 1), ("init", "data"), (None, X, "data"), TypeError),
    *count(lambda n: gaussian_process.init(DATA, n), ("init", "num_tasks"), 0),
    *count(lambda n: gaussian_process.init(DATA, 1, rank=n), ("init", "rank"), -1, 2),
    *each(lambda x: gaussian_process.init(DATA, 1, mean_per_task=x), ("init", "mean_per_task"), NO_FLAGS, TypeError),
    Bad(lambda: gaussian_process.init(DATA._replace(tasks=jnp.full(4, 3)), 2), ("init", "tasks", "3")),
    Bad(lambda: gaussian_process.init(DATA._replace(tasks=jnp.ones(4)), 2), ("init", "tasks"), TypeError),
    Bad(lambda: gaussian_process.init(DATA._replace(targets=None), 2), ("init", "targets"), TypeError),  # type: ignore[arg-type]
    *each(
        lambda m: gaussian_process.init(DATA._replace(mask=m), 1),
        ("init", "mask"),
        ("all", [True] * 4, jnp.ones(4)),
        TypeError,
    ),
    *each(lambda x: gaussian_process.fit(x, DATA), ("fit", "params"), (None, X, "params"), TypeError),
    *each(
        lambda x: gaussian_process.fit(PARAMS, DATA, log_likelihood=x),
        ("fit", "log_likelihood"),
        NO_FUNCTIONS,
        TypeError,
    ),
    *number(lambda x: gaussian_process.fit(PARAMS, DATA, tolerance=x), ("fit", "tolerance"), 0.0, -1.0),
    *number(lambda x: gaussian_process.fit(PARAMS, DATA, max_evaluations=x), ("fit", "max_evaluations"), 0),
    Bad(lambda: gaussian_process.fit(PARAMS._replace(log_noise=jnp.zeros(3)), DATA), ("fit", "params.log_noise")),
    Bad(lambda: gaussian_process.sum_of(), ("sum_of", "kernels")),
    *each(lambda k: gaussian_process.sum_of(k), ("sum_of", "kernel"), (None, gaussian_process.rbf, "rbf"), TypeError),
]

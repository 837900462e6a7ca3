"""Bad calls of `mtljax.penalties`."""

from __future__ import annotations

import functools

import jax
import numpy as np
import optax

from mtljax import penalties
from mtljax.penalties import (
    Penalty,
    alternating_structure,
    by_path,
    clustered,
    fused,
    l1,
    l21,
    on,
    pairwise_l2,
    proximal,
    relation,
    robust,
    sparse_low_rank,
    task_covariance,
    temporal_group_lasso,
    total,
    trace_norm,
    tucker_trace_norm,
    weighted,
)
from tests.bad_calls.bad import INF, NAN, NO_FLAGS, Bad, count, each, number
from tests.penalties.table import CASES, OMEGA, RELATION

W = {"w": np.ones((3, 2), np.float32)}
SINGLE = [name for name, (_, arguments) in CASES.items() if arguments == ("strength",)]
PLAIN = [name for name in SINGLE if name in penalties.__all__ and name not in ("total", "on", "by_path")]
OTHERS = {
    ("capped_l1", "strength"): lambda x: penalties.capped_l1(x),
    ("clustered", "strength"): lambda x: clustered(2, x),
    ("alternating_structure", "strength"): lambda x: alternating_structure(2, x),
    ("dirty", "strength_block"): lambda x: penalties.dirty(x),
    ("dirty", "strength_element"): lambda x: penalties.dirty(1.0, x),
    ("robust", "strength_low_rank"): lambda x: robust(x),
    ("robust", "strength_outliers"): lambda x: robust(1.0, x),
    ("sparse_low_rank", "strength_low_rank"): lambda x: sparse_low_rank(x),
    ("sparse_low_rank", "strength_sparse"): lambda x: sparse_low_rank(1.0, x),
    ("fused", "strength"): lambda x: fused(x),
    ("fused", "sparse"): lambda x: fused(sparse=x),
    ("fused", "joint"): lambda x: fused(joint=x),
    ("temporal_group_lasso", "ridge"): lambda x: temporal_group_lasso(x, 1.0, 1.0),
    ("temporal_group_lasso", "smooth"): lambda x: temporal_group_lasso(1.0, x, 1.0),
    ("temporal_group_lasso", "joint"): lambda x: temporal_group_lasso(1.0, 1.0, x),
}
DOUBLE = Penalty(value=lambda w: 2.0 * w["w"].sum(), prox=lambda w, step_size: w)
NO_PENALTIES = (l1, None, "l1", 1.0, lambda w: w)

BAD = [
    *(
        bad
        for name in PLAIN
        for bad in number(lambda x, name=name: CASES[name][0](strength=x), (name, "strength"), -1.0, INF)
    ),
    *(bad for names, make in OTHERS.items() for bad in number(make, names, -1.0, INF)),
    *number(lambda x: penalties.capped_l1(1.0, x), ("capped_l1", "cap"), -1.0),
    *number(lambda x: clustered(2, eta=x), ("clustered", "eta"), -1.0, 0.0, INF),
    *number(lambda x: alternating_structure(2, eta=x), ("alternating_structure", "eta"), -1.0, 0.0, INF),
    *each(lambda x: weighted(DOUBLE, {"w": x}), ("weighted", "weights"), ("1", 1j, True), TypeError),
    *each(lambda x: weighted(DOUBLE, {"w": x}), ("weighted", "weights"), (-1.0, NAN, INF, np.ones(2))),
    Bad(lambda: weighted(DOUBLE, {"other": 1.0})(W), ("weighted", "weights")),
    *count(lambda n: clustered(n), ("clustered", "num_clusters"), 0, -1),
    *count(lambda n: alternating_structure(n), ("alternating_structure", "dim"), 0, -1),
    Bad(lambda: clustered(4)(W), ("clustered", "num_clusters")),
    Bad(lambda: alternating_structure(3)(W), ("alternating_structure", "dim")),
    *each(lambda x: trace_norm(joint=x), ("trace_norm", "joint"), NO_FLAGS, TypeError),
    *each(lambda x: robust(joint=x), ("robust", "joint"), NO_FLAGS, TypeError),
    *each(lambda x: sparse_low_rank(joint=x), ("sparse_low_rank", "joint"), NO_FLAGS, TypeError),
    *each(lambda per: l21(per=per), ("l21", "per"), ("-1", 1.0, -1.0, True, [-1.0], {}), TypeError),
    *each(lambda per: fused(per=per), ("fused", "per"), (0, 1, [-1, 0], [-1, -1])),
    Bad(lambda: l21(per=-2)(W), ("l21", "per", "['w']")),
    # The proximal operator's step.
    *(
        bad
        for name, (make, arguments) in CASES.items()
        if (made := make(**dict.fromkeys(arguments, 1.0))).prox is not None and not made.parts and name in PLAIN
        for bad in number(functools.partial(made.prox, W), (name, "step_size"), -1.0, INF)
    ),
    # What is penalized.
    *(
        Bad(
            lambda make=CASES[name][0]: make(strength=1.0)({"w": np.ones((3, 2), np.int32)}), (name, "['w']"), TypeError
        )
        for name in PLAIN
    ),
    *(
        Bad(lambda make=CASES[name][0]: make(strength=1.0)({"w": np.ones((), np.float32)}), (name, "['w']"))
        for name in PLAIN
    ),
    Bad(lambda: l1()({"w": "kernel"}), ("l1", "['w']"), TypeError),
    Bad(lambda: l1()({"w": np.ones((3, 2), np.float32), "b": np.ones(2, np.float32)}), ("l1", "task axis")),
    Bad(lambda: pairwise_l2(RELATION)({"w": np.ones((2, 2), np.float32)}), ("pairwise_l2", "['w']")),
    Bad(lambda: relation(OMEGA)({"w": np.ones((2, 2), np.float32)}), ("relation", "['w']")),
    Bad(lambda: task_covariance({"w": np.ones((3, 2), np.int32)}), ("task_covariance", "['w']"), TypeError),
    Bad(lambda: task_covariance({}), ("task_covariance", "stacked")),
    Bad(lambda: robust()(W), ("robust", "parts")),
    Bad(lambda: robust()(W["w"]), ("robust", "stacked"), TypeError),
    Bad(lambda: robust()({"low_rank": W, "outliers": {"w": W["w"][:2]}}), ("robust", "parts")),
    # Relations.
    *each(
        lambda r: pairwise_l2(r),
        ("pairwise_l2", "relation"),
        ("chain", None, True, RELATION * 1j, RELATION > 0),
        TypeError,
    ),
    *each(
        lambda r: pairwise_l2(r),
        ("pairwise_l2", "relation"),
        (1.0, np.ones(3), np.ones((2, 3)), np.zeros((0, 0)), -RELATION, RELATION * NAN, RELATION + np.eye(3, k=1)),
    ),
    Bad(lambda: jax.eval_shape(lambda r: pairwise_l2(r)(W), RELATION), ("pairwise_l2", "relation", "traced")),
    *each(lambda r: relation(r), ("relation", "omega"), ("chain", None, True, OMEGA * 1j, OMEGA > 0), TypeError),
    *each(
        lambda r: relation(r),
        ("relation", "omega"),
        (1.0, np.ones(3), np.ones((2, 3)), np.zeros((0, 0)), -OMEGA, OMEGA * NAN, 0 * OMEGA, OMEGA + np.eye(3, k=1)),
    ),
    # Compositions.
    Bad(lambda: total(), ("total", "penalties")),
    *each(lambda p: total(l1(), p), ("total", "penalty"), NO_PENALTIES, TypeError),
    Bad(lambda: total(l1(), robust()), ("total", "parts")),
    *each(lambda p: weighted(p, 1.0), ("weighted", "penalty"), NO_PENALTIES, TypeError),
    *each(lambda p: on(p, lambda path: True), ("on", "penalty"), NO_PENALTIES, TypeError),
    *each(lambda where: on(l1(), where), ("on", "rule"), ("kernel", None, 1), TypeError),
    *each(lambda rule: by_path(rule), ("by_path", "rule"), (l1(), None, "kernel", (l1(),)), TypeError),
    Bad(lambda: by_path(), ("by_path", "penalties")),
    Bad(lambda: on(l1(), lambda path: path == "bias")(W), ("on", "rule 0")),
    # The last link of a chain.
    *each(lambda p: proximal(p, 0.1), ("proximal", "penalty"), NO_PENALTIES, TypeError),
    Bad(lambda: proximal(tucker_trace_norm(), 0.1), ("proximal", "penalty", "prox")),
    *each(lambda x: proximal(l1(), x), ("proximal", "learning_rate"), ("1", None, 1j, True), TypeError),
    *each(lambda x: proximal(l1(), x), ("proximal", "learning_rate"), (-1.0, NAN, INF, np.ones(2))),
    *each(lambda where: proximal(l1(), 0.1, where=where), ("proximal", "where"), ("shared", 1), TypeError),
    Bad(lambda: proximal(l1(), 0.1).update(W, penalties.ProximalState(np.int32(0))), ("proximal", "params")),
    Bad(
        lambda: proximal(l1(), 0.1, where=lambda params: params["w"]).update(
            W, penalties.ProximalState(np.int32(0)), W
        ),
        ("proximal", "where"),
        TypeError,
    ),
    Bad(
        lambda: optax.chain(proximal(l1(), 0.1)).update(W, (penalties.ProximalState(np.int32(0)),)),
        ("proximal", "params"),
    ),
]

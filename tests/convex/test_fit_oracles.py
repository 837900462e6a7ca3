"""Every convex penalty with a prox, against cvxpy."""

from __future__ import annotations

import cvxpy as cp
import jax
import numpy as np
import pytest

from mtljax.convex import fit, logistic, squared
from mtljax.penalties.clustered import clustered
from mtljax.penalties.dirty import dirty
from mtljax.penalties.fused import fused
from mtljax.penalties.l1 import l1
from mtljax.penalties.l1_inf import l1_inf
from mtljax.penalties.l2_to_mean import l2_to_mean
from mtljax.penalties.l21 import l21
from mtljax.penalties.learned_relation import learned_relation
from mtljax.penalties.pairwise_l2 import pairwise_l2
from mtljax.penalties.robust import robust
from mtljax.penalties.sparse_low_rank import sparse_low_rank
from mtljax.penalties.task_l2 import task_l2
from mtljax.penalties.temporal_group_lasso import temporal_group_lasso
from mtljax.penalties.trace_norm import trace_norm
from tests.convex.problems import FEATURES, LENGTHS, ragged, rows_of

pytestmark = pytest.mark.slow

SHAPE = (len(LENGTHS), FEATURES)
RELATION = np.abs(np.subtract.outer(np.arange(5), np.arange(5))) == 1


def columns_norm(w, order):
    return cp.sum(cp.norm(w, order, axis=0))


def rows_norm(w):
    return cp.sum(cp.norm(w, 2, axis=1))


def relaxed_clusters(w, num_clusters, strength, eta):
    """`min over M of strength eta (1 + eta) tr(W^T (eta I + M)^-1 W)`, by its Schur complement."""
    tasks, size = w.shape
    m, bound = cp.Variable((tasks, tasks), symmetric=True), cp.Variable((size, size), symmetric=True)
    block = cp.bmat([[eta * np.eye(tasks) + m, w], [w.T, bound]])
    limits = [m >> 0, np.eye(tasks) - m >> 0, cp.trace(m) == num_clusters, block >> 0]
    return strength * eta * (1 + eta) * cp.trace(bound), limits


# Name: penalty, number of parts, what they cost in cvxpy.
CASES = {
    "l1": (l1(2.0), 1, lambda w: 2.0 * cp.sum(cp.abs(w))),
    "l21": (l21(3.0), 1, lambda w: 3.0 * columns_norm(w, 2)),
    "l1_inf": (l1_inf(3.0), 1, lambda w: 3.0 * columns_norm(w, "inf")),
    "task_l2": (task_l2(3.0), 1, lambda w: 3.0 * rows_norm(w)),
    "trace_norm": (trace_norm(3.0), 1, lambda w: 3.0 * cp.normNuc(w)),
    "learned_relation": (learned_relation(0.5), 1, lambda w: 0.5 * cp.square(cp.normNuc(w))),
    "l2_to_mean": (l2_to_mean(2.0), 1, lambda w: 2.0 * cp.sum_squares(w - np.full((5, 5), 0.2) @ w)),
    "pairwise_l2": (pairwise_l2(RELATION * 1.0, strength=2.0), 1, lambda w: 2.0 * cp.sum_squares(w[1:] - w[:-1])),
    "fused": (
        fused(1.0, sparse=0.5, joint=2.0),
        1,
        lambda w: cp.sum(cp.abs(w[1:] - w[:-1])) + 0.5 * cp.sum(cp.abs(w)) + 2.0 * columns_norm(w, 2),
    ),
    "temporal_group_lasso": (
        temporal_group_lasso(0.1, 1.0, 2.0),
        1,
        lambda w: 0.1 * cp.sum_squares(w) + cp.sum_squares(w[1:] - w[:-1]) + 2.0 * columns_norm(w, 2),
    ),
    "clustered": (clustered(2, 1.0, eta=0.5), 1, lambda w: relaxed_clusters(w, 2, 1.0, 0.5)),
    "dirty": (dirty(6.0, 2.5), 2, lambda b, e: 6.0 * columns_norm(b, "inf") + 2.5 * cp.sum(cp.abs(e))),
    "robust": (robust(3.0, 2.0), 2, lambda low, out: 3.0 * cp.normNuc(low) + 2.0 * rows_norm(out)),
    "sparse_low_rank": (
        sparse_low_rank(3.0, 1.5),
        2,
        lambda low, sparse: 3.0 * cp.normNuc(low) + 1.5 * cp.sum(cp.abs(sparse)),
    ),
}


def peer(inputs, targets, case, *, labels):
    _, num_parts, penalty = CASES[case]
    parts, intercepts = [cp.Variable(SHAPE) for _ in range(num_parts)], cp.Variable(SHAPE[0])
    total, value = parts[0] if num_parts == 1 else parts[0] + parts[1], penalty(*parts)
    value, limits = value if isinstance(value, tuple) else (value, [])
    for task, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        if len(y):
            outputs = x @ total[task] + intercepts[task]
            value = value + (
                cp.sum(cp.logistic(cp.multiply(1 - 2 * y, outputs))) if labels else 0.5 * cp.sum_squares(y - outputs)
            )
    problem = cp.Problem(cp.Minimize(value), limits)
    problem.solve(solver="CLARABEL", tol_gap_rel=1e-8, tol_gap_abs=1e-8, tol_feas=1e-8)
    assert problem.status == "optimal" and isinstance(problem.value, float)
    return problem.value


@pytest.mark.parametrize("labels", [False, True], ids=["squared", "logistic"])
@pytest.mark.parametrize("case", CASES)
def test_objective_is_cvxpys(case, labels):
    inputs, targets = ragged()
    if labels:
        targets = [(y > np.median(y) if len(y) else y).astype(float) for y in targets]
    with jax.enable_x64(True):
        rows = rows_of(inputs, targets)
        loss = logistic if labels else squared
        run = jax.jit(lambda rows: fit(rows, CASES[case][0], loss=loss, intercept=True, tolerance=1e-8))
        found = jax.tree.map(np.asarray, run(rows))
    assert found.converged
    expected = peer(inputs, targets, case, labels=labels)
    np.testing.assert_allclose(found.objective, expected, rtol=1e-6)

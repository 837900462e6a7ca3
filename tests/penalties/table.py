"""Every penalty, by its numeric arguments: a new one enters the contract suite by one line."""

from __future__ import annotations

import numpy as np

from mtljax.penalties import (
    alternating_structure,
    by_path,
    capped_l1,
    clustered,
    dirty,
    fused,
    l1,
    l1_inf,
    l2_to_mean,
    l21,
    learned_relation,
    on,
    pairwise_l2,
    relation,
    robust,
    sparse_low_rank,
    task_l2,
    temporal_group_lasso,
    tensor_train_trace_norm,
    total,
    trace_norm,
    tucker_trace_norm,
    weighted,
)

OMEGA = np.array([[0.5, 0.2, 0.0], [0.2, 0.3, 0.1], [0.0, 0.1, 0.2]])
RELATION = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.5], [2.0, 0.5, 0.0]])

CASES = {
    "l2_to_mean": (l2_to_mean, ("strength",)),
    "pairwise_l2": (lambda **numbers: pairwise_l2(RELATION, **numbers), ("strength",)),
    "relation": (lambda **numbers: relation(OMEGA, **numbers), ("strength",)),
    "learned_relation": (learned_relation, ("strength",)),
    "trace_norm": (trace_norm, ("strength",)),
    "tucker_trace_norm": (tucker_trace_norm, ("strength",)),
    "tensor_train_trace_norm": (tensor_train_trace_norm, ("strength",)),
    "clustered": (lambda **numbers: clustered(2, **numbers), ("strength", "eta")),
    "alternating_structure": (lambda **numbers: alternating_structure(2, **numbers), ("strength", "eta")),
    "l1": (l1, ("strength",)),
    "l21": (l21, ("strength",)),
    "l1_inf": (l1_inf, ("strength",)),
    "capped_l1": (capped_l1, ("strength", "cap")),
    "task_l2": (task_l2, ("strength",)),
    "dirty": (dirty, ("strength_block", "strength_element")),
    "sparse_low_rank": (sparse_low_rank, ("strength_low_rank", "strength_sparse")),
    "robust": (robust, ("strength_low_rank", "strength_outliers")),
    "fused": (fused, ("strength", "sparse", "joint")),
    "temporal_group_lasso": (temporal_group_lasso, ("ridge", "smooth", "joint")),
    "total": (lambda strength: total(l1(strength)), ("strength",)),
    "weighted": (lambda weights: weighted(l1(), {"w": weights, "b": 1.0}), ("weights",)),
    "on": (lambda strength: on(l1(strength), lambda path: path.startswith("w")), ("strength",)),
    "by_path": (lambda strength: by_path((lambda path: True, l1(strength))), ("strength",)),
}
"""By name: a function of its numeric arguments alone to the `Penalty` for three tasks, and the names of these."""

NOT_TRACED = {
    "clustered": ("num_clusters",),  # how many singular values are counted
    "alternating_structure": ("dim",),
    "pairwise_l2": ("relation",),  # read when the penalty is made, to choose how it is computed
}
"""Arguments that are numbers but cannot be traced arrays; docs/sharing.md lists them too."""

"""Penalties that couple the tasks' parameters: functions of stacked parameters, leaves `[T, *p]`, with their prox."""

from mtljax.penalties.alternating_structure import alternating_structure
from mtljax.penalties.capped_l1 import capped_l1
from mtljax.penalties.clustered import clustered
from mtljax.penalties.common import Penalty
from mtljax.penalties.composed import by_path, on, total, weighted
from mtljax.penalties.dirty import dirty
from mtljax.penalties.fused import fused
from mtljax.penalties.l1 import l1
from mtljax.penalties.l1_inf import l1_inf
from mtljax.penalties.l2_to_mean import l2_to_mean
from mtljax.penalties.l21 import l21
from mtljax.penalties.learned_relation import learned_relation, relation, task_covariance
from mtljax.penalties.pairwise_l2 import pairwise_l2
from mtljax.penalties.proximal import ProximalState, proximal
from mtljax.penalties.robust import robust
from mtljax.penalties.sparse_low_rank import sparse_low_rank
from mtljax.penalties.task_l2 import task_l2
from mtljax.penalties.temporal_group_lasso import temporal_group_lasso
from mtljax.penalties.trace_norm import tensor_train_trace_norm, trace_norm, tucker_trace_norm

__all__ = [
    "Penalty",
    "ProximalState",
    "alternating_structure",
    "by_path",
    "capped_l1",
    "clustered",
    "dirty",
    "fused",
    "l1",
    "l1_inf",
    "l2_to_mean",
    "l21",
    "learned_relation",
    "on",
    "pairwise_l2",
    "proximal",
    "relation",
    "robust",
    "sparse_low_rank",
    "task_covariance",
    "task_l2",
    "temporal_group_lasso",
    "tensor_train_trace_norm",
    "total",
    "trace_norm",
    "tucker_trace_norm",
    "weighted",
]

"""Metrics for evaluation: of single examples, of many tasks in one number, and of object trackers."""

from mtljax.losses.per_example import absolute_error, squared_error
from mtljax.metrics.delta_m import delta_m, mean_rank
from mtljax.metrics.per_example import accuracy
from mtljax.metrics.tracking import TrackingCounts, box_iou, idf1, mota, total_counts, tracking_counts

__all__ = [
    "TrackingCounts",
    "absolute_error",
    "accuracy",
    "box_iou",
    "delta_m",
    "idf1",
    "mean_rank",
    "mota",
    "squared_error",
    "total_counts",
    "tracking_counts",
]

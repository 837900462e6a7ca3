"""Bad calls of metrics."""

from __future__ import annotations

import functools

import numpy as np

from mtljax import metrics
from tests.bad_calls.bad import INF, NAN, NO_FLAGS, Bad, each, number

LOGITS, LABELS = np.zeros((3, 4)), np.array([0, 1, 3])
BOX, IDS = [[[1.0, 1.0, 2.0, 2.0]]], [[1]]
NO_TABLES = (["1", "2"], None, [1j, 2], [True, False], [[1.0], [2.0, 3.0]], "12")
UP = [True, False]
delta = functools.partial(metrics.delta_m, higher_is_better=UP)
rank = functools.partial(metrics.mean_rank, higher_is_better=UP)

BAD = [
    *each(
        lambda z: metrics.accuracy(z, LABELS),
        ("accuracy", "outputs"),
        [LABELS, LOGITS > 0, 1j * LOGITS, None],
        TypeError,
    ),
    *each(lambda y: metrics.accuracy(LOGITS, y), ("accuracy", "targets"), [LOGITS[:, 0], LABELS > 0, None], TypeError),
    *each(lambda y: metrics.accuracy(LOGITS, [0, y, 1]), ("accuracy", "targets", "0 to 3"), [4, 255, -1, -100]),
    *each(lambda y: metrics.accuracy(LOGITS, y), ("accuracy", "outputs", "targets"), [LABELS[:, None], LABELS[:1], 0]),
    *each(lambda x: delta(x, [1.0, 2.0]), ("delta_m", "metrics"), NO_TABLES, TypeError),
    *each(lambda x: delta([1.0, 2.0], x), ("delta_m", "baseline"), NO_TABLES, TypeError),
    *each(lambda x: delta([1.0, 2.0], [1.0, x]), ("delta_m", "baseline"), [0, -1, NAN, INF]),
    *each(lambda x: delta(x, [1.0, 2.0]), ("delta_m", "metrics", "baseline"), [[1.0], [1.0] * 3, 1.0]),
    *each(
        lambda x: metrics.delta_m([1, 2], [1, 2], higher_is_better=x),
        ("delta_m", "higher_is_better"),
        NO_FLAGS,
        TypeError,
    ),
    *each(lambda x: metrics.delta_m([1, 2], [1, 2], higher_is_better=x), "delta_m: higher_is_better", [True, [True]]),
    *each(
        lambda x: delta([1, 2], [1, 2], task_of_metric=x), ("delta_m", "task_of_metric"), ["ab", [1, 2], 2], TypeError
    ),
    *each(lambda x: delta([1, 2], [1, 2], task_of_metric=x), ("delta_m", "task_of_metric"), [["a"], []]),
    *each(rank, ("mean_rank", "table"), NO_TABLES, TypeError),
    *each(rank, ("mean_rank", "table"), [[1, 2], [[1, NAN]]]),
    *each(metrics.mota, ("mota", "counts"), [None, (1, 2, 3), 0.5], TypeError),
    *each(metrics.idf1, ("idf1", "counts"), [None, (1, 2, 3), 0.5], TypeError),
    *each(lambda x: metrics.total_counts([x]), ("total_counts", "counts"), [None, (1, 2, 3), 0.5], TypeError),
    Bad(lambda: metrics.mota(metrics.TrackingCounts(0, 0, 0, 0, 0, 0)), ("mota", "objects")),
    Bad(lambda: metrics.idf1(metrics.TrackingCounts(0, 0, 0, 0, 0, 0)), ("idf1", "objects")),
    *number(
        lambda x: metrics.tracking_counts(BOX, IDS, BOX, IDS, iou_threshold=x),
        ("tracking_counts", "iou_threshold"),
        0,
        1.1,
    ),
    *each(
        lambda x: metrics.tracking_counts([x], IDS, BOX, IDS), "tracking_counts: boxes", ["box", [1j] * 4], TypeError
    ),
    *each(
        lambda x: metrics.tracking_counts([x], IDS, BOX, IDS), "tracking_counts: boxes", [[[1, 1, -1, 1]], [[NAN] * 4]]
    ),
    *each(lambda x: metrics.box_iou(x, BOX[0]), ("box_iou", "first"), ["box", [[1j] * 4], [[True] * 4]], TypeError),
    *each(lambda x: metrics.box_iou(BOX[0], x), ("box_iou", "second"), ["box", [[1j] * 4]], TypeError),
    *each(lambda x: metrics.box_iou(BOX[0], x), "box_iou", [[[1, 1, -1, 1]], [[NAN] * 4], [1, 1, 1, 1], [[1, 1, 1]]]),
]

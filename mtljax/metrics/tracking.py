"""Metrics of object trackers, MOTA and IDF1.

The functions read finished results on the host; they cannot be traced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from mtljax.checks import check_number, expect


class TrackingCounts(NamedTuple):
    """The counts in MOTA and IDF1, over the frames of one sequence or of several.

    Attributes:
        objects: number of true boxes.
        predictions: number of predicted boxes.
        misses: FN, number of true boxes without a match.
        false_positives: FP, number of predicted boxes without a match.
        switches: IDSW, number of matches of an object with another identity than in its last match.
        identity_matches: IDTP, number of true boxes that are matched if every object has one predicted identity for all
            frames, different for different objects, under the best assignment.
    """

    objects: int
    predictions: int
    misses: int
    false_positives: int
    switches: int
    identity_matches: int


def tracking_counts(
    boxes: Sequence[npt.ArrayLike],
    identities: Sequence[npt.ArrayLike],
    predicted_boxes: Sequence[npt.ArrayLike],
    predicted_identities: Sequence[npt.ArrayLike],
    *,
    iou_threshold: float = 0.5,
) -> TrackingCounts:
    """Compare the predicted tracks of one sequence with the true tracks.

    An object and a prediction of the same frame may match if the IoU of their boxes is at least the threshold.

    Matches, frame by frame (CLEAR MOT): first, an object and a predicted identity that were each other's last match
    stay matched if they still may, even if another pair overlaps more. The others are then matched one to one: as many
    pairs as possible and, of these matchings, the one with the smallest sum of `1 - IoU`. A match with another identity
    than in the object's last match is a switch, however many frames lie between. An object's first match is not a
    switch, even if the identity was matched with another object before. Remaining objects are misses, remaining
    predictions are false positives.

    Identity matches: each object is assigned at most one predicted identity for the whole sequence and vice versa. The
    assignment maximizes the number of frames in which object and identity may match. That minimizes IDFN + IDFP, like
    the bipartite graph with extra nodes in the paper.

    K. Bernardin and R. Stiefelhagen, Evaluating multiple object tracking performance: the CLEAR MOT metrics, EURASIP
    Journal on Image and Video Processing, 2008. E. Ristani, F. Solera, R. Zou, R. Cucchiara and C. Tomasi, Performance
    measures and a data set for multi-target, multi-camera tracking, ECCV workshops 2016.

    Departures: the first paper does not define the case of two objects whose last match was the same identity. Here
    the identity belongs to the object that was matched later.

    Args:
        boxes: per frame `[n, 4]`: x and y of the centre, width, height, in any unit; n may be 0.
        identities: per frame integers `[n]`, each at most once per frame.
        predicted_boxes: per frame `[m, 4]`, as `boxes`.
        predicted_identities: per frame integers `[m]`, which need not equal those of `identities`.
        iou_threshold: above 0 and at most 1.

    Returns:
        `TrackingCounts`.

    Raises:
        ValueError: unequal numbers of frames, shapes that do not match, boxes that are not finite or have negative
            sides, an identity that occurs twice in a frame, a threshold out of range.
        TypeError: identities that are not integers.

    Example:
        >>> box, away = [[5.0, 5.0, 2.0, 2.0]], np.zeros((0, 4))
        >>> counts = tracking_counts([box] * 3, [[1]] * 3, [box, away, box], [[7], [], [8]])
        >>> counts.misses, counts.switches, counts.identity_matches
        (1, 1, 1)
    """
    lengths = [len(part) for part in (boxes, identities, predicted_boxes, predicted_identities)]
    if len(set(lengths)) != 1:
        raise ValueError(f"tracking_counts: all arguments must have one entry per frame, found {lengths}")
    check_number("tracking_counts", "iou_threshold", iou_threshold, above=0, most=1)

    partner_of: dict[int, int] = {}  # each object's last match
    object_of: dict[int, int] = {}  # each predicted identity's last match
    together: dict[tuple[int, int], int] = {}  # number of frames in which the two may match
    objects = predictions = matches = switches = 0
    for frame, arrays in enumerate(zip(boxes, identities, predicted_boxes, predicted_identities, strict=True)):
        true_boxes, true = _checked(frame, "boxes", arrays[0], arrays[1])
        found_boxes, found = _checked(frame, "predicted_boxes", arrays[2], arrays[3])
        objects, predictions = objects + len(true), predictions + len(found)
        overlap = box_iou(true_boxes, found_boxes)
        allowed = overlap >= iou_threshold
        for i, j in np.argwhere(allowed):
            together[true[i], found[j]] = together.get((true[i], found[j]), 0) + 1
        pairs = _matches(overlap, allowed, true, found, partner_of, object_of)
        matches += len(pairs)
        switches += sum(partner_of.get(true[i], found[j]) != found[j] for i, j in pairs)
        for i, j in pairs:
            partner_of[true[i]], object_of[found[j]] = found[j], true[i]
    return TrackingCounts(
        objects=objects,
        predictions=predictions,
        misses=objects - matches,
        false_positives=predictions - matches,
        switches=switches,
        identity_matches=_identity_matches(together),
    )


def total_counts(counts: Iterable[TrackingCounts]) -> TrackingCounts:
    """The sum of the counts of several sequences; equal identities in different sequences are different objects.

    Args:
        counts: any number of `TrackingCounts`.

    Returns:
        Their sum, field by field; zeros for none.

    Example:
        >>> total_counts([TrackingCounts(4, 3, 2, 1, 0, 2), TrackingCounts(1, 1, 0, 0, 0, 1)])
        TrackingCounts(objects=5, predictions=4, misses=2, false_positives=1, switches=0, identity_matches=3)
    """
    rows = [_counts("total_counts", row) for row in counts]
    return TrackingCounts(*(sum(getattr(row, field) for row in rows) for field in TrackingCounts._fields))


def mota(counts: TrackingCounts) -> float:
    """Multiple object tracking accuracy: `1 - (FN + FP + IDSW) / objects`, sums over all frames.

    Bernardin and Stiefelhagen 2008, see `tracking_counts`. MOTA is negative if there are more errors than objects, and
    0 without predictions.

    Args:
        counts: of one sequence, or the `total_counts` of several; the mean of several MOTAs is not a MOTA.

    Returns:
        A number of at most 1.

    Raises:
        ValueError: there are no objects, so the quotient is not defined.

    Example:
        >>> mota(TrackingCounts(10, 9, misses=2, false_positives=1, switches=1, identity_matches=5))
        0.6
    """
    if _counts("mota", counts).objects == 0:
        raise ValueError(f"mota: counts must have at least one object, found {counts}")
    return 1 - (counts.misses + counts.false_positives + counts.switches) / counts.objects


def idf1(counts: TrackingCounts) -> float:
    """Identification F1 score: `2 IDTP / (2 IDTP + IDFP + IDFN) = 2 IDTP / (objects + predictions)`.

    Ristani et al. 2016, see `tracking_counts`. It is 0 if there are no objects or no predictions.

    Args:
        counts: of one sequence, or the `total_counts` of several.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: there are neither objects nor predictions.

    Example:
        >>> idf1(TrackingCounts(10, 10, misses=0, false_positives=0, switches=1, identity_matches=6))
        0.6
    """
    boxes = _counts("idf1", counts).objects + counts.predictions
    if boxes == 0:
        raise ValueError(f"idf1: counts must have an object or a prediction, found {counts}")
    return 2 * counts.identity_matches / boxes


def box_iou(first: npt.ArrayLike, second: npt.ArrayLike) -> np.ndarray:
    """Intersection over union of every first box with every second box; 0 if both have no area.

    Args:
        first: `[..., n, 4]`: x and y of the centre, width, height.
        second: `[..., m, 4]`, with the same leading axes.

    Returns:
        float64 `[..., n, m]`, from 0 to 1.

    Raises:
        TypeError: boxes that are not real numbers.
        ValueError: shapes that do not match, boxes that are not finite or have negative sides.

    Example:
        >>> box_iou([[1.0, 1.0, 2.0, 2.0]], [[2.0, 1.0, 2.0, 2.0], [9.0, 9.0, 1.0, 1.0]]).round(3).tolist()
        [[0.333, 0.0]]
    """
    a, b = (_boxes("box_iou", name, value) for name, value in (("first", first), ("second", second)))
    if min(a.ndim, b.ndim) < 2 or a.shape[-1] != 4 or b.shape[-1] != 4 or a.shape[:-2] != b.shape[:-2]:
        raise ValueError(f"box_iou: boxes must be [..., n, 4] and [..., m, 4], found {a.shape} and {b.shape}")
    if not all(np.isfinite(boxes).all() and (boxes[..., 2:] >= 0).all() for boxes in (a, b)):
        raise ValueError("box_iou: first and second must be finite, sides not negative, found others")
    a, b = a[..., :, None, :], b[..., None, :, :]
    low_a, high_a = a[..., :2] - a[..., 2:] / 2, a[..., :2] + a[..., 2:] / 2
    low_b, high_b = b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2
    shared = np.prod(np.maximum(np.minimum(high_a, high_b) - np.maximum(low_a, low_b), 0), axis=-1)
    # Areas from the corners, as above: width times height is rounded differently, so equal boxes would not have IoU 1.
    union = np.prod(high_a - low_a, axis=-1) + np.prod(high_b - low_b, axis=-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _counts(caller: str, value: TrackingCounts) -> TrackingCounts:
    expect(isinstance(value, TrackingCounts), caller, "counts", "TrackingCounts", value, TypeError)
    return value


def _boxes(caller: str, name: str, value: npt.ArrayLike) -> np.ndarray:
    """As float64."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of unequal length
        array = np.asarray(None)
    expect(array.dtype.kind in "iuf" or array.size == 0, caller, name, "boxes, real numbers", value, TypeError)
    return array.astype(np.float64)


def _matches(
    overlap: np.ndarray,
    allowed: np.ndarray,
    true: list[int],
    found: list[int],
    partner_of: dict[int, int],
    object_of: dict[int, int],
) -> list[tuple[int, int]]:
    """The matched pairs of rows and columns in one frame."""
    place = {identity: j for j, identity in enumerate(found)}
    pairs = []
    for i, identity in enumerate(true):
        j = place.get(partner_of[identity]) if identity in partner_of else None
        if j is not None and allowed[i, j] and object_of[found[j]] == identity:
            pairs.append((i, j))
    rows = sorted(set(range(len(true))) - {i for i, _ in pairs})
    columns = sorted(set(range(len(found))) - {j for _, j in pairs})
    # A forbidden pair costs more than all allowed pairs together, so as many allowed pairs as possible are chosen.
    open_to = allowed[np.ix_(rows, columns)]
    cost = np.where(open_to, 1 - overlap[np.ix_(rows, columns)], len(rows) + 1.0)
    chosen = zip(*linear_sum_assignment(cost), strict=True)
    return pairs + [(rows[i], columns[j]) for i, j in chosen if open_to[i, j]]


def _identity_matches(together: dict[tuple[int, int], int]) -> int:
    true, found = (sorted({pair[k] for pair in together}) for k in (0, 1))
    frames = np.zeros((len(true), len(found)), np.int64)
    for (i, j), count in together.items():
        frames[true.index(i), found.index(j)] = count
    return int(frames[linear_sum_assignment(frames, maximize=True)].sum())


def _checked(frame: int, name: str, boxes: npt.ArrayLike, identities: npt.ArrayLike) -> tuple[np.ndarray, list[int]]:
    array, numbers = _boxes("tracking_counts", name, boxes), np.asarray(identities)
    if numbers.size and not np.issubdtype(numbers.dtype, np.integer):
        raise TypeError(
            f"tracking_counts: identities of {name} must be integers, found {numbers.dtype} in frame {frame}"
        )
    if array.size == 0 and numbers.size == 0:
        return np.zeros((0, 4)), []
    if numbers.ndim != 1 or array.shape != (len(numbers), 4):
        raise ValueError(
            f"tracking_counts: {name} and their identities must be [n, 4] and [n], "
            f"found {array.shape} and {numbers.shape} in frame {frame}"
        )
    if not (np.isfinite(array).all() and (array[:, 2:] >= 0).all()):
        raise ValueError(f"tracking_counts: {name} must be finite, sides not negative, found {array} in frame {frame}")
    if len(np.unique(numbers)) < len(numbers):
        raise ValueError(
            f"tracking_counts: identities of {name} must differ, found {numbers.tolist()} in frame {frame}"
        )
    return array, [int(number) for number in numbers]

"""MOTA and IDF1 by hand on the cases their papers discuss, and against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from mtljax.metrics.tracking import TrackingCounts, box_iou, idf1, mota, total_counts, tracking_counts

NONE = np.zeros((0, 4))


def at(*places):
    """Boxes of side 10 whose centres are at these x."""
    return np.array([[x, 0.0, 10.0, 10.0] for x in places]).reshape(-1, 4)


def follow(*identities, place=0.0):
    """Frames of one box that has these identities; None is a frame without it."""
    return [NONE if i is None else at(place) for i in identities], [[] if i is None else [i] for i in identities]


def scene(rng, frames, objects=4):
    """Random walks on a line, tracked badly."""
    walks = np.cumsum(rng.normal(0, 3, (frames, objects)), 0) + 12 * np.arange(objects)[None]
    seen = rng.uniform(size=(frames, objects)) < 0.8
    found = rng.uniform(size=(frames, objects)) < 0.8
    identities = rng.permutation(40)[:objects]
    parts = ([], [], [], [])
    for t in range(frames):
        if rng.uniform() < 0.3:
            identities = rng.permutation(identities) + int(rng.integers(2))
        noisy = walks[t] + rng.normal(0, 2, objects)
        row = at(*walks[t][seen[t]]), np.flatnonzero(seen[t]), at(*noisy[found[t]]), identities[found[t]]
        for part, entry in zip(parts, row, strict=True):
            part.append(entry)
    return parts


def test_perfect_tracks_score_one():
    boxes, ids = [at(0, 30)] * 3, [[1, 2]] * 3
    counts = tracking_counts(boxes, ids, boxes, [[9, 4]] * 3)
    assert counts == TrackingCounts(6, 6, 0, 0, 0, 6)
    assert mota(counts) == idf1(counts) == 1


def test_one_switch_costs_mota_once_and_idf1_by_when_it_comes():
    truth = follow(*[1] * 8)
    early, late = follow(5, *[6] * 7), follow(*[5] * 4, *[6] * 4)
    early, late = tracking_counts(*truth, *early), tracking_counts(*truth, *late)
    assert early.switches == late.switches == 1
    assert mota(early) == mota(late) == 1 - 1 / 8
    assert (idf1(early), idf1(late)) == (2 * 7 / 16, 2 * 4 / 16)


def test_identities_swapped_at_a_crossing_are_two_switches():
    counts = tracking_counts([at(0, 30)] * 4, [[1, 2]] * 4, [at(0, 30)] * 4, [[1, 2]] * 3 + [[2, 1]])
    assert counts == TrackingCounts(8, 8, 0, 0, 2, 6)
    assert (mota(counts), idf1(counts)) == (0.75, 0.75)


def test_misses_and_false_positives_by_hand():
    # Frame by frame: a match, a miss, a prediction too far away, a spurious one beside a match.
    truth = follow(1, 1, 1, 1)
    predicted = [at(1), NONE, at(6), at(0, 50)], [[3], [], [3], [3, 4]]
    counts = tracking_counts(*truth, *predicted)
    assert counts == TrackingCounts(
        objects=4, predictions=4, misses=2, false_positives=2, switches=0, identity_matches=2
    )
    assert (mota(counts), idf1(counts)) == (0.0, 0.5)
    worse = tracking_counts([at(0)], [[1]], [at(40, 60, 80)], [[1, 2, 3]])
    assert (mota(worse), idf1(worse)) == (1 - 4 / 1, 0.0)


def test_what_reappears_with_its_identity_is_no_switch_and_with_another_is_one():
    truth = follow(1, 1, None, None, 1)
    assert tracking_counts(*truth, *follow(5, 5, None, None, 5)).switches == 0
    assert tracking_counts(*truth, *follow(5, 5, None, None, 6)) == TrackingCounts(3, 3, 0, 0, 1, 2)
    # Missed for a while, not away: the switch is counted all the same.
    assert tracking_counts(*follow(1, 1, 1), *follow(5, None, 6)) == TrackingCounts(3, 2, 1, 0, 1, 1)
    # Seen where nothing is in between: false, but the match goes on.
    haunted = tracking_counts(*truth, *follow(5, 5, None, 6, 5))
    assert haunted == TrackingCounts(3, 4, 0, 1, 0, 3)
    assert (mota(haunted), idf1(haunted)) == (1 - 1 / 3, 6 / 7)
    # Back to an earlier identity is a switch again.
    assert tracking_counts(*follow(1, 1, 1), *follow(5, 6, 5)).switches == 2


def test_the_last_match_is_kept_though_another_prediction_overlaps_more():
    truth = [at(0), at(0)], [[1], [1]]
    predicted = [at(0), at(3, 0)], [[5], [5, 6]]
    assert tracking_counts(*truth, *predicted) == TrackingCounts(2, 3, 0, 1, 0, 2)
    # Too far off to be kept, it is let go.
    predicted = [at(0), at(4, 0)], [[5], [5, 6]]
    assert tracking_counts(*truth, *predicted) == TrackingCounts(2, 3, 0, 1, 1, 1)


def test_as_many_pairs_match_as_possible_before_overlap_counts():
    # Both could have the first prediction, and the second object overlaps it more, but no other.
    truth, predicted = [at(0, 2)], [at(2, -3)]
    assert tracking_counts(truth, [[1, 2]], predicted, [[1, 2]]).misses == 0
    # Two pairs that cost 3/4 each rather than one that costs nothing.
    assert tracking_counts([at(0, 6)], [[1, 2]], [at(6, 12)], [[1, 2]], iou_threshold=0.2).misses == 0
    counts = tracking_counts([at(0, 1)], [[1, 2]], [at(1, 2, -20)], [[1, 2, 3]])
    assert counts == TrackingCounts(2, 3, 0, 1, 0, 2)


def test_an_identity_that_two_objects_had_last_belongs_to_the_later_one():
    boxes = [at(0), at(0), at(0, 2)]
    truth = boxes, [[1], [2], [1, 2]]
    # Identity 5 follows object 1, then object 2. Then both are there and object 1 is the nearer one.
    counts = tracking_counts(*truth, [at(0), at(0), at(0, 2.5)], [[5], [5], [5, 6]])
    assert (counts.misses, counts.switches) == (0, 1)  # object 1 takes 6


@pytest.mark.parametrize("frames", [0, 2])
def test_without_objects_or_predictions(frames):
    empty, none = [NONE] * frames, [[]] * frames
    nothing = tracking_counts(empty, none, empty, none)
    assert nothing == total_counts([]) == TrackingCounts(0, 0, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="idf1: counts must have an object or a prediction"):
        idf1(nothing)
    full, ids = [at(0)] * frames, [[1]] * frames
    blind, dreaming = tracking_counts(full, ids, empty, none), tracking_counts(empty, none, full, ids)
    assert (blind.misses, dreaming.false_positives) == (frames, frames)
    if frames:
        assert mota(blind) == idf1(blind) == idf1(dreaming) == 0
        wrong = tracking_counts(full, ids, [at(40)] * frames, ids)
        assert wrong == TrackingCounts(2, 2, 2, 2, 0, 0) and (mota(wrong), idf1(wrong)) == (-1, 0)
    with pytest.raises(ValueError, match="mota: counts must have at least one object"):
        mota(dreaming)


def test_counts_are_those_of_brute_force():
    switches = 0
    for seed in range(20):
        parts = scene(np.random.default_rng(seed), frames=6, objects=3)
        counts = tracking_counts(*parts)
        assert counts == brute_force(*parts)
        switches += counts.switches
    assert switches > 10


def brute_force(boxes, identities, predicted_boxes, predicted_identities):
    """Matches by trying all of them; overlap on a line of boxes with side 10 is in closed form."""
    pairs, last, owner, switches, matched = {}, {}, {}, 0, 0
    for a, i, b, j in zip(boxes, identities, predicted_boxes, predicted_identities, strict=True):
        gap = {(p, q): abs(a[m][0] - b[n][0]) for m, p in enumerate(i) for n, q in enumerate(j)}
        near = {pair: (10 - d) / (10 + d) for pair, d in gap.items() if d < 10 and (10 - d) / (10 + d) >= 0.5}
        for pair in near:
            pairs[pair] = pairs.get(pair, 0) + 1
        kept = {(p, q) for p, q in near if last.get(p) == q and owner.get(q) == p}
        used = {p for p, _ in kept}, {q for _, q in kept}
        free = {pair: v for pair, v in near.items() if pair[0] not in used[0] and pair[1] not in used[1]}
        best = max(one_to_one(free), key=lambda chosen: (len(chosen), -sum(1 - free[pair] for pair in chosen)))
        for p, q in [*kept, *best]:
            switches += last.get(p, q) != q
            last[p], owner[q], matched = q, p, matched + 1
    n, m = sum(map(len, identities)), sum(map(len, predicted_identities))
    identity = identity_matches(identities, predicted_identities, pairs)
    return TrackingCounts(n, m, n - matched, m - matched, switches, identity)


def identity_matches(identities, predicted_identities, pairs):
    """From the least IDFN + IDFP on the paper's graph, in which each trajectory has a node to stay alone with."""
    (true, frames), (found, shown) = (
        np.unique(np.concatenate([np.zeros(0, int), *part]), return_counts=True)
        for part in (identities, predicted_identities)
    )
    cost = np.full((len(true) + len(found),) * 2, np.inf)
    cost[len(true) :, len(found) :] = 0
    np.fill_diagonal(cost[: len(true), len(found) :], frames)
    np.fill_diagonal(cost[len(true) :, : len(found)], shown)
    for (i, p), (j, q) in itertools.product(enumerate(true), enumerate(found)):
        cost[i, j] = frames[i] + shown[j] - 2 * pairs.get((p, q), 0)
    errors = cost[linear_sum_assignment(cost)].sum()
    return (frames.sum() + shown.sum() - errors) / 2


def one_to_one(pairs):
    """Every set of pairs in which nothing stands twice."""
    rows = sorted({p for p, _ in pairs})
    options = [[None, *(q for p, q in pairs if p == row)] for row in rows]
    for choice in itertools.product(*options):
        taken = [q for q in choice if q is not None]
        if len(set(taken)) == len(taken):
            yield [(p, q) for p, q in zip(rows, choice, strict=True) if q is not None]


def test_names_of_identities_and_the_order_of_boxes_do_not_matter():
    rng = np.random.default_rng(0)
    boxes, ids, predicted, predicted_ids = scene(rng, frames=30)
    counts = tracking_counts(boxes, ids, predicted, predicted_ids)
    assert counts.switches > 3 and counts.misses > 3 and counts.false_positives > 3
    names, other = rng.permutation(1000), -rng.permutation(1000)
    orders = [(rng.permutation(len(i)), rng.permutation(len(j))) for i, j in zip(ids, predicted_ids, strict=True)]
    shuffled = [
        (b[m], names[i][m], p[n], other[q][n])
        for b, i, p, q, (m, n) in zip(boxes, ids, predicted, predicted_ids, orders, strict=True)
    ]
    assert tracking_counts(*map(list, zip(*shuffled, strict=True))) == counts
    # The unit of length does not, either.
    assert tracking_counts([b / 48 for b in boxes], ids, [b / 48 for b in predicted], predicted_ids) == counts


def test_sequences_counted_apart_equal_one_long_sequence_of_other_identities():
    first, second = (scene(np.random.default_rng(seed), frames=12) for seed in (1, 2))
    apart = total_counts([tracking_counts(*first), tracking_counts(*second)])
    later = [second[0], [i + 100 for i in second[1]], second[2], [i + 100 for i in second[3]]]
    assert tracking_counts(*(a + b for a, b in zip(first, later, strict=True))) == apart
    assert mota(apart) == 1 - (apart.misses + apart.false_positives + apart.switches) / apart.objects
    assert idf1(apart) == 2 * apart.identity_matches / (apart.objects + apart.predictions)


def test_a_stricter_threshold_counts_less():
    truth, predicted = follow(1), ([at(2)], [[1]])  # IoU is 8 / 12
    assert [tracking_counts(*truth, *predicted, iou_threshold=t).misses for t in (0.5, 0.66, 0.67, 1.0)] == [0, 0, 1, 1]
    assert tracking_counts(*truth, *truth, iou_threshold=1.0).misses == 0


def test_iou_by_hand():
    square, points = [[0.0, 0.0, 2.0, 2.0]], [[0.0, 0.0, 0.0, 0.0]]
    others = [[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0], [0.0, 0.0, 1.0, 4.0], [2.0, 0.0, 2.0, 2.0], *points]
    np.testing.assert_allclose(box_iou(square, others), [[1, 1 / 7, 2 / 6, 0, 0]])
    assert box_iou(points, points).tolist() == [[0.0]]
    assert box_iou(np.zeros((3, 0, 4)), np.zeros((3, 5, 4))).shape == (3, 0, 5)
    with pytest.raises(ValueError, match=r"box_iou: boxes must be \[..., n, 4\] and \[..., m, 4\], found \(4,\)"):
        box_iou(square[0], others)


def test_equal_boxes_overlap_by_one_whatever_their_numbers():
    boxes = np.random.default_rng(0).uniform(0, 50, (200, 1, 4))
    assert (box_iou(boxes, boxes) == 1).all()
    frames, ids = list(boxes), [[1]] * 200
    assert tracking_counts(frames, ids, frames, ids, iou_threshold=1.0) == TrackingCounts(200, 200, 0, 0, 0, 200)
    # Nearly equal ones do not by more.
    assert box_iou(boxes[:, 0], boxes[:, 0] * (1 + 1e-15)).max() <= 1


GOOD = [at(0)], [[1]]


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, r"one entry per frame, found \[1, 1, 2, 1\]", lambda: tracking_counts(*GOOD, [at(0)] * 2, [[1]])),
        (
            ValueError,
            "iou_threshold must be above 0 and at most 1, found 0",
            lambda: tracking_counts(*GOOD, *GOOD, iou_threshold=0.0),
        ),
        (
            ValueError,
            r"predicted_boxes .* must be \[n, 4\] and \[n\], found \(1, 4\) and \(2,\) in frame 0",
            lambda: tracking_counts(*GOOD, [at(0)], [[1, 2]]),
        ),
        (
            ValueError,
            r"boxes .* must be \[n, 4\] and \[n\], found \(1, 4\) and \(\) in frame 0",
            lambda: tracking_counts([at(0)], [1], *GOOD),
        ),
        (
            TypeError,
            "identities of boxes must be integers, found float64",
            lambda: tracking_counts([at(0)], [[1.0]], *GOOD),
        ),
        (
            ValueError,
            r"identities of boxes must differ, found .* in frame 0",
            lambda: tracking_counts([at(0, 9)], [[1, 1]], *GOOD),
        ),
        *(
            (
                ValueError,
                "boxes must be finite, sides not negative",
                lambda bad=bad: tracking_counts([[[0.0, 0.0, bad, 1.0]]], [[1]], *GOOD),
            )
            for bad in (np.nan, -1.0)
        ),
    ],
)
def test_mistakes(error, message, call):
    with pytest.raises(error, match=message):
        call()

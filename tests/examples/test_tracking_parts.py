"""The tracker of the tracking example, on paths drawn by hand."""

from __future__ import annotations

import dataclasses

import numpy as np

from examples.tracking_parts import Found, Tracker, follow


def path(places, motions=None, looks=None):
    """Frames of boxes of side 10; `places[t]` are the centres in frame t."""
    frames = []
    for t, centers in enumerate(places):
        n = len(centers)
        box = np.array([[x, y, 10.0, 10.0] for x, y in centers]).reshape(n, 4)
        motion = np.zeros((n, 2)) if motions is None else np.array(motions[t], float).reshape(n, 2)
        look = np.zeros((n, 1)) if looks is None else np.array(looks[t], float).reshape(n, -1)
        frames.append(Found(box, np.ones(n), motion, look))
    return frames


def identities(frames, tracker):
    return [each.tolist() for _, each in follow(frames, tracker)]


def test_the_past_carries_a_track_through_a_crossing():
    # Two objects meet head-on: where they are nearest, the other one's last place is nearer than their own.
    frames = path([[(4.0 * t, 0), (22 - 4.0 * t, 1)] for t in range(6)])
    assert identities(frames, Tracker("past")) == [[1, 2]] * 6
    assert identities(frames, Tracker("none"))[-1] == [2, 1]


def test_a_track_waits_as_long_as_its_patience():
    places = [[(0, 0)], [(2, 0)], [], [], [(8, 0)]]
    for patience, last in ((1, 2), (2, 1)):
        tracker = Tracker("past", patience=patience, gate=2.0)
        assert identities(path(places), tracker) == [[1], [1], [], [], [last]]
    # Carried along by what the network said of it last, here 2 a frame, whatever its own way was: 3, or unknown.
    learned = Tracker("learned", patience=2, gate=1.0)
    motions = [[(0, 0)], [(2, 0)], [], [], [(2, 0)]]
    assert identities(path([[(0, 0)], [(3, 0)], [], [], [(9, 0)]], motions), learned) == [[1], [1], [], [], [1]]
    new = path([[], [(0, 0)], [], [(4, 0)]], [[], [(2, 0)], [], [(2, 0)]])
    assert identities(new, learned) == [[], [1], [], [1]]


def test_learned_motion_follows_a_turn_and_a_look_tells_who_is_who():
    places = [[(0, 0), (9, 0)], [(4, 0), (5, 0)]]  # either a step of 4 and one of -4, or one of 5 and one of -5
    passing = [[(0, 0)] * 2, [(-5, 0), (5, 0)]]
    assert identities(path(places), Tracker("none"))[1] == [1, 2]
    assert identities(path(places, passing), Tracker("learned"))[1] == [2, 1]
    looks = [[(1, 0), (0, 1)], [(0, 1), (1, 0)]]
    tracker = Tracker("none", weight=0.5)
    assert identities(path(places, looks=looks), tracker)[1] == [2, 1]
    assert identities(path(places, looks=looks), dataclasses.replace(tracker, weight=0.0))[1] == [1, 2]


def test_too_far_or_too_faint_is_no_match():
    frames = path([[(0, 0)], [(9, 0)]])
    assert identities(frames, Tracker("none", gate=8.0)) == [[1], [2]]
    faint = [frame._replace(score=0.2 * frame.score) for frame in frames]
    assert identities(faint, Tracker("none")) == [[], []]


def test_velocity_is_a_mean_over_frames_that_inertia_slows_down():
    # Two frames for a way of 4: 2 a frame, so that 8 is where it should be next.
    gap = path([[(0, 0)], [(2, 0)], [], [(6, 0)], [(7, 0)]])
    assert identities(gap, Tracker("past", gate=2.0, inertia=0.0)) == [[1], [1], [], [1], [1]]
    # A velocity of 4, then of 0: expected are 3.6 with much inertia and 0.4 with little.
    stop = path([[(0, 0)], [(4, 0)], [(4, 0)], [(10.6, 0)]])
    for inertia, last in ((0.9, 1), (0.1, 2)):
        assert identities(stop, Tracker("past", gate=4.5, inertia=inertia))[-1] == [last]


def test_a_track_looks_like_the_mean_of_what_it_was():
    # After (1, 0) and (0, 1), (0.7, 0.3) is nearer to what leans to the second by a little than to the first itself.
    places = [[(0, 0)], [(0, 0)], [(-1, 0), (1, 0)]]
    lean = np.array([0.92, 0.39])
    frames = path(places, looks=[[(1, 0)], [(0, 1)], [(1, 0), lean / np.linalg.norm(lean)]])
    assert identities(frames, Tracker("none", weight=0.5)) == [[1], [1], [2, 1]]

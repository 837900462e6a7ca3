"""The tracking example: losses by hand, the tracker on paths drawn by hand, and a run of a few steps."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from examples import tracking
from examples.tracking_parts import TASKS, TEMPERATURE, Found, Head, Trunk, read_boxes
from mtljax.data.moving_shapes import as_pairs, load_moving_sequences
from mtljax.metrics.tracking import idf1, mota

PNG = b"\x89PNG\r\n\x1a\n"
SMALL = {"num_sequences": (1, 1, 4), "length": 6, "size": 32, "max_objects": 3}


@pytest.fixture(scope="module")
def truth():
    return load_moving_sequences(**SMALL)["test"]


@pytest.fixture(scope="module")
def pairs(truth):
    return as_pairs(truth)


@pytest.fixture(scope="module")
def perfect(truth, pairs):
    """What a network that knows the targets would give, in every cell."""
    detect, motion = pairs.targets["detect"], pairs.targets["motion"]
    grid = detect["centre"].shape[-1]
    look = np.zeros((len(pairs.inputs), 2, grid * grid, 16), np.float32)
    cell, identity = pairs.targets["associate"].values()
    for index in np.argwhere(identity > 0):
        n, frame, _ = index
        look[n, frame, cell[tuple(index)], identity[tuple(index)]] = 1
    return {
        "detect": {
            "heatmap": np.where(detect["centre"], 9.0, -9.0),
            "offset": detect["offset"],
            "size": grid * detect["size"],
        },
        "classify": 20 * np.eye(4, dtype=np.float32)[pairs.targets["classify"]["label"]],
        "associate": look.reshape(len(look), 2, grid, grid, 16),
        "motion": motion["displacement"],
    }


def test_losses_vanish_where_all_is_right_and_are_one_number_an_example(pairs, perfect):
    wrong = {name: jax.tree.map(lambda array: np.roll(array, 1, axis=-3), perfect[name]) for name in TASKS}
    wrong["detect"]["heatmap"] = -perfect["detect"]["heatmap"]
    for name, task in TASKS.items():
        loss = jax.jit(task.loss)
        right, worse = (np.asarray(loss(outputs[name], pairs.targets[name])) for outputs in (perfect, wrong))
        assert right.shape == (len(pairs.inputs),)
        # The contrastive loss is not 0 where the others are merely orthogonal.
        bound = np.log1p(2 * 3 * np.exp(-1 / TEMPERATURE)) if name == "associate" else 1e-3
        assert right.min() >= 0 and right.max() <= bound
        assert (worse >= right).all() and worse.mean() > 0.2 + right.mean()
        for metric in task.metrics.values():
            exact = jax.jit(metric)(perfect[name], pairs.targets[name])[pairs.mask[name]]
            np.testing.assert_allclose(exact, 0 if name == "motion" else 1, atol=1e-6)


def test_losses_are_those_of_their_equations(pairs):
    rng, n = np.random.default_rng(1), 2
    targets = jax.tree.map(lambda array: array[n : n + 1], pairs.targets)
    grid = pairs.targets["motion"]["centre"].shape[-1]

    z, offset, size = rng.normal(size=(1, 2, grid, grid)), *rng.normal(size=(2, 1, 2, grid, grid, 2))
    detect = jax.tree.map(lambda array: array[0], targets["detect"])
    expected, p = 0.0, 1 / (1 + np.exp(-z[0]))
    for cell in np.ndindex(2, grid, grid):
        if detect["centre"][cell]:
            expected -= (1 - p[cell]) ** 2 * np.log(p[cell])
            expected += np.abs(offset[0][cell] - detect["offset"][cell]).sum()
            expected += np.abs(size[0][cell] - grid * detect["size"][cell]).sum()
        else:
            expected -= (1 - detect["heatmap"][cell]) ** 4 * p[cell] ** 2 * np.log(1 - p[cell])
    outputs = {"heatmap": z, "offset": offset, "size": size}
    outputs = jax.tree.map(lambda array: array.astype(np.float32), outputs)
    found = jax.jit(TASKS["detect"].loss)(outputs, targets["detect"])
    np.testing.assert_allclose(found, [expected / detect["centre"].sum()], rtol=1e-4)

    look = rng.normal(size=(1, 2, grid, grid, 16)).astype(np.float32)
    look /= np.linalg.norm(look, axis=-1, keepdims=True)
    cell, identity = (array[0].ravel() for array in targets["associate"].values())
    seen = [(identity[i], look[0, i // 3].reshape(grid * grid, 16)[cell[i]]) for i in range(6) if identity[i]]
    terms = []
    for i, (mine, e) in enumerate(seen):
        others = [(who, e @ f / TEMPERATURE) for j, (who, f) in enumerate(seen) if j != i]
        terms += [np.log(sum(np.exp(v) for _, v in others)) - v for who, v in others if who == mine]
    assert len(terms) >= 2
    found = jax.jit(TASKS["associate"].loss)(look, targets["associate"])
    np.testing.assert_allclose(found, [np.mean(terms)], rtol=1e-4)


def test_networks_have_one_output_a_cell(pairs):
    frames, key = pairs.inputs[:2], jax.random.key(0)

    def shapes(frames):
        features = Trunk().init_with_output(key, frames)[0]
        return {name: Head(name).init_with_output(key, features)[0] for name in TASKS}

    found = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(shapes, frames))
    assert found == {
        "associate": (2, 2, 8, 8, 16),
        "classify": (2, 2, 8, 8, 4),
        "detect": {"heatmap": (2, 2, 8, 8), "offset": (2, 2, 8, 8, 2), "size": (2, 2, 8, 8, 2)},
        "motion": (2, 8, 8, 2),
    }


def test_boxes_are_read_off_as_they_were_written(truth, perfect):
    frames = read_boxes(perfect, 6)
    assert [len(sequence) for sequence in frames] == [6] * 4
    matched = 0
    for s, t in np.ndindex(4, 6):
        boxes = 32 * truth.box[s, t][truth.present[s, t]]
        for box, motion, look in zip(frames[s][t].box, frames[s][t].motion, frames[s][t].look, strict=True):
            (k,) = np.flatnonzero(np.abs(boxes - box).max(1) < 1e-3)
            identity = truth.identity[s, t][truth.present[s, t]][k]
            assert look.argmax() == identity and look.sum() == 1
            velocity = truth.velocity[s, t][truth.present[s, t]][k]
            before = t > 0 and identity in truth.identity[s, t - 1]
            assert np.allclose(motion, velocity if before else 0, atol=1e-4) or not motion.any()
            matched += 1
    assert matched > 0.8 * truth.present.sum()


def test_with_perfect_boxes_little_is_lost_and_what_is_learned_helps(truth, perfect):
    frames = read_boxes(perfect, 6)
    scores = {}
    for name, (tracker, _) in tracking.TRACKERS.items():
        counts = tracking.score(frames, truth, tracker)
        scores[name] = idf1(counts)
        assert mota(counts) > 0.8 and counts.false_positives == 0
    assert scores["learned motion, identity"] >= scores["last box"]


def path(places, motions=None, looks=None):
    """Frames of boxes of side 10; `places[t]` are the centres in frame t."""
    frames = []
    for t, centres in enumerate(places):
        n = len(centres)
        box = np.array([[x, y, 10.0, 10.0] for x, y in centres]).reshape(n, 4)
        motion = np.zeros((n, 2)) if motions is None else np.array(motions[t], float).reshape(n, 2)
        look = np.zeros((n, 1)) if looks is None else np.array(looks[t], float).reshape(n, -1)
        frames.append(Found(box, np.ones(n), motion, look))
    return frames


def identities(frames, tracker):
    return [each.tolist() for _, each in tracking.follow(frames, tracker)]


def test_the_past_carries_a_track_through_a_crossing():
    # Two objects meet head-on: where they are nearest, the other one's last place is nearer than their own.
    frames = path([[(4.0 * t, 0), (22 - 4.0 * t, 1)] for t in range(6)])
    assert identities(frames, tracking.Tracker("past")) == [[1, 2]] * 6
    assert identities(frames, tracking.Tracker("none"))[-1] == [2, 1]


def test_a_track_waits_as_long_as_its_patience():
    places = [[(0, 0)], [(2, 0)], [], [], [(8, 0)]]
    for patience, last in ((1, 2), (2, 1)):
        tracker = tracking.Tracker("past", patience=patience, gate=2.0)
        assert identities(path(places), tracker) == [[1], [1], [], [], [last]]
    # Carried along by what the network said of it last.
    learned = tracking.Tracker("learned", patience=2, gate=1.0)
    motions = [[(0, 0)], [(2, 0)], [], [], [(2, 0)]]
    assert identities(path(places, motions), learned) == [[1], [1], [], [], [1]]


def test_learned_motion_follows_a_turn_and_a_look_tells_who_is_who():
    places = [[(0, 0), (9, 0)], [(4, 0), (5, 0)]]  # either a step of 4 and one of -4, or one of 5 and one of -5
    passing = [[(0, 0)] * 2, [(-5, 0), (5, 0)]]
    assert identities(path(places), tracking.Tracker("none"))[1] == [1, 2]
    assert identities(path(places, passing), tracking.Tracker("learned"))[1] == [2, 1]
    looks = [[(1, 0), (0, 1)], [(0, 1), (1, 0)]]
    tracker = tracking.Tracker("none", weight=0.5)
    assert identities(path(places, looks=looks), tracker)[1] == [2, 1]
    assert identities(path(places, looks=looks), dataclasses.replace(tracker, weight=0.0))[1] == [1, 2]


def test_too_far_or_too_faint_is_no_match():
    frames = path([[(0, 0)], [(9, 0)]])
    assert identities(frames, tracking.Tracker("none", gate=8.0)) == [[1], [2]]
    faint = [frame._replace(score=0.2 * frame.score) for frame in frames]
    assert identities(faint, tracking.Tracker("none")) == [[], []]


def test_every_network_has_its_trackers():
    names = {f"{network}; {kind}" for network in tracking.contestants() for kind in tracking.TRACKERS}
    assert set(tracking.PICTURED) <= names and {*tracking.ALONE_TRACKERS, *tracking.JOINT_TRACKERS} == set(
        tracking.TRACKERS
    )


@pytest.mark.parametrize("steps, seeds", [(0, 3), (10, 1)])
def test_too_few_steps_or_seeds_are_refused_before_anything_is_written(steps, seeds, tmp_path):
    with pytest.raises(SystemExit, match=f"found {steps} and {seeds}"):
        tracking.main(steps=steps, seeds=seeds, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_example_writes_tables_and_a_picture_and_says_where(tmp_path, capsys, monkeypatch):
    chosen = dict(list(tracking.contestants().items())[:2])  # compiling is what takes the time
    monkeypatch.setattr(tracking, "contestants", lambda: chosen)
    monkeypatch.setattr(tracking, "TRACKERS", {name: (tracker, {}) for name, (tracker, _) in tracking.TRACKERS.items()})
    tracking.main(steps=2, seeds=2, num_sequences=(2, 1, 2), out=tmp_path)
    printed = capsys.readouterr().out
    tables = (tmp_path / "tables.md").read_text()
    assert tables in printed and tables.count("\n| joint, equal weighting") == len(tracking.JOINT_TRACKERS) + 1
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["counts"]) == len(results["trackers"]) == 2 + len(tracking.JOINT_TRACKERS)
    assert all(len(runs) == 2 for runs in results["counts"].values())
    assert set(results["tasks"]["joint, equal weighting"][0]) == set(TASKS)
    assert (tmp_path / "tracks.png").read_bytes().startswith(PNG)
    assert printed.splitlines()[-1] == str(tmp_path / "tracks.png")

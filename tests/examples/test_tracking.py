"""The tracking example: losses by hand, boxes as they were written, and a run of a few steps."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from examples import tracking
from examples.tracking_parts import TASKS, TEMPERATURE, Head, Trunk, read_boxes
from mtljax.data.sets.scenes.moving_shapes import as_pairs, load_moving_sequences
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
    grid = detect["center"].shape[-1]
    look = np.zeros((len(pairs.inputs), 2, grid * grid, 16), np.float32)
    cell, identity = pairs.targets["associate"].values()
    for index in np.argwhere(identity > 0):
        n, frame, _ = index
        look[n, frame, cell[tuple(index)], identity[tuple(index)]] = 1
    return {
        "detect": {
            "heatmap": np.where(detect["center"], 9.0, -9.0),
            "offset": detect["offset"],
            "size": grid * detect["size"],
        },
        "classify": 20 * np.eye(4, dtype=np.float32)[pairs.targets["classify"]["label"]],
        "associate": look.reshape(len(look), 2, grid, grid, 16),
        "motion": motion["displacement"],
    }


@pytest.fixture(scope="module")
def compiled():
    return {
        name: jax.jit(lambda outputs, targets, task=task: measures(task, outputs, targets))
        for name, task in TASKS.items()
    }


def measures(task, outputs, targets):
    return {"loss": task.loss(outputs, targets)} | {name: f(outputs, targets) for name, f in task.metrics.items()}


def test_losses_vanish_where_all_is_right_and_are_one_number_an_example(pairs, perfect, compiled):
    wrong = {name: jax.tree.map(lambda array: np.roll(array, 1, axis=-3), perfect[name]) for name in TASKS}
    wrong["detect"]["heatmap"] = -perfect["detect"]["heatmap"]
    for name, task in TASKS.items():
        right, worse = (compiled[name](outputs[name], pairs.targets[name]) for outputs in (perfect, wrong))
        assert right["loss"].shape == (len(pairs.inputs),)
        # The contrastive loss is not 0 where the others are merely orthogonal.
        bound = np.log1p(2 * 3 * np.exp(-1 / TEMPERATURE)) if name == "associate" else 1e-3
        assert right["loss"].min() >= 0 and right["loss"].max() <= bound
        assert (worse["loss"] >= right["loss"]).all() and worse["loss"].mean() > 0.2 + right["loss"].mean()
        for metric in task.metrics:
            shown = pairs.mask[name]
            np.testing.assert_allclose(right[metric][shown], 0 if name == "motion" else 1, atol=1e-6)
            assert worse[metric][shown].mean() > 1 if name == "motion" else worse[metric][shown].mean() < 0.8


def test_without_objects_only_the_heatmap_is_learned(pairs, perfect, compiled):
    nothing = jax.tree.map(np.zeros_like, pairs.targets)
    for name in TASKS:
        loss = compiled[name](perfect[name], nothing[name])["loss"]
        false = pairs.targets["detect"]["center"].sum((1, 2, 3)) if name == "detect" else 0
        np.testing.assert_allclose(loss, 9 * false, rtol=1e-3, atol=1e-4)  # -log(1 - sigmoid(9)) is nearly 9


def test_losses_are_those_of_their_equations(pairs, compiled):
    rng, n = np.random.default_rng(1), 2
    targets = jax.tree.map(lambda array: array[n], pairs.targets)
    count, _, grid, _ = pairs.targets["detect"]["center"].shape

    def loss(name, outputs):
        outputs = jax.tree.map(lambda array: array.astype(np.float32), outputs)
        return compiled[name](outputs, pairs.targets[name])["loss"][n]

    z, offset, size = rng.normal(size=(count, 2, grid, grid)), *rng.normal(size=(2, count, 2, grid, grid, 2))
    detect = targets["detect"]
    expected, p = 0.0, 1 / (1 + np.exp(-z[n]))
    for cell in np.ndindex(2, grid, grid):
        if detect["center"][cell]:
            expected -= (1 - p[cell]) ** 2 * np.log(p[cell])
            expected += np.abs(offset[n][cell] - detect["offset"][cell]).sum()
            expected += np.abs(size[n][cell] - grid * detect["size"][cell]).sum()
        else:
            expected -= (1 - detect["heatmap"][cell]) ** 4 * p[cell] ** 2 * np.log(1 - p[cell])
    found = loss("detect", {"heatmap": z, "offset": offset, "size": size})
    np.testing.assert_allclose(found, expected / detect["center"].sum(), rtol=1e-4)

    z, centers = rng.normal(size=(count, 2, grid, grid, 4)), np.argwhere(detect["center"])
    terms = [
        np.log(np.exp(z[n][tuple(c)]).sum()) - z[n][tuple(c)][targets["classify"]["label"][tuple(c)]] for c in centers
    ]
    np.testing.assert_allclose(loss("classify", z), np.mean(terms), rtol=1e-4)

    look = rng.normal(size=(count, 2, grid, grid, 16))
    look /= np.linalg.norm(look, axis=-1, keepdims=True)
    cell, identity = (array.ravel() for array in targets["associate"].values())
    seen = [(identity[i], look[n, i // 3].reshape(grid * grid, 16)[cell[i]]) for i in range(6) if identity[i]]
    terms = []
    for i, (mine, e) in enumerate(seen):
        others = [(who, e @ f / TEMPERATURE) for j, (who, f) in enumerate(seen) if j != i]
        terms += [np.log(sum(np.exp(v) for _, v in others)) - v for who, v in others if who == mine]
    assert len(terms) >= 2
    np.testing.assert_allclose(loss("associate", look), np.mean(terms), rtol=1e-4)

    way, motion = rng.normal(size=(count, grid, grid, 2)).astype(np.float32), pairs.targets["motion"]
    error = np.abs(way - motion["displacement"]).sum(-1)
    expected = [error[m][motion["center"][m]].mean() if motion["center"][m].any() else 0 for m in range(count)]
    assert 1 in motion["center"].sum((1, 2))
    np.testing.assert_allclose(compiled["motion"](way, motion)["loss"], expected, rtol=1e-4)


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


def test_boxes_are_read_off_as_they_were_written(truth, pairs, perfect):
    frames = read_boxes(perfect, 6)
    assert [len(sequence) for sequence in frames] == [6] * 4
    matched = moved = 0
    for s, t in np.ndindex(4, 6):
        boxes = 32 * truth.box[s, t][truth.present[s, t]]
        for box, motion, look in zip(frames[s][t].box, frames[s][t].motion, frames[s][t].look, strict=True):
            (k,) = np.flatnonzero(np.abs(boxes - box).max(1) < 1e-3)
            identity = truth.identity[s, t][truth.present[s, t]][k]
            assert look.argmax() == identity and look.sum() == 1
            velocity = truth.velocity[s, t][truth.present[s, t]][k]
            assert np.allclose(motion, velocity, atol=1e-4) or not motion.any()
            matched, moved = matched + 1, moved + motion.any()
    assert matched > 0.8 * truth.present.sum() and moved > 0.8 * pairs.targets["motion"]["center"].sum()


def test_of_boxes_that_overlap_the_one_with_the_highest_score_stands():
    # Cells in a row, of 4 pixels, whose boxes are 12 pixels wide: the next overlaps by 1/2, the one after by 1/5.
    for scores, kept in (([3, 2, 1], [0, 2]), ([1, 2, 3], [2, 0]), ([2, 3, 1], [1]), ([1, -2, 0], [0, 2])):
        heatmap = np.full((1, 2, 4, 4), -1000.0)
        heatmap[0, 1, 2, :3] = scores
        outputs = {"heatmap": heatmap, "offset": np.full((1, 2, 4, 4, 2), 0.5), "size": np.full((1, 2, 4, 4, 2), 3.0)}
        ((empty, found),) = read_boxes({"detect": outputs}, 2)
        assert empty.box.shape == (0, 4)
        assert found.box.tolist() == [[4 * k + 2, 10, 12, 12] for k in kept]
        np.testing.assert_allclose(found.score, [1 / (1 + np.exp(-scores[k])) for k in kept])


def test_with_perfect_boxes_little_is_lost_and_what_is_learned_helps(truth, perfect):
    frames = read_boxes(perfect, 6)
    scores = {}
    for name, (tracker, _) in tracking.TRACKERS.items():
        counts = tracking.score(frames, truth, tracker)
        scores[name] = idf1(counts)
        assert mota(counts) > 0.8 and counts.false_positives == 0
    assert scores["learned motion, identity"] >= scores["last box"]


def test_settings_are_those_that_score_best_on_the_frames_given(truth, perfect, monkeypatch):
    frames = read_boxes(perfect, 6)
    choices = {"threshold": (0.5, 1.0), "gate": (0.1, 8.0), "patience": (1,)}  # no score is 1; nothing is that near
    monkeypatch.setitem(tracking.TRACKERS, "last box", (tracking.Tracker("none"), choices))
    tuned = tracking.tune(frames, truth, "last box")
    assert tuned == tracking.Tracker("none", threshold=0.5, gate=8.0, patience=1)


def test_the_picture_shows_where_most_is_hidden(truth):
    hidden = [
        sum(
            truth.present[s, t, k] and truth.visibility[s, t, k] < 0.7
            for t in range(first, first + 3)
            for k in range(3)
        )
        for s in range(4)
        for first in range(4)
    ]
    s, first = tracking.busiest(truth, shown=3)
    assert hidden[4 * s + first] == max(hidden) > min(hidden)


def test_the_sequences_reported_on_are_of_another_seed():
    found, own = tracking.load((2, 1, 1)), load_moving_sequences(num_sequences=(2, 1, 1))
    assert [len(part.box) for part in found.values()] == [2, 1, 1]
    same = {name: np.array_equal(found[name].box, own[name].box) for name in own}
    assert same == {"train": True, "validation": True, "test": False}


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

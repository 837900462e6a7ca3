"""moving_shapes: what is drawn is what is labelled, and the targets of pairs are those of their frames."""

from __future__ import annotations

import colorsys
import functools

import jax
import numpy as np
import pytest

from mtljax.data.sets.scenes import motion
from mtljax.data.sets.scenes.moving_shapes import STRIDE, as_pairs, load_moving_sequences, load_moving_shapes
from mtljax.data.sets.scenes.shapes import SHAPES, compose, hue_to_rgb, shape_boxes, shape_coverage

SIZE, LENGTH, OBJECTS = 32, 20, 4
ARGUMENTS = {"num_sequences": (12, 2, 3), "length": LENGTH, "size": SIZE, "max_objects": OBJECTS}


@pytest.fixture(scope="module")
def splits():
    return load_moving_sequences(**ARGUMENTS)


@pytest.fixture(scope="module")
def train(splits):
    return splits["train"]


@pytest.fixture(scope="module")
def pairs(train):
    return as_pairs(train)


def equal(left, right):
    return jax.tree.all(jax.tree.map(np.array_equal, left, right))


def test_shapes_types_and_ranges(splits):
    for count, part in zip((12, 2, 3), splits.values(), strict=True):
        described = {name: (array.dtype.name, array.shape) for name, array in part._asdict().items()}
        slots = (count, LENGTH, OBJECTS)
        assert described == {
            "frames": ("float32", (count, LENGTH, SIZE, SIZE, 3)),
            "box": ("float32", (*slots, 4)),
            "label": ("int32", slots),
            "identity": ("int32", slots),
            "velocity": ("float32", (*slots, 2)),
            "visibility": ("float32", slots),
            "present": ("bool", slots),
        }
        assert part.frames.min() >= 0 and part.frames.max() <= 1
        for name in ("box", "label", "identity", "velocity"):
            assert not getattr(part, name)[~part.present].any()
    train = splits["train"]
    assert set(train.label[train.present]) == set(range(len(SHAPES)))
    assert train.visibility[train.present].min() >= 0.3
    assert ((train.box[..., :2] >= 0) & (train.box[..., :2] < 1)).all()


def test_the_same_seed_gives_the_same_sequences_however_many_there_are(splits):
    fewer = load_moving_sequences(**ARGUMENTS | {"num_sequences": (3, 1, 1)})
    for name, part in fewer.items():
        assert equal(part, type(part)(*(array[: len(part.box)] for array in splits[name])))
    other = load_moving_sequences(**ARGUMENTS | {"num_sequences": (3, 1, 1)}, seed=1)
    firsts = [part.box[0] for found in (fewer, other) for part in found.values()]
    assert not any(np.array_equal(a, b) for i, a in enumerate(firsts) for b in firsts[:i])


def test_an_identity_is_one_object_that_keeps_its_slot_shape_and_size(train):
    reused = 0
    for s in range(len(train.box)):
        for identity in np.unique(train.identity[s][train.present[s]]):
            t, k = np.nonzero(train.identity[s] == identity)
            assert len(set(k)) == 1 and len(set(t)) == len(t)
            assert len(set(train.label[s, t, k])) == 1
            assert np.ptp(train.box[s, t, k, 2:], axis=0).max() < 1e-6
        reused += sum(len(set(column[column > 0])) > 1 for column in train.identity[s].T)
    assert reused > 5  # objects leave and others come


def test_objects_of_a_sequence_differ_by_their_marks():
    rng = np.random.default_rng(0)
    slots = np.stack([motion._slot(rng, 20, SIZE, 2, 0.5) for _ in range(40)])
    alive = slots[slots["life"] > 0]
    body, mark = alive["hues"].T
    assert np.abs(body - 0.5).max() <= 0.03 < 0.2 < mark.std()
    assert 0.5 < (alive["kind"] == 2).mean() < 0.9 and set(alive["kind"]) == set(range(len(SHAPES)))


def test_velocity_is_the_way_since_the_frame_before(train):
    same = (train.identity[:, 1:] == train.identity[:, :-1]) & train.present[:, 1:]
    way = SIZE * (train.box[:, 1:, :, :2] - train.box[:, :-1, :, :2])
    assert same.sum() > 100
    np.testing.assert_allclose(train.velocity[:, 1:][same], way[same], atol=1e-4)
    first = np.hypot(*train.velocity[:, 0][train.present[:, 0]].T)
    assert first.min() > 0.2 and 1.5 < first.mean() < 4


def test_objects_cross_and_hide_one_another_and_come_back(splits):
    hidden = crossings = back = 0
    for part in splits.values():
        hidden += ((part.visibility > 0) & (part.visibility < 0.7) & part.present).sum()
        gap = part.box[..., :, None, :2] - part.box[..., None, :, :2]
        both = np.triu(part.present[..., :, None] & part.present[..., None, :], 1)
        crossings += (both & (SIZE * np.hypot(gap[..., 0], gap[..., 1]) < 8)).sum()
        inside = part.present[:, :-2] & ~part.present[:, 1:-1] & part.present[:, 2:]
        back += (inside & (part.identity[:, :-2] == part.identity[:, 2:])).sum()
    assert hidden > 50 and crossings > 50 and back > 5


def test_visibility_is_the_share_in_the_frame_and_behind_nothing():
    # Four frames, one for each shape in slot 0: whole; cut in two by the left side; behind a circle that is larger.
    count = len(SHAPES)
    for x, hidden, share in ((12.3, 0, 1.0), (0.0, 0, 0.5), (12.3, 1, 0.0)):
        objects = {
            "place": np.full((count, 2, 2), [x, 11.6], np.float32),
            "radius": np.full((count, 2), [4.5, 6.0], np.float32),
            "angle": np.zeros((count, 2), np.float32),
            "kind": np.stack([np.arange(count), np.zeros(count, int)], 1),
            "hues": np.zeros((count, 2, 2), np.float32),
            "life": np.full((count, 2), [1, hidden]),
        }
        _, visibility = motion._render(np.random.default_rng(0), objects, 24)
        expected = np.full((count, 2), [share, hidden])
        np.testing.assert_allclose(visibility, expected, atol=1e-5)


def test_what_is_bright_fills_the_box():
    # One slot, so nothing hides it.
    part = load_moving_sequences(num_sequences=(6, 1, 1), length=4, size=32, max_objects=1)["train"]
    checked = 0
    for s, t in zip(*np.nonzero(part.present[..., 0] & (part.visibility[..., 0] > 0.999)), strict=True):
        bright = part.frames[s, t].max(-1) > 0.6  # clouds and noise stay below
        rows, columns = np.nonzero(bright)
        x, y, width, height = SIZE * part.box[s, t, 0]
        sides = columns.min(), -columns.max() - 1, rows.min(), -rows.max() - 1
        inward = sides - np.array([x - width / 2, -x - width / 2, y - height / 2, -y - height / 2])
        # Pixels that are covered in part are dim; so is the tip of a triangle, which fills none.
        assert inward.min() > -0.5 and inward.max() < 2
        checked += 1
    assert checked > 5


def test_targets_are_those_of_the_objects_one_by_one(train, pairs):
    grid = SIZE // STRIDE
    detect = pairs.targets["detect"]
    for n in range(0, len(pairs.inputs), 9):
        s, t = divmod(n, LENGTH - 1)
        np.testing.assert_array_equal(pairs.inputs[n], train.frames[s, t : t + 2])
        rows = [{}, {}]  # of both frames, the front object of each cell
        for frame in (0, 1):
            heat = np.zeros((grid, grid))
            for k in np.flatnonzero(train.present[s, t + frame]):
                x, y, width, height = train.box[s, t + frame, k] * grid
                rows[frame][int(y), int(x)] = k
                spread = (width + height) / 12
                i, j = np.indices((grid, grid))
                heat = np.maximum(heat, np.exp(-((i - int(y)) ** 2 + (j - int(x)) ** 2) / (2 * spread**2)))
            np.testing.assert_allclose(detect["heatmap"][n, frame], heat, atol=1e-5)
            assert {tuple(map(int, cell)) for cell in np.argwhere(detect["center"][n, frame])} == set(rows[frame])
            identity = np.zeros(OBJECTS, int)
            for (i, j), k in rows[frame].items():
                x, y, width, height = train.box[s, t + frame, k] * grid
                np.testing.assert_allclose(detect["offset"][n, frame, i, j], [x - j, y - i], atol=1e-5)
                np.testing.assert_allclose(detect["size"][n, frame, i, j], [width / grid, height / grid], atol=1e-6)
                assert pairs.targets["classify"]["label"][n, frame, i, j] == train.label[s, t + frame, k]
                assert pairs.targets["associate"]["cell"][n, frame, k] == i * grid + j
                identity[k] = train.identity[s, t + frame, k]
            np.testing.assert_array_equal(pairs.targets["associate"]["identity"][n, frame], identity)
        known = {
            cell: train.velocity[s, t + 1, k]
            for cell, k in rows[1].items()
            if k in rows[0].values() and train.identity[s, t, k] == train.identity[s, t + 1, k]
        }
        motion = pairs.targets["motion"]
        assert {tuple(map(int, cell)) for cell in np.argwhere(motion["center"][n])} == set(known)
        for cell, velocity in known.items():
            np.testing.assert_array_equal(motion["displacement"][n][cell], velocity)


def test_of_two_objects_in_one_cell_the_front_one_has_the_targets(train):
    part = type(train)(*(array[:1, :2].copy() for array in train))
    part.present[:], part.identity[:] = False, 0
    part.present[..., :2], part.identity[..., :2], part.label[..., :2] = True, [1, 2], [0, 3]
    part.box[..., :2, :] = [0.4, 0.6, 0.3, 0.3]
    both = as_pairs(part)
    assert both.targets["detect"]["center"].sum((2, 3)).tolist() == [[1, 1]]
    assert both.targets["classify"]["label"].sum((2, 3)).tolist() == [[3, 3]]
    assert both.targets["associate"]["identity"].tolist() == [[[0, 2, 0, 0]] * 2]
    assert both.targets["motion"]["center"].sum() == 1
    # Another object in the same slot has not moved there from the first one's place.
    part.identity[:, 1, 1] = 3
    other = as_pairs(part)
    assert not other.targets["motion"]["center"].any() and not other.mask["motion"].any()


def test_masks_tell_examples_without_centers(train, pairs):
    shown = (pairs.targets["associate"]["identity"] > 0).any((1, 2))
    np.testing.assert_array_equal(pairs.mask["classify"], shown)
    part = type(train)(*(array[:1, :4].copy() for array in train))
    part.present[:, 1:] = False  # an empty second, third and fourth frame
    masks = as_pairs(part).mask
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "classify": [True, False, False],
        "associate": [False] * 3,
        "motion": [False] * 3,
    }


def test_pairs_are_loaded_split_by_split():
    small = {"num_sequences": (2, 1, 1), "length": 3, "size": 24, "max_objects": 3, "seed": 4}
    sequences, batches = load_moving_sequences(**small), load_moving_shapes(**small)
    assert list(batches) == ["train", "validation", "test"]
    assert all(equal(batch, as_pairs(sequences[name])) for name, batch in batches.items())
    types = {leaf.dtype.name for leaf in jax.tree.leaves(batches["train"])}
    assert types == {"float32", "int32", "bool"}


def test_coverage_is_the_covered_area_and_boxes_are_tight():
    rng = np.random.default_rng(0)
    fine, count = 8, 24
    for kind, name in enumerate(SHAPES):
        kinds, center = np.full(count, kind), rng.uniform(8, 12, (count, 2))
        radius, angle = rng.uniform(3, 7, count), rng.uniform(0, 7, count)
        ours = shape_coverage(kinds, center, radius, angle, height=20, width=22)
        magnified = shape_coverage(kinds, fine * center, fine * radius, angle, height=20 * fine, width=22 * fine) > 0.5
        area = magnified.reshape(count, 20, fine, 22, fine).mean((2, 4))
        assert np.abs(ours - area).max() < (0.09 if name == "circle" else 0.35)
        np.testing.assert_allclose(ours.sum((1, 2)), area.sum((1, 2)), rtol=0.07)
        x, y, width, height = shape_boxes(kinds, center, radius, angle).T
        columns, rows = magnified.any(1), magnified.any(2)
        for seen, middle, side in ((columns, x, width), (rows, y, height)):
            low, high = seen.argmax(1) / fine, (seen.shape[1] - seen[:, ::-1].argmax(1)) / fine
            np.testing.assert_allclose(low, middle - side / 2, atol=0.2)
            np.testing.assert_allclose(high, middle + side / 2, atol=0.2)


def test_areas_are_those_of_geometry():
    areas = [np.pi, 2, 3 * 3**0.5 / 4, 4 * 0.95 * (arm := (1 - 0.95**2) ** 0.5) * 2 - 4 * arm**2]
    found = shape_coverage(range(4), [[40, 40]] * 4, [30] * 4, [0.3] * 4, height=80, width=80).sum((1, 2))
    np.testing.assert_allclose(found, np.array(areas) * 30**2, rtol=0.01)


def test_compose_equals_painting_layer_after_layer():
    rng = np.random.default_rng(0)
    coverage, color, background = (
        rng.uniform(size=(2, 5, 3, 4)),
        rng.uniform(size=(2, 5, 3)),
        rng.uniform(size=(3, 4, 3)),
    )
    painted = np.stack([background] * 2)
    for k in range(5):
        share = coverage[:, k, :, :, None]
        painted = (1 - share) * painted + share * color[:, k, None, None, :]
    pictures, seen = compose(coverage, color, background)
    np.testing.assert_allclose(pictures, painted)
    np.testing.assert_allclose(seen[:, 1], (coverage[:, 1] * np.prod(1 - coverage[:, 2:], axis=1)).sum((1, 2)))


def test_hues_are_those_of_the_standard_library():
    hues = np.linspace(0, 1, 25)
    expected = [colorsys.hsv_to_rgb(hue, 0.6, 0.8) for hue in hues]
    np.testing.assert_allclose(hue_to_rgb(hues, 0.6, 0.8), expected, atol=1e-6)


@pytest.mark.parametrize(
    "argument, value, message",
    [
        (
            "num_sequences",
            (1, 1),
            r"num_sequences must be a sequence of integers, one for each of \('train', 'validation', 'test'\)",
        ),
        ("num_sequences", (1, 0, 1), r"num_sequences\[1\] must be at least 1, found 0"),
        ("length", 0, "length must be at least 1, found 0"),
        ("max_objects", 0, "max_objects must be at least 1, found 0"),
        ("size", 30, "size must be a multiple of 4, found 30"),
        ("size", 20, "size must be at least 24, found 20"),
        ("seed", -1, "seed must be at least 0, found -1"),
    ],
)
def test_numbers_out_of_range(argument, value, message):
    with pytest.raises(ValueError, match=f"load_moving_sequences: {message}"):
        load_moving_shapes(**{argument: value})


SHAPE = {"kind": [0], "center": [[1.0, 2.0]], "radius": [1.0], "angle": [0.0]}


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            r"shape_boxes: kind, center, radius, angle must be .*, found \[\(1,\), \(2,\)",
            lambda: shape_boxes([0], [1.0, 2.0], [1.0], [0.0]),
        ),
        (
            r"kind must be from 0 to 3, found \[0, 4\]",
            lambda: shape_boxes([4, 0], [[1.0, 2.0]] * 2, [1.0] * 2, [0.0] * 2),
        ),
        (
            "shape_coverage: radius must be positive, found 0",
            lambda: shape_coverage([0], [[1.0, 2.0]], [0.0], [0.0], height=4, width=4),
        ),
        *(
            (
                f"shape_boxes: {name} must be finite, found {number}",
                functools.partial(shape_boxes, **(SHAPE | {name: np.full_like(SHAPE[name], number)})),
            )
            for name, number in (("center", np.nan), ("radius", np.inf), ("angle", np.inf))
        ),
        (
            "compose: coverage, color and background must be",
            lambda: compose(np.zeros((2, 3, 4, 4)), np.zeros((2, 2, 3)), np.zeros((4, 4, 3))),
        ),
        (
            "as_pairs: sequences must have at least 2 frames, found 1",
            lambda: as_pairs(load_moving_sequences(num_sequences=(1, 1, 1), length=1, size=24, max_objects=1)["test"]),
        ),
    ],
)
def test_mistakes_in_shapes(message, call):
    with pytest.raises(ValueError, match=message):
        call()

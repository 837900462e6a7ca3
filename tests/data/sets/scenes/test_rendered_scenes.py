"""Rendered scenes: every label against geometry written anew, in float64, solid by solid and pixel by pixel."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.data.sets.scenes.rays import Scene, Solids, cast
from mtljax.data.sets.scenes.rendered_scenes import load_rendered_scenes, random_scenes, render_scene, sample_scene
from mtljax.types import Batch
from tests.data.sets.scenes.scene_geometry import brute_force, rays_of, solids_of

SIZE, SEED, COUNT = 32, 0, 24


@pytest.fixture(scope="module")
def splits():
    return load_rendered_scenes(num_train=COUNT, num_validation=2, num_test=2, size=SIZE, seed=SEED)


@pytest.fixture(scope="module")
def scenes():
    """The scenes of the training split, in float64, as its docstring says that they are drawn."""
    train = jax.random.fold_in(jax.random.key(SEED), 0)
    drawn = jax.device_get(jax.jit(jax.vmap(lambda i: sample_scene(jax.random.fold_in(train, i))))(np.arange(64)))
    assert all(leaf.dtype in (np.float32, np.bool_) for leaf in jax.tree.leaves(drawn))
    return [
        jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i], bool if leaf.dtype == bool else np.float64), drawn)
        for i in range(64)
    ]


@pytest.fixture(scope="module")
def truth(scenes):
    with np.errstate(invalid="ignore", divide="ignore"):  # rays that miss
        return [brute_force(scene, SIZE) for scene in scenes[:COUNT]]


def test_depth_normals_and_classes_are_those_of_the_nearest_of_all_crossings(splits, truth):
    classes = np.array([0, 1, 2, 2, 3, 3, 4, 4])
    targets = splits["train"].targets
    for i, (depth, normals, instances) in enumerate(truth):
        np.testing.assert_array_equal(targets["segmentation"][i], classes[instances])
        np.testing.assert_allclose(targets["depth"][i, ..., 0], depth, rtol=1e-4)
        np.testing.assert_allclose(targets["normals"][i], normals, atol=1e-3)


def test_depth_times_ray_is_a_point_of_the_surface_of_its_class(splits, scenes):
    for i, scene in enumerate(scenes[:COUNT]):
        _, world = rays_of(scene, SIZE)
        points = scene.position + splits["train"].targets["depth"][i].astype(float) * world
        residuals = {kind: [np.full((SIZE, SIZE), np.inf)] for kind in range(5)}
        residuals[0].append(points[..., 2])
        residuals[1] += [
            points[..., k] - scene.room[side, k] for k in range(3) for side in range(2) if (k, side) != (2, 0)
        ]
        for solid, there in solids_of(scene):
            own = np.abs((points - solid.center) @ solid.turn) / solid.half
            size = [
                np.linalg.norm(own, axis=-1),
                own.max(-1),
                np.maximum(np.hypot(own[..., 0], own[..., 1]), own[..., 2]),
            ]
            residuals[2 + solid.kind].append(size[solid.kind] - 1 if there else np.full((SIZE, SIZE), np.inf))
        nearest = np.stack([np.abs(residuals[kind]).min(0) for kind in range(5)])
        own = np.take_along_axis(nearest, splits["train"].targets["segmentation"][i][None], 0)
        assert own.max() < 2e-5


def test_normals_are_unit_face_the_camera_and_agree_with_differences_of_points(splits, scenes, truth):
    """On a sphere, a cylinder's side and a plane the chord of two points is orthogonal to the sum of their normals."""
    targets = splits["train"].targets
    normals = targets["normals"].astype(float)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-6)
    rays, _ = rays_of(scenes[0], SIZE)
    assert ((normals * rays).sum(-1) < 0).all()
    points, pairs = targets["depth"].astype(float) * rays, 0
    instances = np.stack([numbers for _, _, numbers in truth])
    for axis in (1, 2):
        here, there = [slice(None)] * 3, [slice(None)] * 3
        here[axis], there[axis] = slice(0, -1), slice(1, None)
        here, there = tuple(here), tuple(there)
        # A corner between two faces is no smooth surface; faces are at right angles.
        smooth = (instances[here] == instances[there]) & ((normals[here] * normals[there]).sum(-1) > 0.5)
        chord = points[there] - points[here]
        cosine = (chord * (normals[here] + normals[there])).sum(-1) / np.linalg.norm(chord, axis=-1)
        assert np.abs(cosine[smooth]).max() < 1e-3
        pairs += smooth.mean() / 2
    assert pairs > 0.85


def test_edges_are_the_pixels_with_a_neighbor_of_another_instance(splits, truth):
    for i, (_, _, instances) in enumerate(truth[:6]):
        expected = np.zeros((SIZE, SIZE))
        for row, column in np.ndindex(SIZE, SIZE):
            for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if 0 <= r < SIZE and 0 <= c < SIZE and instances[r, c] != instances[row, column]:
                    expected[row, column] = 1
        np.testing.assert_array_equal(splits["train"].targets["edges"][i, ..., 0], expected)


def test_boxes_enclose_exactly_the_visible_pixels_from_left_to_right(splits, truth):
    boxes, hidden = splits["train"].targets["boxes"], 0
    for i, (_, _, instances) in enumerate(truth):
        for kind in range(3):
            expected = []
            for number in (2 + 2 * kind, 3 + 2 * kind):
                rows, columns = np.nonzero(instances == number)
                if len(rows):
                    expected.append([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
            expected.sort(key=lambda corners: corners[1])
            hidden += 2 - len(expected)
            slots = slice(2 * kind, 2 * kind + 2)
            assert boxes["present"][i, slots].tolist() == [k < len(expected) for k in range(2)]
            expected += [[0, 0, 0, 0]] * (2 - len(expected))
            np.testing.assert_array_equal(boxes["corners"][i, slots] * SIZE, expected)
    assert 0 < hidden < 6 * COUNT


def test_solids_stand_apart_on_the_floor_inside_the_room_and_away_from_the_camera(scenes):
    for scene in scenes:
        solids = [solid for solid, _ in solids_of(scene)]
        reach = np.array([np.hypot(*s.half[:2]) if s.kind == 1 else s.half[0] for s in solids])
        centers = np.array([s.center for s in solids])
        np.testing.assert_allclose([s.center[2] - s.half[2] for s in solids], 0, atol=1e-6)
        assert (centers[:, :2] - reach[:, None] >= scene.room[0, :2] - 1e-5).all()
        assert (centers[:, :2] + reach[:, None] <= scene.room[1, :2] + 1e-5).all()
        apart = np.abs(centers[:, None, :2] - centers[None, :, :2]).max(-1) - (reach[:, None] + reach[None])
        assert apart[~np.eye(len(solids), dtype=bool)].min() > -1e-5
        assert (centers[:, 1] - reach > 1.4).all()
        np.testing.assert_allclose(scene.rotation @ scene.rotation.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(scene.rotation) == pytest.approx(1) and scene.rotation[2, 2] < 0
        assert np.linalg.norm(scene.light) == pytest.approx(1) and scene.light[2] > 0.49


def test_images_are_lambertian_and_every_class_is_seen(splits, scenes, truth):
    train = splits["train"]
    for i, (scene, (_, normals, instances)) in enumerate(zip(scenes[:COUNT], truth, strict=True)):
        light = 0.35 + 0.65 * np.maximum(0, normals @ (scene.rotation @ scene.light))
        plain = scene.albedo[instances] * light[..., None]
        solid_or_wall = instances > 0
        np.testing.assert_allclose(train.inputs[i][solid_or_wall], plain[solid_or_wall], atol=1e-3)
        tiles = train.inputs[i][~solid_or_wall] / plain[~solid_or_wall]
        assert np.minimum(np.abs(tiles - 0.75), np.abs(tiles - 1)).max() < 1e-3
    assert train.inputs.min() > 0 and train.inputs.max() <= 1
    shares = np.bincount(train.targets["segmentation"].ravel(), minlength=5) / train.targets["segmentation"].size
    assert shares[0] > 0.3 and shares[1] > 0.2 and (shares[2:] > 0.02).all() and len(shares) == 5
    assert 0.05 < train.targets["edges"].mean() < 0.3


DOWN = np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], np.float32)
LEVEL = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32)
look = jax.jit(lambda scene: cast(scene, jnp.array([0.0, 0, 1])))


def looking(rotation, position, present):
    """What is straight ahead, where solids half a metre wide, two of each kind, all stand in one place if present."""
    solids = Solids(
        center=np.full((3, 2, 3), [0, 0, 1], np.float32),
        half=np.full((3, 2, 3), [0.5, 0.5, 1], np.float32),
        yaw=np.zeros((3, 2), np.float32),
        present=np.array(present, bool),
    )
    room, light = np.array([[-3, -3, 0], [3, 3, 4]], np.float32), np.array([0, 0, 1], np.float32)
    return look(Scene(np.array(position, np.float32), rotation, room, solids, np.ones((8, 3), np.float32), light))


def test_rays_parallel_to_the_sides_of_solids():
    """Straight onto each kind's middle, onto it near its rim, and past it: where a careless quotient is 0/0."""
    flat, tilted = [0, 0, -1], [0.8, 0, -0.6]
    steep = [0.8 / 0.5, 0, -0.6 / 1.0]  # the ball is an ellipsoid here: x = 0.5 * 0.8, z = 1 + 1 * 0.6
    for kind, own in enumerate(
        (
            [(DOWN, (0.4, 0, 3), 1.4, steep), (LEVEL, (0.4, -2, 1), 1.7, tilted)],
            [(DOWN, (0.4, 0, 3), 1.0, flat), (LEVEL, (0.4, -2, 1), 1.5, flat)],
            [(DOWN, (0.4, 0, 3), 1.0, flat), (LEVEL, (0.4, -2, 1), 1.7, tilted)],
        )
    ):
        met = 2 + 2 * kind
        middle = [(DOWN, (0, 0, 3), 1.0, flat), (LEVEL, (0, -2, 1), 1.5, flat)]
        past = [
            (DOWN, (0.9, 0, 3), 3.0, flat, 0),
            (LEVEL, (0.9, -2, 1), 5.0, flat, 1),
            (LEVEL, (0, -2, 3), 5.0, flat, 1),
        ]
        for rotation, position, depth, normal, instance in [(*case, met) for case in middle + own] + past:
            surface = looking(rotation, position, np.arange(6).reshape(3, 2) == 2 * kind)
            np.testing.assert_allclose(surface.depth, depth, rtol=1e-6)
            assert surface.instances == instance
            np.testing.assert_allclose(surface.normals, normal / np.linalg.norm(normal), atol=1e-6)


def test_of_surfaces_met_at_once_the_first_slot_counts_and_within_it_the_first_kind():
    for present, first in (([[1, 1], [1, 1], [1, 1]], 2), ([[0, 1], [1, 0], [1, 0]], 4), ([[0, 1], [0, 0], [0, 1]], 3)):
        assert looking(DOWN, (0, 0, 3), present).instances == first


def test_a_split_is_a_function_of_the_seed_and_begins_as_a_shorter_one_does(splits):
    sizes = {"num_validation": 2, "num_test": 2, "size": SIZE}
    longer = load_rendered_scenes(num_train=70, seed=SEED, **sizes)
    for name, count in (("train", COUNT), ("validation", 2), ("test", 2)):
        for mine, other in zip(jax.tree.leaves(splits[name]), jax.tree.leaves(longer[name]), strict=True):
            np.testing.assert_array_equal(mine, other[:count])
    other = load_rendered_scenes(num_train=2, seed=1, **sizes)
    images = np.concatenate([longer["train"].inputs, longer["test"].inputs, longer["validation"].inputs])
    images = np.concatenate([images, other["train"].inputs])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images) == 76


def test_shapes_and_types(splits):
    for name, count in (("train", COUNT), ("validation", 2), ("test", 2)):
        batch = splits[name]
        assert isinstance(batch, Batch) and batch.mask == {}
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(batch))
        described = jax.tree.map(lambda leaf: (leaf.dtype.name, *leaf.shape), (batch.inputs, batch.targets))
        assert described == (
            ("float32", count, SIZE, SIZE, 3),
            {
                "boxes": {"corners": ("float32", count, 6, 4), "present": ("bool", count, 6)},
                "depth": ("float32", count, SIZE, SIZE, 1),
                "edges": ("float32", count, SIZE, SIZE, 1),
                "normals": ("float32", count, SIZE, SIZE, 3),
                "segmentation": ("int32", count, SIZE, SIZE),
            },
        )


def test_types_are_the_same_where_jax_has_float64_enabled(splits):
    with jax.enable_x64(True):
        batch = jax.eval_shape(random_scenes, jax.random.split(jax.random.key(0), 2))
    assert jax.tree.map(lambda leaf: leaf.dtype, batch) == jax.tree.map(lambda leaf: leaf.dtype, splits["train"])


@pytest.mark.slow
def test_batches_of_keys_are_the_scenes_of_single_keys_in_or_out_of_jit_and_float64_is_exact(splits, scenes, truth):
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), 0), i))(jnp.arange(2))
    one = render_scene(sample_scene(keys[1]), size=SIZE)
    both = jax.jit(lambda keys: random_scenes(keys, size=SIZE))(keys)
    for split, two, mine in zip(*map(jax.tree.leaves, (splits["train"], both, one)), strict=True):
        np.testing.assert_allclose(two, split[:2], atol=1e-5)
        np.testing.assert_allclose(mine, split[1], atol=1e-5)
    with jax.enable_x64(True):
        render = jax.jit(lambda scene: render_scene(scene, size=SIZE))
        for scene, (depth, normals, _) in zip(scenes[:4], truth[:4], strict=True):
            targets = render(jax.tree.map(jnp.asarray, scene)).targets
            assert targets["depth"].dtype == targets["boxes"]["corners"].dtype == jnp.float64
            np.testing.assert_allclose(targets["depth"][..., 0], depth, rtol=1e-11)
            np.testing.assert_allclose(targets["normals"], normals, atol=1e-9)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        *(
            (
                ValueError,
                f"load_rendered_scenes: {number} must be at least 1, found 0",
                functools.partial(load_rendered_scenes, **{number: 0}),
            )
            for number in ("num_train", "num_validation", "num_test")
        ),
        (ValueError, "load_rendered_scenes: seed must be at least 0, found -1", lambda: load_rendered_scenes(seed=-1)),
        (ValueError, "load_rendered_scenes: size must be at least 2, found 1", lambda: load_rendered_scenes(size=1)),
        (
            TypeError,
            r"render_scene: size must be an integer, found 32\.0",
            lambda: jax.eval_shape(lambda key: render_scene(sample_scene(key), size=32.0), jax.random.key(0)),
        ),
        (TypeError, "sample_scene: key must be one PRNG key", lambda: sample_scene(0)),
        (
            ValueError,
            r"sample_scene: key must be one PRNG key, .* shape \(2,\)",
            lambda: sample_scene(jax.random.split(jax.random.key(0), 2)),
        ),
        (
            ValueError,
            r"random_scenes: keys must be \[B\], found keys of shape \(\)",
            lambda: jax.eval_shape(random_scenes, jax.random.key(0)),
        ),
    ],
)
def test_bad_arguments_are_refused(error, message, call):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.slow
def test_the_example_writes_a_picture_and_a_table_in_which_the_blind_guess_is_as_good_as_it_should_be(tmp_path):
    from examples import scenes as example

    example.main(steps=2, num_train=40, size=16, out=tmp_path)
    rows = json.loads((tmp_path / "results.json").read_text())["results"]
    assert list(rows) == ["blind guess", *example.contestants()]
    assert all(np.isfinite(number) for row in rows.values() for number in row.values())
    splits = load_rendered_scenes(num_train=40, num_validation=1, num_test=400, size=16)
    classes = [
        np.bincount(pixel, minlength=5).argmax() for pixel in splits["train"].targets["segmentation"].reshape(40, -1).T
    ]
    right = splits["test"].targets["segmentation"].reshape(400, -1) == np.array(classes)[None]
    assert rows["blind guess"]["segmentation"] == pytest.approx(100 * right.mean(), abs=1e-3)
    assert len((tmp_path / "table.md").read_text().splitlines()) == 5
    assert (tmp_path / "scenes.png").read_bytes().startswith(b"\x89PNG")

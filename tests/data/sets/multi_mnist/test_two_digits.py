"""The Multi-MNIST family: every pixel where the papers put it, labels of the images seen, disjoint sources."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import struct

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mtljax.data.sets.multi_mnist import builder
from mtljax.data.sets.multi_mnist.builder import TwoDigits, TwoDigitsConfig
from mtljax.data.sets.multi_mnist.canvas import Layout, layout, overlay, pair, resize
from mtljax.data.sets.multi_mnist.idx import ROOTS, read_published
from mtljax.data.sets.multi_mnist.load import load_mnist_fashion, load_multi_fashion, load_multi_mnist
from mtljax.data.sets.prepared import columns

SPLITS = ("train", "validation", "test")
SIZES = {"train": 1200, "test": 100}  # source images of a fake data set
LOADERS = {
    "multi_mnist": (load_multi_mnist, "mnist", "mnist"),
    "multi_fashion": (load_multi_fashion, "fashion_mnist", "fashion_mnist"),
    "mnist_fashion": (load_mnist_fashion, "mnist", "fashion_mnist"),
}
# How the digest of the real data of seed 0 begins.
REAL = {
    "mgda": {"multi_mnist": "365a6f2e", "multi_fashion": "6333fba7", "mnist_fashion": "938cf7ae"},
    "pareto": {"multi_mnist": "e760c5ef", "multi_fashion": "7dcc4fca", "mnist_fashion": "ed4353e4"},
}


def source(folder, part):
    """A fake data set's images, noise that no two share, and labels."""
    rng = np.random.default_rng([list(ROOTS).index(folder), SIZES[part]])
    images = rng.integers(0, 256, (SIZES[part], 28, 28), np.uint8)
    return images, rng.integers(0, 10, SIZES[part], np.uint8)


@pytest.fixture
def fakes(fake_raw):
    for folder, root in ROOTS.items():
        files = {}
        for part, stem in (("train", "train"), ("test", "t10k")):
            images, labels = source(folder, part)
            headers = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape), struct.pack(">4BI", 0, 0, 8, 1, *labels.shape)
            files[f"{root}{stem}-images-idx3-ubyte.gz"] = gzip.compress(headers[0] + images.tobytes(), 0)
            files[f"{root}{stem}-labels-idx1-ubyte.gz"] = gzip.compress(headers[1] + labels.tobytes(), 0)
        fake_raw(folder, files)


def stored(data_dir, **settings):
    """Every feature of every split, its blocks undone."""
    config = TwoDigitsConfig(**settings)
    builder = TwoDigits(config=TwoDigits.builder_configs.get(config.name, config), data_dir=data_dir)
    return {
        split: {name: array.reshape(-1, *array.shape[2:]) for name, array in columns(builder, split).items()}
        for split in SPLITS
    }


def digest(features):
    sha = hashlib.sha256()
    for split, name in itertools.product(SPLITS, ("image", "left", "right", "left_source", "right_source")):
        sha.update(np.ascontiguousarray(features[split][name].astype(np.int32)).tobytes())
    return sha.hexdigest()


def canvas_by_hand(left, right, left_place, right_place, side):
    """What is seen, one pixel at a time."""
    canvas = np.zeros((side, side), np.uint8)
    for image, (row, column) in ((left, left_place), (right, right_place)):
        for i, j in np.ndindex(28, 28):
            canvas[row + i, column + j] = max(canvas[row + i, column + j], image[i, j])
    return canvas


def test_two_images_by_hand():
    left = np.array([[[1, 2], [3, 4]], [[9, 9], [9, 9]]], np.uint8)
    right = np.array([[[5, 6], [7, 8]], [[1, 1], [1, 1]]], np.uint8)
    seen = overlay(left, right, np.array([[0, 0], [2, 1]]), np.array([[1, 0], [1, 2]]), 4)
    assert seen[0].tolist() == [[1, 2, 0, 0], [5, 6, 0, 0], [7, 8, 0, 0], [0, 0, 0, 0]]
    assert seen[1].tolist() == [[0, 0, 0, 0], [0, 0, 1, 1], [0, 9, 9, 1], [0, 9, 9, 0]]


@pytest.mark.parametrize("places", [[[0, 0], [3, 0]], [[0, -1], [0, 0]]])
def test_an_image_may_not_leave_the_canvas(places):
    images = np.ones((2, 2, 2), np.uint8)
    with pytest.raises(ValueError, match=r"overlay: images of 2x2 at places .* leave a canvas of side 4"):
        overlay(images, images, np.zeros((2, 2), int), np.array(places), 4)


def test_layouts_of_the_papers_and_between():
    assert layout("mgda") == Layout(22, 36, (0, 0), (6, 6), side=28, repeats=1, distinct=False)
    assert layout("mgda", 20).right == (8, 8)
    assert layout("pareto") == Layout(20, 36, (0, 4), (4, 8), side=36, repeats=2, distinct=True)
    assert layout("pareto", 0) == Layout(0, 56, (0, 4), (24, 28), side=56, repeats=2, distinct=True)
    assert layout("pareto", 24)[:4] == (24, 36, (0, 6), (2, 8))  # nominal places 2 and 6
    assert layout("pareto", 27)[:4] == (27, 36, (0, 7), (0, 8))  # nominal places 3 and 4
    for variant, overlap in itertools.product(("mgda", "pareto"), range(20, 28)):
        found = layout(variant, overlap)
        assert found.overlap == overlap and sum(found.left) < sum(found.right)


def test_resizing_takes_the_pixel_that_pillow_takes():
    image = pytest.importorskip("PIL.Image")
    canvas = np.random.default_rng(0).integers(0, 256, (1, 36, 36), np.uint8)
    expected = np.asarray(image.fromarray(canvas[0]).resize((28, 28), image.Resampling.NEAREST))
    np.testing.assert_array_equal(resize(canvas, 28)[0], expected)
    ramp = resize(np.arange(36)[None, :, None].repeat(36, 2), 28)[0, :, 0]
    assert ramp.tolist()[:9] == [0, 1, 3, 4, 5, 7, 8, 9, 10] and ramp[-1] == 35


def test_pairs_use_every_image_once_and_never_clash():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 20)  # one class is half of them: only just possible
    ids = np.arange(100)
    for seed in range(20):
        left, right = pair(ids, ids, lambda a, b: labels[a] == labels[b], np.random.default_rng(seed))
        assert sorted(left) == sorted(right) == ids.tolist()
        assert (labels[left] != labels[right]).all()
    with pytest.raises(ValueError, match=r"pair: no partner for \d among 3: is one class more than half"):
        pair(ids[:3], ids[:3], lambda a, b: labels[a] == labels[b], np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"pair: left and right must be of one length, found \(3,\) and \(2,\)"):
        pair(ids[:3], ids[:2], lambda a, b: a == b, np.random.default_rng(0))


@pytest.mark.parametrize("family", LOADERS)
def test_the_mgda_variant_is_two_images_at_fixed_places(fakes, tmp_path, family):
    load, *folders = LOADERS[family]
    splits, features = load(tmp_path, variant="mgda"), stored(tmp_path, family=family, variant="mgda")
    nearest = [(2 * i + 1) * 36 // 56 for i in range(28)]
    for name, rows in features.items():
        (left, left_labels), (right, right_labels) = (source(f, "test" if name == "test" else "train") for f in folders)
        for k in range(0, len(rows["image"]), 37):
            i, j = rows["left_source"][k], rows["right_source"][k]
            canvas = canvas_by_hand(left[i], right[j], (0, 0), (6, 6), 36)
            np.testing.assert_array_equal(rows["image"][k, ..., 0], canvas[np.ix_(nearest, nearest)])
        np.testing.assert_array_equal(rows["left"], left_labels[rows["left_source"]])
        np.testing.assert_array_equal(rows["right"], right_labels[rows["right_source"]])
        assert np.bincount(rows["left_source"]).max() == np.bincount(rows["right_source"]).max() == 1
        if folders[0] == folders[1]:
            assert (rows["left_source"] != rows["right_source"]).all()
            assert (rows["left"] == rows["right"]).any()  # classes may be equal
        batch = splits[name]
        assert (batch.inputs.dtype, batch.mask) == (np.float32, {})
        np.testing.assert_array_equal(batch.inputs, rows["image"] / np.float32(255))
        assert {task: labels.dtype.name for task, labels in batch.targets.items()} == {
            "left": "int32",
            "right": "int32",
        }
        np.testing.assert_array_equal(batch.targets["left"], rows["left"])
        np.testing.assert_array_equal(batch.targets["right"], rows["right"])
    assert {name: len(batch.inputs) for name, batch in splits.items()} == dict(
        zip(SPLITS, (1100, 100, 100), strict=True)
    )


def test_the_pareto_variant_moves_both_images_within_their_corners(fakes, tmp_path):
    splits, features = load_multi_mnist(tmp_path), stored(tmp_path)
    assert {name: batch.inputs.shape for name, batch in splits.items()} == {
        "train": (2200, 36, 36, 1),
        "validation": (200, 36, 36, 1),
        "test": (200, 36, 36, 1),
    }
    images, labels = source("mnist", "test")
    rows, found = features["test"], []
    places = list(itertools.product(range(9), repeat=2))
    for k in range(200):
        canvas = rows["image"][k, ..., 0]
        left, right = images[rows["left_source"][k]], images[rows["right_source"][k]]
        fits = [[p for p in places if (canvas[p[0] :, p[1] :][:28, :28] >= image).all()] for image in (left, right)]
        assert [len(fit) for fit in fits] == [1, 1]
        found.append(fits[0][0] + fits[1][0])
        if k < 10:
            np.testing.assert_array_equal(canvas, canvas_by_hand(left, right, *(fit[0] for fit in fits), 36))
    counts = [np.bincount(column, minlength=9).tolist() for column in np.array(found).T]
    for upper_left, lower_right in zip(counts[:2], counts[2:], strict=True):
        assert min(upper_left[:5]) > 20 and sum(upper_left[5:]) == 0  # 40 are expected of each
        assert min(lower_right[4:]) > 20 and sum(lower_right[:4]) == 0
    np.testing.assert_array_equal(rows["left"], labels[rows["left_source"]])
    np.testing.assert_array_equal(rows["right"], labels[rows["right_source"]])


def test_splits_use_disjoint_sources_each_as_often_as_any_other(fakes, tmp_path):
    load_multi_mnist(tmp_path)
    features, used = stored(tmp_path), {}
    for name, rows in features.items():
        sides = [np.unique(rows[f"{side}_source"], return_counts=True) for side in ("left", "right")]
        np.testing.assert_array_equal(sides[0][0], sides[1][0])
        assert set(sides[0][1]) == set(sides[1][1]) == {2}
        assert (rows["left"] != rows["right"]).all()
        assert (np.diff(rows["left_source"]) > 0).mean() < 0.6  # in random order
        used[name] = set(sides[0][0])
    assert not used["train"] & used["validation"] and used["train"] | used["validation"] == set(range(1200))
    assert len(used["validation"]) == 100 and used["test"] == set(range(100))  # of the publisher's own test file


def test_a_seed_gives_the_same_data_wherever_they_are_prepared_and_another_gives_others(fakes, tmp_path):
    """Anything that changes these bytes needs a new VERSION: results would no longer be comparable."""
    load_multi_fashion(tmp_path, variant="mgda")
    load_mnist_fashion(tmp_path)
    assert TwoDigits.VERSION == "1.0.0"
    first = stored(tmp_path, family="multi_fashion", variant="mgda")
    assert digest(first) == "5935484b745ef5321c134c6d6539a00117baa0fb80e3f9a637a15215d58b3a90"
    assert (
        digest(stored(tmp_path, family="mnist_fashion"))
        == "487853a0a29fd455430654ece094dd980a79133710f85ee1ed68d20fe6f9bbfb"
    )
    load_multi_fashion(tmp_path, variant="mgda", seed=7)
    other = stored(tmp_path, family="multi_fashion", variant="mgda", seed=7)
    assert set(other["validation"]["left_source"]) != set(first["validation"]["left_source"])
    assert not np.array_equal(other["test"]["left_source"], first["test"]["left_source"])


def test_overlap_and_normalization_change_the_canvas_and_not_the_pairs(fakes, tmp_path):
    near = load_multi_mnist(tmp_path, variant="mgda", overlap=27)["test"]
    far = load_multi_mnist(tmp_path, variant="mgda", overlap=20)["test"]
    np.testing.assert_array_equal(near.targets["left"], far.targets["left"])
    np.testing.assert_array_equal(near.targets["right"], far.targets["right"])
    assert (far.inputs[:, -1, -1] > 0).any() and (near.inputs[:, -5:] == 0).all()
    assert load_multi_mnist(tmp_path, overlap=12)["validation"].inputs.shape == (200, 44, 44, 1)
    normal = load_multi_mnist(tmp_path, variant="mgda", overlap=20, normalize=True)["test"].inputs
    np.testing.assert_allclose(normal, (far.inputs.astype(np.float64) - 0.1307) / 0.3081, rtol=0, atol=1e-6)


def test_an_interrupted_preparation_leaves_nothing_that_is_read_later(fakes, tmp_path, monkeypatch):
    blocks = itertools.count()

    def interrupted(*arguments):
        if next(blocks) == 5:
            raise RuntimeError("out of power")
        return overlay(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(builder, "overlay", interrupted)
        with pytest.raises(RuntimeError, match="out of power"):
            load_multi_mnist(tmp_path / "once", variant="mgda")
    assert not list((tmp_path / "once").rglob("1.0.0"))
    after = load_multi_mnist(tmp_path / "once", variant="mgda")
    undisturbed = load_multi_mnist(tmp_path / "other", variant="mgda")
    for name in SPLITS:
        np.testing.assert_array_equal(after[name].inputs, undisturbed[name].inputs)


def test_a_record_is_a_block_that_tfds_reads_and_describes(fakes, tmp_path):
    load_mnist_fashion(tmp_path, variant="mgda")
    builder = TwoDigits(config="mnist_fashion_mgda_overlap_22_seed_0", data_dir=tmp_path)
    blocks, info = builder.as_data_source("train"), builder.info
    assert len(blocks) == 11 and blocks[0]["image"].shape == (100, 28, 28, 1) and blocks[0]["left"].shape == (100,)
    assert info.file_format.value == "array_record"
    assert info.metadata["sources"] == {"left": "mnist", "right": "fashion_mnist"} and info.metadata["overlap"] == 22
    assert "LeCun" in info.citation and "Xiao" in info.citation and "MIT" in info.redistribution_info.license


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (ValueError, "layout: variant must be 'mgda' or 'pareto', found 'sener'", {"variant": "sener"}),
        (ValueError, "overlap of variant 'pareto' must be from 0 to 27, found 28", {"overlap": 28}),
        (ValueError, "overlap of variant 'pareto' must be from 0 to 27, found -1", {"overlap": -1}),
        (
            ValueError,
            "overlap of variant 'mgda' must be from 20 to 27, found 19",
            {"variant": "mgda", "overlap": 19},
        ),
        (ValueError, "seed must be at least 0, found -1", {"seed": -1}),
        (TypeError, "overlap of variant 'pareto' must be an integer", {"overlap": 0.5}),
        (TypeError, "overlap of variant 'pareto' must be an integer", {"overlap": "20"}),
        (TypeError, "seed must be an integer", {"seed": 1.0}),
    ],
)
def test_settings_that_cannot_be_made_are_refused(tmp_path, error, message, settings):
    with pytest.raises(error, match=message):
        load_multi_mnist(tmp_path, **settings)


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        (r"family must be .* found 'multi_digits'", {"family": "multi_digits"}),
        (
            r"name must be left out or 'multi_mnist_pareto_overlap_20_seed_1', found 'mine'",
            {"name": "mine", "seed": 1},
        ),
    ],
)
def test_a_config_says_what_it_cannot_be(message, settings):
    with pytest.raises(ValueError, match=message):
        TwoDigitsConfig(**settings)


def test_a_builder_wants_its_own_config(tmp_path):
    with pytest.raises(TypeError, match="config must be a TwoDigitsConfig"):
        TwoDigits(config=tfds.core.BuilderConfig("mine"), data_dir=tmp_path)


def test_what_does_not_fill_its_blocks_is_refused(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "_BLOCK", 64)
    with pytest.raises(ValueError, match="must fill blocks of 64 examples, found 1100 made from 1100 images of mnist"):
        load_multi_mnist(tmp_path, variant="mgda")


@pytest.mark.slow
@pytest.mark.parametrize("variant", REAL)
@pytest.mark.parametrize("family", LOADERS)
def test_the_real_data(real_data, tmp_path, family, variant):
    load, *folders = LOADERS[family]
    for folder in folders:
        real_data(folder)
    splits, features = load(tmp_path, variant=variant), stored(tmp_path, family=family, variant=variant)
    repeats = {"mgda": 1, "pareto": 2}[variant]
    sizes = {"train": 55_000, "validation": 5_000, "test": 10_000}
    assert {name: len(batch.inputs) for name, batch in splits.items()} == {n: repeats * s for n, s in sizes.items()}
    for side, folder in zip(("left", "right"), folders, strict=True):
        published = read_published(None, folder)
        used = [set(features[name][f"{side}_source"]) for name in SPLITS]
        assert not used[0] & used[1] and len(used[0] | used[1]) == 60_000 and len(used[2]) == 10_000
        for name, batch in splits.items():
            labels = published["test" if name == "test" else "train"][1]
            np.testing.assert_array_equal(batch.targets[side], labels[features[name][f"{side}_source"]])
    alike = (features["train"]["left"] == features["train"]["right"]).mean()
    assert alike == 0 if variant == "pareto" and len(set(folders)) == 1 else abs(alike - 0.1) < 0.01
    assert digest(features)[:8] == REAL[variant][family]

"""dSprites factors: every label from the image's own row, disjoint splits, nothing unpickled."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest

from mtljax.data.sets import dsprites_factors, raw
from mtljax.data.sets.dsprites_factors import DspritesFactors, load_dsprites_factors

URL = "manual:dsprites/dsprites_downsampled.npz"
SIZES = (3, 2, 10, 2, 3)  # a grid of 360 rows
SPLITS = ("train", "validation", "test")
TASKS = ("shape", "scale", "orientation", "x", "y", "scale_value", "orientation_angle", "x_value", "y_value")


class Trap:
    """What cannot be unpickled without a trace."""

    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle was read')",)


def contents():
    """A fake published file: images that no two rows share, and latents."""
    rows = int(np.prod(SIZES))
    classes = np.stack([axis.ravel() for axis in np.indices(SIZES)], 1)
    values = classes * [1, 0.1, 2 * np.pi * 4 / 39, 2 / 31, 2 / 31] + [1, 0.5, 0, 0, 0]
    images = np.random.default_rng(0).integers(0, 2, (rows, 64, 64), np.uint8)
    return {"metadata": np.array(Trap(), object), "imgs": images, "latents_classes": classes, "latents_values": values}


def packed(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture
def fake(fake_raw):
    fake_raw("dsprites", {URL: packed(contents())})


def row_of(images):
    """Which row of the fake file each image is, by its pixels alone."""
    rows = {image.tobytes(): row for row, image in enumerate(contents()["imgs"])}
    return np.array([rows[image.astype(np.uint8).tobytes()] for image in images[..., 0]])


def test_targets_belong_to_the_pixels(fake, tmp_path):
    for batch in load_dsprites_factors(tmp_path).values():
        size, rows = len(batch.inputs), row_of(batch.inputs)
        assert (batch.inputs.dtype, batch.inputs.shape, batch.mask) == (np.float32, (size, 64, 64, 1), {})
        assert tuple(batch.targets) == TASKS
        classes, values = contents()["latents_classes"][rows], contents()["latents_values"][rows]
        for factor, name in enumerate(("shape", "scale", "orientation", "x", "y")):
            assert batch.targets[name].dtype == np.int32
            np.testing.assert_array_equal(batch.targets[name], classes[:, factor])
        for factor, name in ((1, "scale_value"), (3, "x_value"), (4, "y_value")):
            assert batch.targets[name].dtype == np.float32
            np.testing.assert_allclose(batch.targets[name], values[:, factor], rtol=1e-6)
        angles = batch.targets["orientation_angle"]
        assert (angles.dtype, angles.shape) == (np.float32, (size, 2))
        for (sine, cosine), (shape, angle) in zip(angles, values[:, [0, 2]], strict=True):
            period = {1: np.pi / 2, 2: np.pi, 3: 2 * np.pi}[int(shape)]  # square, ellipse, heart
            found = np.arctan2(sine, cosine) % (2 * np.pi) * period / (2 * np.pi)
            apart = abs(found - angle % period)
            assert min(apart, period - apart) < 1e-5
            assert abs(sine**2 + cosine**2 - 1) < 1e-5


def test_splits_are_a_permutation_that_the_seed_alone_decides(fake, tmp_path):
    rows = {name: row_of(batch.inputs) for name, batch in load_dsprites_factors(tmp_path, tasks=["x"]).items()}
    assert {name: len(part) for name, part in rows.items()} == {"train": 288, "validation": 36, "test": 36}
    assert sorted(np.concatenate(list(rows.values()))) == list(range(360))
    assert (np.diff(rows["train"]) > 0).mean() < 0.7
    digest = hashlib.sha256(np.concatenate([rows[name] for name in SPLITS]).astype(np.int32).tobytes()).hexdigest()
    assert digest[:16] == "b5e07f7d407a1623"  # another one means other splits, and a new VERSION
    other = load_dsprites_factors(tmp_path, tasks=["x"], split_seed=1)
    assert set(row_of(other["test"].inputs)) != set(rows["test"])
    assert len(list(tmp_path.rglob("dsprites_factors/*"))) == 1  # the images are stored once


def test_tasks_are_those_asked_for_in_that_order(fake, tmp_path):
    for chosen in (["shape"], ("y_value", "orientation_angle", "shape")):
        assert list(load_dsprites_factors(tmp_path, tasks=chosen)["test"].targets) == list(chosen)


def test_the_builder_keeps_the_order_of_the_grid_and_says_what_it_holds(fake, tmp_path):
    load_dsprites_factors(tmp_path, tasks=["x"])
    builder = DspritesFactors(data_dir=tmp_path)
    rows = builder.as_data_source("train")
    assert len(rows) == 360 and rows[7]["image"].dtype == np.uint8
    np.testing.assert_array_equal(rows[7]["image"][..., 0], contents()["imgs"][7])
    np.testing.assert_array_equal(rows[7]["classes"], contents()["latents_classes"][7])
    info = builder.info
    assert info.metadata["factors"] == ["shape", "scale", "orientation", "x", "y"]
    assert info.metadata["num_classes"] == [3, 6, 10, 16, 16]
    assert "Matthey" in info.citation and "Apache-2.0" in info.redistribution_info.license
    assert info.file_format.value == "array_record"


def test_an_interrupted_preparation_leaves_nothing_that_is_read_later(fake, tmp_path, monkeypatch):
    generate = DspritesFactors._generate_examples

    def interrupted(self, path):
        for row, example in generate(self, path):
            if row == 200:
                raise RuntimeError("out of power")
            yield row, example

    with monkeypatch.context() as patch:
        patch.setattr(DspritesFactors, "_generate_examples", interrupted)
        with pytest.raises(RuntimeError, match="out of power"):
            load_dsprites_factors(tmp_path)
    assert not list(tmp_path.rglob("1.0.0"))
    assert sum(len(batch.inputs) for batch in load_dsprites_factors(tmp_path).values()) == 360


def first(good, number):
    """The first rows of the fake file."""
    return {name: array[:number] for name, array in good.items() if name != "metadata"}


def broken(good):
    values = good["latents_values"].copy()
    values[5, 2] = np.nan
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda good: b"PK nothing", "must be an npz file of plain arrays, found: "),
        (lambda good: packed(good)[:-40], "must be an npz file of plain arrays, found: "),
        (
            lambda good: packed(good | {"imgs": np.array([None])}),
            "must be an npz file of plain arrays, found: Object arrays",
        ),
        (
            lambda good: packed({"imgs": good["imgs"]}),
            r"must hold .*latents_classes.*, found {'imgs': 'uint8 \[360, 64, 64\]'}",
        ),
        (
            lambda good: packed(good | {"imgs": good["imgs"][:, :32]}),
            r"'uint8 \[360, 64, 64\]'.*, found .*'uint8 \[360, 32, 64\]'",
        ),
        (lambda good: packed(good | {"imgs": np.uint8(1)}), r"found .*'uint8 \[\]'"),
        (lambda good: packed(good | {"imgs": good["imgs"][:-1]}), r"int64 \[359, 5\].*, found .*int64 \[360, 5\]"),
        (lambda good: packed(good | {"imgs": good["imgs"] > 0}), r"found {'imgs': 'bool "),
        (
            lambda good: packed(good | {"latents_classes": good["latents_classes"][::-1]}),
            r"complete grid, in order.*found 360 rows of \[3, 2, 10, 2, 3\]",
        ),
        (lambda good: packed(first(good, -1)), r"complete grid.*found 359 rows of \[3, 2, 10, 2, 3\]"),
        (lambda good: packed(first(good, 0)), "found 0 rows of"),
        (
            lambda good: packed(good | {"imgs": good["imgs"] * np.uint8(255)}),
            "pixels of 0 and 1 .* found pixels up to 255 and 0 values",
        ),
        (
            lambda good: packed(good | {"latents_values": broken(good)}),
            "found pixels up to 1 and 1 values that are not finite",
        ),
    ],
    ids=[
        "not an archive",
        "cut off",
        "objects",
        "images alone",
        "half images",
        "one number",
        "an image fewer",
        "bool",
        "another order",
        "a row fewer",
        "no rows",
        "bright",
        "nan",
    ],
)
def test_a_file_that_is_not_as_described_is_refused_with_its_name(fake_raw, tmp_path, change, message):
    fake_raw("dsprites", {URL: change(contents())})
    with pytest.raises(ValueError, match=rf"dsprites_factors: \S+dsprites_downsampled\.npz .*{message}"):
        load_dsprites_factors(tmp_path)


def test_a_file_that_is_nowhere_is_asked_for(fake_raw, tmp_path):
    fake_raw("elsewhere", {})
    with pytest.raises(FileNotFoundError, match=r"put it at dsprites/dsprites_downsampled\.npz in the folder"):
        load_dsprites_factors(tmp_path)


def test_the_real_file_is_a_grid_of_images_in_which_the_factors_are_seen(real_data):
    path = real_data("dsprites") / raw.registered()[URL].name
    images, classes, values = dsprites_factors._read(path)
    assert images.shape == (46_080, 64, 64) and classes.max(0).tolist() == [2, 5, 9, 15, 15]
    grid = images.reshape(3, 6, 10, 16, 16, 64, 64)
    for factor, (least, most) in enumerate(((1, 3), (0.5, 1), (0, 9 * 2 * np.pi * 4 / 39), (0, 30 / 31), (0, 30 / 31))):
        np.testing.assert_allclose(values[:, factor].min(), least, atol=1e-6)
        np.testing.assert_allclose(values[:, factor].max(), most, rtol=1e-6)
    # Square, ellipse, heart cover 4 r^2, pi r^2 and less of the canvas; larger scales more.
    areas = grid[:, :, 0, 8, 8].sum((-1, -2), dtype=int)
    assert (np.diff(areas, axis=1) > 0).all() and (np.diff(areas, axis=0) < 0).all()
    # x grows to the right and y downwards.
    for moving, still, images in ((1, 2, grid[0, 5, 0, :, 8]), (2, 1, grid[0, 5, 0, 8, :])):
        ink = images.sum((1, 2), dtype=int)
        steps = np.diff(images.sum(moving, dtype=int) @ np.arange(64) / ink)
        assert (steps >= 2).all() and (steps <= 2.5).all()  # pixels; more at the rim, where the square is drawn wider
        assert (abs(np.diff(images.sum(still, dtype=int) @ np.arange(64) / ink)) < 1e-9).all()
    # Five steps on, a square has turned by two quarters and an ellipse by a half, but for 4.6 degrees: they look alike,
    # and the heart does not.
    half = np.count_nonzero(grid[:, 5, 0, 8, 8] != grid[:, 5, 5, 8, 8], axis=(-1, -2)) / areas[:, 5]
    assert (half[:2] < 0.1).all() and half[2] > 0.5


@pytest.mark.slow
def test_the_real_data(real_data, tmp_path):
    real_data("dsprites")
    splits = load_dsprites_factors(tmp_path)
    assert {name: batch.inputs.shape for name, batch in splits.items()} == {
        "train": (36_864, 64, 64, 1),
        "validation": (4_608, 64, 64, 1),
        "test": (4_608, 64, 64, 1),
    }
    for task, classes in (("shape", 3), ("scale", 6), ("orientation", 10), ("x", 16), ("y", 16)):
        counts = sum(np.bincount(batch.targets[task], minlength=classes) for batch in splits.values())
        assert set(counts) == {46_080 // classes}
    images = np.concatenate([batch.inputs for batch in splits.values()]).astype(np.uint8)
    assert len({image.tobytes() for image in images}) == 46_066  # 14 pairs are equal, whatever the file says

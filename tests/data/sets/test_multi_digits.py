"""multi_digits: real scans, disjoint splits, the same bytes from the same seed."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest

from mtljax.data import MultiDigits, MultiDigitsConfig, load_multi_digits
from mtljax.data.sets import multi_digits

SPLITS = ("train", "validation", "test")
FEW = {"train": 40, "validation": 20, "test": 10}


def generated(directory):
    """Every feature of every split as one array, as the builder hands them to TFDS."""
    columns = {}
    for name, rows in MultiDigits(data_dir=directory)._split_generators(None).items():
        examples = [example for _, example in rows]
        columns[name] = {feature: np.stack([each[feature] for each in examples]) for feature in examples[0]}
    return columns


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """All examples. TFDS takes seconds to write and read so many: what passes through it is tested on a few."""
    return generated(tmp_path_factory.mktemp("nothing"))


@pytest.fixture(scope="module")
def splits(raw):
    return {name: multi_digits._as_batch(columns) for name, columns in raw.items()}


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(multi_digits, "_SIZES", FEW)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where a few examples are prepared."""
    directory = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multi_digits, "_SIZES", FEW)
        load_multi_digits(directory)
    return directory


def files(directory):
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*array_record*")
    }


def test_shapes_types_and_ranges(splits):
    assert {name: len(batch.inputs) for name, batch in splits.items()} == dict(
        zip(SPLITS, (10_000, 2_000, 2_000), strict=True)
    )
    for batch in splits.values():
        size = len(batch.inputs)
        described = {name: (array.dtype.name, array.shape) for name, array in batch.targets.items()}
        assert described == {
            "left": ("int32", (size,)),
            "reconstruct": ("float32", (size, 12, 16, 1)),
            "right": ("int32", (size,)),
            "sum": ("float32", (size,)),
        }
        assert (batch.inputs.dtype, batch.inputs.shape) == (np.float32, (size, 12, 16, 1))
        assert batch.inputs.min() == 0 and batch.inputs.max() == 1
        for side in ("left", "right"):
            counts = np.bincount(batch.targets[side], minlength=10)
            assert len(counts) == 10 and counts.min() > 0.06 * size


def test_splits_use_disjoint_source_digits(raw):
    used = {name: set(raw[name]["left_source"]) | set(raw[name]["right_source"]) for name in SPLITS}
    assert not used["train"] & used["validation"]
    assert not used["train"] & used["test"]
    assert not used["validation"] & used["test"]
    assert {name: len(sources) for name, sources in used.items()} == {"train": 1079, "validation": 359, "test": 359}
    assert set().union(*used.values()) == set(range(1797))
    assert all((raw[name]["left_source"] != raw[name]["right_source"]).all() for name in SPLITS)


def test_labels_are_those_of_the_source_digits(raw):
    from sklearn.datasets import load_digits

    labels = load_digits().target
    for columns in raw.values():
        for side in ("left", "right"):
            np.testing.assert_array_equal(columns[side], labels[columns[f"{side}_source"]])


def test_canvases_hold_both_source_digits_and_nothing_else(raw):
    from sklearn.datasets import load_digits

    images = load_digits().images
    places = list(np.ndindex(5, 9))
    for i in range(100):
        columns = {name: array[i] for name, array in raw["test"].items()}
        seen, scans = columns["canvas"][..., 0], [images[columns[f"{side}_source"]] for side in ("left", "right")]
        fits = [[(r, c) for r, c in places if (seen[r : r + 8, c : c + 8] >= scan).all()] for scan in scans]
        found = 0
        for both in itertools.product(*fits):
            canvas = np.zeros([12, 16])
            for (row, column), scan in zip(both, scans, strict=True):
                place = canvas[row : row + 8, column : column + 8]
                np.maximum(place, scan, out=place)
            found += both[0][1] < both[1][1] and np.array_equal(canvas, seen)
        assert found >= 1


def test_exactly_one_cell_is_masked(raw):
    for columns in raw.values():
        cells = np.arange(12).reshape(3, 4).repeat(4, 0).repeat(4, 1)[None, ..., None]
        hidden = cells == columns["cell"][:, None, None, None]
        np.testing.assert_array_equal(columns["masked"], np.where(hidden, 0, columns["canvas"]))
        assert set(columns["cell"]) == set(range(12))


def test_arrays_are_the_features(raw, splits):
    for name, batch in splits.items():
        np.testing.assert_array_equal(batch.inputs, raw[name]["masked"] / np.float32(16))
        np.testing.assert_array_equal(batch.targets["reconstruct"], raw[name]["canvas"] / np.float32(16))
        np.testing.assert_array_equal(batch.mask["sum"], raw[name]["sum_mask"])


def assert_prepared_and_read(directory, columns):
    """The builder's own rows, in order, have come through TFDS."""
    batches = load_multi_digits(directory)
    builder = MultiDigits(data_dir=directory)
    for name, expected in columns.items():
        source = builder.as_data_source(split=name)
        rows = source.__getitems__(list(range(len(source))))
        for feature, array in expected.items():
            np.testing.assert_array_equal(np.stack([row[feature] for row in rows]), array)
        jax.tree.map(np.testing.assert_array_equal, batches[name], multi_digits._as_batch(expected))
        same = jax.tree.map(lambda a, b: a.dtype == b.dtype, batches[name], multi_digits._as_batch(expected))
        assert all(jax.tree.leaves(same))


def test_what_is_loaded_is_what_was_generated(data_dir, few):
    assert_prepared_and_read(data_dir, generated(data_dir))


@pytest.mark.slow
def test_all_that_is_loaded_is_what_was_generated(raw, tmp_path):
    assert_prepared_and_read(tmp_path, raw)


def test_half_of_the_sums_are_missing(splits):
    for batch in splits.values():
        present = batch.mask["sum"]
        assert present.dtype == bool
        assert present.sum() == len(present) / 2
        np.testing.assert_array_equal(
            batch.targets["sum"][present], (batch.targets["left"] + batch.targets["right"])[present]
        )
        assert np.isnan(batch.targets["sum"][~present]).all()
        # At random: not by place, not by label.
        assert abs(present[: len(present) // 2].mean() - 0.5) < 0.05
        assert abs(batch.targets["left"][present].mean() - batch.targets["left"].mean()) < 0.25


def test_the_same_seed_gives_identical_files(data_dir, few, tmp_path):
    load_multi_digits(tmp_path)
    assert len(files(tmp_path)) == 3
    assert files(tmp_path) == files(data_dir)


def test_the_data_are_those_of_version_1(raw):
    """Anything that changes these bytes needs a new VERSION: results would no longer be comparable."""
    digest = hashlib.sha256()
    for name in SPLITS:
        for feature in ("canvas", "masked", "left", "right", "sum_mask", "left_source", "right_source"):
            digest.update(np.ascontiguousarray(raw[name][feature].astype(np.int32)).tobytes())
    assert MultiDigits.VERSION == "1.0.0"
    assert digest.hexdigest() == "5774f11e8fead38c906c20782edf8b21e456c8fcea5ae961aacf384f68b2d574"


def test_another_seed_gives_other_data_beside_the_first(few, tmp_path):
    first, other = load_multi_digits(tmp_path), load_multi_digits(tmp_path, seed=1)
    assert not np.array_equal(other["train"].inputs, first["train"].inputs)
    assert not np.array_equal(other["train"].targets["left"], first["train"].targets["left"])
    again = load_multi_digits(tmp_path)
    np.testing.assert_array_equal(again["train"].inputs, first["train"].inputs)
    with pytest.raises(ValueError, match="load_multi_digits: seed must be at least 0, found -1"):
        load_multi_digits(tmp_path, seed=-1)


def test_a_process_that_comes_second_reads_what_the_first_prepared(data_dir, few, tmp_path, monkeypatch):
    expected = load_multi_digits(data_dir)["test"]
    prepare = MultiDigits.download_and_prepare

    def beaten(self, **kwargs):
        prepare(MultiDigits(data_dir=tmp_path), **kwargs)
        raise FileExistsError("Cannot rename incomplete directory, destination already exists.")

    monkeypatch.setattr(MultiDigits, "download_and_prepare", beaten)
    np.testing.assert_array_equal(load_multi_digits(tmp_path)["test"].inputs, expected.inputs)


def test_metadata(data_dir):
    info = MultiDigits(data_dir=data_dir).info
    assert info.metadata["source_digits"]["disjoint_between_splits"] is True
    assert info.metadata["source_digits"]["counts"] == {"train": 1079, "validation": 359, "test": 359}
    assert info.metadata["seed"] == 0
    assert "Alpaydin" in info.citation and "10.24432/C50P49" in info.citation
    assert "CC BY 4.0" in info.redistribution_info.license
    assert info.file_format.value == "array_record"
    config = MultiDigitsConfig(name="seven", seed=7)
    assert MultiDigits(config=config, data_dir=data_dir).info.metadata["seed"] == 7


def test_without_scikit_learn_prepared_data_load_and_preparing_says_what_to_install(data_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    load_multi_digits(data_dir)
    with pytest.raises(ImportError, match=r"scikit-learn.*pip install mtljax\[demo\]"):
        load_multi_digits(tmp_path)


def test_importing_the_package_leaves_slow_modules_out_and_loading_leaves_tensorflow_out(data_dir):
    program = f"""
import sys, mtljax.data
slow = {{"tensorflow_datasets", "grain", "sklearn"}} & set(sys.modules)
assert not slow, slow
mtljax.data.load_multi_digits({str(data_dir)!r})
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)

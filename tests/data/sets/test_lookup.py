"""Every data set by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mtljax.data
from mtljax.data.sets import table


def test_every_name_of_the_table_is_exported_and_found():
    for name, place in table.places().items():
        assert getattr(mtljax.data, name).__name__ == name == place.split(":")[1]
        assert name in mtljax.data.__all__
    for name, row in table.TABLE.items():
        assert row.loader == f"load_{name}"


def test_every_public_loader_and_builder_is_in_the_table_and_in_the_docs():
    loaders = {name for name in mtljax.data.__all__ if name.startswith("load_")} - {"load_moving_sequences"}
    assert loaders == {f"load_{name}" for name in mtljax.data.names()}
    docs = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    first = {name for line in docs.splitlines() for name in line.split("|")[1:2] for name in name.split(",")}
    assert set(mtljax.data.names()) <= {name.strip() for name in first}


def test_a_generated_set_by_name_split_and_options():
    options = {"num_sequences": (2, 1, 1), "length": 3, "size": 24, "max_objects": 2}
    one = mtljax.data.load("moving_shapes", "train", **options)
    all_of_them = mtljax.data.load("moving_shapes", **options)
    np.testing.assert_array_equal(one.inputs, all_of_them["train"].inputs)
    with pytest.raises(
        ValueError, match=r"load: split of moving_shapes must be one of \['test', 'train', 'validation'\]"
    ):
        mtljax.data.load("moving_shapes", "dev", **options)
    with pytest.raises(ValueError, match=r"options of moving_shapes must be among .*'length'.*, found \['data_dir'\]"):
        mtljax.data.load("moving_shapes", data_dir="/tmp", **options)


def test_stored_rows_and_arrays_in_memory_are_the_same(tmp_path, real_data):
    real_data("sarcos")
    rows = mtljax.data.source("sarcos", "full", data_dir=tmp_path)
    assert len(rows) == 4449
    with pytest.raises(ValueError, match=r"split of sarcos must be one of \['full'\], found 'train'"):
        mtljax.data.source("sarcos", "train", data_dir=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multi_mnist", "mnist_fashion"])
def test_the_default_configuration_is_what_load_takes_without_options(tmp_path, real_data, name):
    for folder in ("mnist", "fashion_mnist"):
        real_data(folder)
    blocks = mtljax.data.source(name, "test", data_dir=tmp_path)
    arrays = mtljax.data.load(name, "test", data_dir=tmp_path)
    assert len(blocks) * 100 == len(arrays.inputs)
    # Beside it TFDS keeps a folder `.config` of its own.
    assert len(list(tmp_path.glob("*/[!.]*/*"))) == 1, "one prepared configuration"

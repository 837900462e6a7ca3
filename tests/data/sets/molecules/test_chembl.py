"""ChEMBL: numbers with many gaps, in files by year, as one bank of 691 targets."""

from __future__ import annotations

import numpy as np
import pytest

from mtljax.data import banks
from mtljax.data.sets.molecules.chembl import Chembl, load_chembl
from mtljax.data.sets.molecules.fingerprints import fingerprints
from tests.data.sets.molecules.tables import SMILES, table

URL = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/chembl_year_sets/chembl_5thresh_ts_{}.csv.gz"
NAMES = banks("chembl")["targets"]
HEADER = (*NAMES, "year", "smiles")
PARTS = {"train": slice(12), "valid": slice(12, 17), "test": slice(17, 20)}
RNG = np.random.default_rng(0)
VALUES = np.where(RNG.random((20, 691)) < 0.05, RNG.uniform(4, 11, (20, 691)).round(2), np.nan)
LABELS = np.where(np.isnan(VALUES), "", VALUES.astype(str))


def files(labels=LABELS):
    return {URL.format(part): table(labels[rows], HEADER, SMILES[rows]) for part, rows in PARTS.items()}


def test_each_part_is_read_from_its_own_file_and_is_a_bank(fake_raw, tmp_path):
    pytest.importorskip("rdkit")
    fake_raw("chembl", files())
    splits = load_chembl(tmp_path, bits=64)
    prints, _ = fingerprints(SMILES, bits=64)
    for batch, rows in zip(splits.values(), PARTS.values(), strict=True):
        np.testing.assert_array_equal(batch.inputs, prints[rows])
        assert batch.targets["targets"].dtype == np.float32 and batch.mask["targets"].dtype == bool
        np.testing.assert_array_equal(batch.mask["targets"], ~np.isnan(VALUES[rows]))
        np.testing.assert_array_equal(batch.targets["targets"], np.nan_to_num(VALUES[rows]).astype(np.float32))
    info = Chembl(data_dir=tmp_path).info
    assert info.metadata["tasks"] == list(NAMES) and info.redistribution_info.license.startswith("CC BY-SA 3.0")


@pytest.mark.parametrize("wrong", ["strong", "nan", "inf"])
def test_a_label_that_is_no_number_is_refused_with_its_row(fake_raw, tmp_path, wrong):
    labels = LABELS.astype(object)
    labels[13, 5] = wrong
    fake_raw("chembl", files(labels))
    message = rf"ts_valid\.csv\.gz: expected labels finite numbers or none in row 2, found '{wrong}'"
    with pytest.raises(ValueError, match=message):
        load_chembl(tmp_path)


@pytest.mark.slow
def test_the_published_files(real_data, tmp_path):
    pytest.importorskip("rdkit")
    real_data("chembl")
    splits = load_chembl(tmp_path)
    # Counted in the files.
    shapes = {name: (batch.inputs.shape, int(batch.mask["targets"].sum())) for name, batch in splits.items()}
    assert shapes == {
        "train": ((14_620, 1024), 54_009),
        "validation": ((4000, 1024), 14_890),
        "test": ((5252, 1024), 22_152),
    }
    values = splits["train"].targets["targets"][splits["train"].mask["targets"]]
    assert values.min() == 4 and values.max() == 11 and abs(values.mean() - 6.786208502) < 1e-5
    assert splits["train"].mask["targets"].any(0).sum() == 562
    # The mean of each target, and the mean of these means where it has no label: 1.157 and 1.225, by hand as well.
    counts = splits["train"].mask["targets"].sum(0)
    means = splits["train"].targets["targets"].sum(0) / np.maximum(counts, 1)
    means = np.where(counts, means, means[counts > 0].mean())
    for name, expected in (("validation", 1.157), ("test", 1.225)):
        batch = splits[name]
        error = np.where(batch.mask["targets"], batch.targets["targets"] - means, 0)
        assert abs(np.sqrt((error**2).sum() / batch.mask["targets"].sum()) - expected) < 5e-4

"""Tox21 and SIDER: labels with gaps, split by index, fingerprints computed when loaded."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mtljax.data import banks
from mtljax.data.sets.molecules import fingerprints as molecules
from mtljax.data.sets.molecules.sider import Sider, load_sider
from mtljax.data.sets.molecules.tox21 import Tox21, load_tox21
from mtljax.data.sets.prepared import columns, prepare
from tests.data.sets.molecules.tables import SMILES
from tests.data.sets.molecules.tables import table as written

TOX21 = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/tox21.csv.gz"
SIDER = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/sider.csv.gz"
ASSAYS = [
    "NR-AR",
    "NR-AR-LBD",
    "NR-AhR",
    "NR-Aromatase",
    "NR-ER",
    "NR-ER-LBD",
    "NR-PPAR-gamma",
    "SR-ARE",
    "SR-ATAD5",
    "SR-HSE",
    "SR-MMP",
    "SR-p53",
]
LABELS = np.random.default_rng(0).choice(["0", "1", ""], p=[0.6, 0.2, 0.2], size=(20, 12))


def table(smiles=SMILES, labels=LABELS, header=(*ASSAYS, "mol_id", "smiles")):
    return written(labels, header, smiles)


def test_molecules_and_labels_are_stored_without_rdkit(fake_raw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    fake_raw("tox21", {TOX21: table()})
    builder = prepare("load_tox21", Tox21, tmp_path)
    for split, rows in (("train", slice(16)), ("validation", slice(16, 18)), ("test", slice(18, 20))):
        found = columns(builder, split)
        assert [text.decode() for text in found["smiles"]] == SMILES[rows]
        np.testing.assert_array_equal(found["labels"], LABELS[rows] == "1")
        np.testing.assert_array_equal(found["present"], LABELS[rows] != "")
    info = Tox21(data_dir=tmp_path).info
    assert info.metadata["tasks"] == ASSAYS and info.file_format.value == "array_record"
    assert "MoleculeNet" in info.citation and info.redistribution_info.license.startswith("MIT")
    with pytest.raises(ImportError, match=r"need RDKit: pip install mtljax\[molecules\]"):
        load_tox21(tmp_path)


def test_batches_have_fingerprints_labels_and_masks(fake_raw, tmp_path):
    pytest.importorskip("rdkit")
    fake_raw("tox21", {TOX21: table()})
    for options in ({}, {"radius": 1, "bits": 64}):
        splits = load_tox21(tmp_path, **options)
        assert list(splits) == ["train", "validation", "test"]
        prints, _ = molecules.fingerprints(SMILES, **options)
        for batch, rows in zip(splits.values(), (slice(16), slice(16, 18), slice(18, 20)), strict=True):
            assert batch.inputs.dtype == np.float32
            np.testing.assert_array_equal(batch.inputs, prints[rows])
            assert list(batch.targets) == list(batch.mask) == ["assays"]
            assert batch.targets["assays"].dtype == np.int32 and batch.mask["assays"].dtype == bool
            np.testing.assert_array_equal(batch.targets["assays"], LABELS[rows] == "1")
            np.testing.assert_array_equal(batch.mask["assays"], LABELS[rows] != "")
    assert banks("tox21") == {"assays": tuple(ASSAYS)}


def test_the_few_molecules_that_rdkit_cannot_read_are_left_out_and_many_refused(fake_raw, tmp_path):
    pytest.importorskip("rdkit")
    smiles = SMILES * 10
    smiles[3] = smiles[165] = "O=CO[AlH3](OC=O)OC=O"
    fake_raw("tox21", {TOX21: table(smiles, np.tile(LABELS, (10, 1)))})
    splits = load_tox21(tmp_path / "few")
    assert [len(batch.inputs) for batch in splits.values()] == [159, 19, 20]
    np.testing.assert_array_equal(splits["train"].targets["assays"][:4], LABELS[[0, 1, 2, 4]] == "1")
    np.testing.assert_array_equal(splits["validation"].mask["assays"][4:8], LABELS[[4, 6, 7, 8]] != "")
    smiles[199] = "CC("
    fake_raw("tox21", {TOX21: table(smiles, np.tile(LABELS, (10, 1)))})
    with pytest.raises(ValueError, match="tox21: RDKit must read 99% of the molecules, found 3 of 200 that"):
        load_tox21(tmp_path / "many")


@pytest.mark.parametrize(
    ("load", "name", "url", "changed", "message"),
    [
        (
            load_tox21,
            "tox21",
            TOX21,
            {"header": ("AR", *ASSAYS[1:], "mol_id", "smiles")},
            r"tox21\.csv\.gz: expected a column NR-AR, found 20 rows .* first of them AR",
        ),
        (
            load_tox21,
            "tox21",
            TOX21,
            {"labels": np.where(np.arange(12) == 3, "2", LABELS)},
            r"tox21\.csv\.gz: expected labels 0, 1 or none in row 1, found '2'",
        ),
        (load_sider, "sider", SIDER, {}, r"sider\.csv\.gz: expected a column Hepatobiliary"),
    ],
    ids=["a column of another name", "a label 2", "the columns of another set"],
)
def test_a_file_of_another_form_is_refused_with_what_was_expected_and_found(
    fake_raw, tmp_path, load, name, url, changed, message
):
    fake_raw(name, {url: table(**changed)})
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


@pytest.mark.slow
def test_the_published_file_of_tox21(real_data, tmp_path):
    pytest.importorskip("rdkit")
    real_data("tox21")
    splits = load_tox21(tmp_path)
    rows = {name: split.num_examples for name, split in Tox21(data_dir=tmp_path).info.splits.items()}
    assert rows == {"train": 6411, "validation": 801, "test": 802} and sum(rows.values()) == 8014
    assert {name: batch.inputs.shape for name, batch in splits.items()} == {
        "train": (6404, 1024),
        "validation": (800, 1024),
        "test": (802, 1024),
    }
    builder = Tox21(data_dir=tmp_path)
    present = np.concatenate([columns(builder, split)["present"] for split in splits])
    labels = np.concatenate([columns(builder, split)["labels"] for split in splits])
    # Counted in the file: 16,595 gaps, 17.3 %, and 5,957 labels that are 1.
    assert present.size - present.sum() == 16_595 and labels.sum() == 5957 and not labels[present == 0].any()
    assert labels.sum(0)[[0, 11]].tolist() == [310, 431]
    assert set(np.unique(splits["train"].inputs)) == {0.0, 1.0}


def test_the_published_file_of_sider(real_data, tmp_path):
    pytest.importorskip("rdkit")
    real_data("sider")
    splits = load_sider(tmp_path)
    assert {name: batch.inputs.shape for name, batch in splits.items()} == {
        "train": (1141, 1024),
        "validation": (143, 1024),
        "test": (143, 1024),
    }
    for batch in splits.values():
        assert batch.mask == {} and batch.targets["side_effects"].shape == (len(batch.inputs), 27)
    total = sum(int(batch.targets["side_effects"].sum()) for batch in splits.values())
    assert total == 21_868
    info = Sider(data_dir=tmp_path).info
    assert info.metadata["tasks"] == list(banks("sider")["side_effects"]) and "Kuhn" in info.citation

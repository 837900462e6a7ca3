"""Fingerprints against neighbourhoods counted by hand; tables of molecules and labels."""

from __future__ import annotations

import gzip
import sys

import numpy as np
import pytest

from mtljax.data.sets.molecules.fingerprints import Table, fingerprints, index_split, read_table


def test_bits_are_the_neighborhoods_of_atoms():
    pytest.importorskip("rdkit")
    # Ethanol: three kinds of atom; each with its neighbours; two bonds away nothing new. Methane: one atom.
    found, readable = fingerprints(["CCO", "OCC", "C", "CCCCCC"])
    assert found.dtype == np.uint8 and found.shape == (4, 1024) and found.max() == 1 and readable.all()
    assert found[:3].sum(1).tolist() == [6, 6, 1]
    np.testing.assert_array_equal(found[0], found[1])
    radii = [fingerprints(["CCO"], radius=radius)[0].sum() for radius in range(4)]
    assert radii == [3, 6, 6, 6]
    # Hexane: CH3 and CH2; then around its first, second and third atom. Two bonds around the first are the two bonds
    # next to the second, which are known, and a set of bonds counts once: two new ones, around the second and third.
    assert [fingerprints(["CCCCCC"], radius=radius)[0].sum() for radius in range(3)] == [2, 5, 7]
    short = fingerprints(["CCO"], bits=2)[0]
    assert short.shape == (1, 2) and short.tolist() == [[1, 1]]
    assert fingerprints([])[0].shape == (0, 1024)


def test_unreadable_molecules_are_marked_and_silent(capfd):
    rdkit = pytest.importorskip("rdkit.Chem")
    found, readable = fingerprints(["CCO", "CC(", "C(C)(C)(C)(C)C", "O=CO[AlH3](OC=O)OC=O"])
    assert readable.tolist() == [True, False, False, False] and not found[1:].any()
    assert capfd.readouterr() == ("", "")
    # Afterwards RDKit speaks as before.
    assert rdkit.MolFromSmiles("CC(") is None
    assert "CC(" in capfd.readouterr().err


@pytest.mark.parametrize("bad", [{"radius": -1}, {"bits": 0}])
def test_impossible_fingerprints_are_refused(bad):
    with pytest.raises(ValueError, match=f"fingerprints: {next(iter(bad))} must be at least"):
        fingerprints(["C"], **bad)


def test_without_rdkit_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    with pytest.raises(ImportError, match=r"fingerprints of molecules need RDKit: pip install mtljax\[molecules\]"):
        fingerprints(["C"])


def test_a_table_has_labels_and_gaps_by_the_names_of_its_columns(tmp_path):
    path = tmp_path / "table"
    path.write_bytes(gzip.compress(b'b,mol_id,"a, x",smiles\r\n1,M1,,CCO\r\n0,"M,2",1,C\r\n,M3,0,CC\r\n'))
    table = read_table(path, ["a, x", "b"])
    assert table.smiles == ["CCO", "C", "CC"]
    assert table.labels.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert table.present.tolist() == [[0, 1], [1, 1], [1, 0]]
    assert table.labels.dtype == table.present.dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("smiles,b\nC,0\n", r"table: expected rows with columns smiles and a, b, found 1 rows with columns smiles, b"),
        ("a,b,SMILES\n0,0,C\n", "with columns smiles and a, b, found 1 rows with columns a, b, SMILES"),
        ("smiles,a,b\n", "expected rows with columns smiles and a, b, found 0 rows"),
        ("", "found 0 rows with columns $"),
        ("smiles,a,b\nC,0,1\nC,0\n", r"expected 3 fields and a molecule in row 2, found \['C', '0'\]"),
        ("smiles,a,b\n,0,1\n", "expected 3 fields and a molecule in row 1"),
        ("smiles,a,b\nC,0,1\nC,0,2\n", "expected labels 0, 1 or none in row 2, found '2'"),
    ],
)
def test_a_table_of_another_form_is_refused_with_what_was_expected_and_found(content, message, tmp_path):
    path = tmp_path / "table"
    path.write_bytes(gzip.compress(content.encode()))
    with pytest.raises(ValueError, match=message):
        read_table(path, ["a", "b"])


@pytest.mark.parametrize(("size", "ends"), [(8014, (6411, 7212)), (1427, (1141, 1284)), (10, (8, 9)), (15, (12, 13))])
def test_the_split_is_by_index(size, ends):
    numbers = np.arange(size)
    parts = index_split(Table([str(i) for i in numbers], numbers[:, None], numbers[:, None]))
    assert list(parts) == ["train", "validation", "test"]
    bounds = [0, *ends, size]
    for part, start, stop in zip(parts.values(), bounds, bounds[1:], strict=False):
        assert part.smiles == [str(i) for i in range(start, stop)]
        assert part.labels[:, 0].tolist() == part.present[:, 0].tolist() == list(range(start, stop))

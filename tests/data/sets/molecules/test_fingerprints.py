"""Fingerprints against neighbourhoods counted by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mtljax.data.sets.molecules.fingerprints import fingerprints


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

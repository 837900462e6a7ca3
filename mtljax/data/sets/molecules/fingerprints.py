"""Fingerprints of SMILES strings, and batches of molecules with them as inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtljax.checks import check_count
from mtljax.data.sets.molecules.tables import SPLITS
from mtljax.data.sets.prepared import columns
from mtljax.types import Batch

_UNREADABLE = 0.01  # a larger share of molecules that RDKit cannot read is an error


def fingerprints(smiles: Sequence[str], *, radius: int = 2, bits: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """Extended-connectivity fingerprints (ECFP): the neighbourhoods of atoms in a molecule, hashed to bits.

    Every atom starts with a number made of its own properties, and combines it with its neighbours' numbers `radius`
    times. All these numbers are hashed to `bits` positions, which become 1. Radius 2 is ECFP4, named by the diameter.
    RDKit's Morgan generator computes them with its defaults, so without chirality: about 8,000 molecules per second on
    one core.

    Rogers and Hahn, "Extended-Connectivity Fingerprints", Journal of Chemical Information and Modeling 50, 2010.

    Args:
        smiles: N molecules as SMILES strings.
        radius: radius of neighbourhoods, in bonds, 0 or more.
        bits: length of a fingerprint, at least 1.

    Returns:
        `(fingerprints, readable)`: uint8 `[N, bits]`, 0 or 1, and bool `[N]`. A molecule that RDKit cannot read (for
        example, aluminium with six bonds) is not readable, and its fingerprint is all 0. RDKit's messages on standard
        error are suppressed.

    Raises:
        ImportError: RDKit is not installed.
        ValueError: a negative `radius` or `bits` below 1.

    Example:
        >>> found, readable = fingerprints(["CCO", "no molecule"])  # doctest: +SKIP
        >>> found.shape, found.sum(1).tolist(), readable.tolist()  # doctest: +SKIP
        ((2, 1024), [6, 0], [True, False])
    """
    check_fingerprints("fingerprints", radius, bits)
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import rdFingerprintGenerator
    except ImportError as error:
        raise ImportError("fingerprints of molecules need RDKit: pip install mtljax[molecules]") from error
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bits)
    found, readable = np.zeros((len(smiles), bits), np.uint8), np.zeros(len(smiles), bool)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            molecule = Chem.MolFromSmiles(text)
            if molecule is not None:
                found[row], readable[row] = generator.GetFingerprintAsNumPy(molecule), True
    return found, readable


def check_fingerprints(where: str, radius: int, bits: int) -> None:
    """Raise unless `radius` is 0 or more and `bits` is at least 1."""
    check_count(where, "radius", radius, least=0)
    check_count(where, "bits", bits)


def load_splits(builder: Any, entry: str, *, radius: int, bits: int) -> dict[str, Batch]:
    """Fingerprints and labels of a prepared builder, by split; molecules that RDKit cannot read are left out.

    Inputs are float32 `[N, bits]`. The labels are one bank of T tasks: targets `[N, T]`, int32 or float32, and a mask
    bool `[N, T]` under the name `entry`. If no label is missing in any split, no split has a mask.

    Raises:
        ImportError: RDKit is not installed.
        ValueError: from `fingerprints`, or over 1 % of the molecules cannot be read.
    """
    found = {split: columns(builder, split) for split in SPLITS}
    inputs, readable = {}, {}
    for split, column in found.items():
        texts = [text.decode() for text in column["smiles"].tolist()]
        inputs[split], readable[split] = fingerprints(texts, radius=radius, bits=bits)
    everything = np.concatenate(list(readable.values()))
    total, unreadable = len(everything), int(np.sum(~everything))
    if unreadable > _UNREADABLE * total:
        raise ValueError(
            f"{builder.name}: RDKit must read {1 - _UNREADABLE:.0%} of the molecules, found {unreadable} of {total} "
            "that it cannot read"
        )
    complete = all(column["present"].all() for column in found.values())
    batches = {}
    for split, column in found.items():
        labels, present = (column[name][readable[split]] for name in ("labels", "present"))
        mask: dict[str, Any] = {} if complete else {entry: present.astype(bool)}
        targets = {entry: labels.astype(np.float32 if labels.dtype.kind == "f" else np.int32)}
        batches[split] = Batch(inputs[split][readable[split]].astype(np.float32), targets, mask)
    return batches

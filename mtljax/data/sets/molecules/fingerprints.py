"""Fingerprints of SMILES strings, and DeepChem's published tables of molecules and binary labels."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mtljax.checks import check_count
from mtljax.data.sets.prepared import columns
from mtljax.types import Batch

SPLITS = ("train", "validation", "test")
_LABELS = {"0": (0, 1), "1": (1, 1), "": (0, 0)}  # value, and 1 if the label is present
_UNREADABLE = 0.01  # a larger share of molecules that RDKit cannot read is an error


class Table(NamedTuple):
    """Molecules with labels.

    Attributes:
        smiles: N strings.
        labels: uint8 `[N, T]`, 0 where missing.
        present: uint8 `[N, T]`, 1 where there is a label.
    """

    smiles: list[str]
    labels: np.ndarray
    present: np.ndarray


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


def read_table(path: Path, tasks: Sequence[str]) -> Table:
    """Molecules and labels of a gzipped CSV file with a column `smiles` and one column per task.

    Raises:
        ValueError: a missing column, no rows, rows without a molecule or of another length, a label that is not 0, 1
            or empty.
    """
    # gzip, whatever the file's name: TFDS renames downloads.
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    header, rows = (rows[0], rows[1:]) if rows else ([], [])
    missing = [name for name in ("smiles", *tasks) if name not in header]
    if missing or not rows:
        raise ValueError(
            f"{path}: expected rows with columns smiles and {', '.join(tasks)}, "
            f"found {len(rows)} rows with columns {', '.join(header)}"
        )
    places = [header.index(name) for name in tasks]
    smiles, labels, present = [], [], []
    for line, row in enumerate(rows, start=1):
        if len(row) != len(header) or not row[header.index("smiles")]:
            raise ValueError(f"{path}: expected {len(header)} fields and a molecule in row {line}, found {row}")
        try:
            values = [_LABELS[row[place]] for place in places]
        except KeyError as error:
            raise ValueError(f"{path}: expected labels 0, 1 or none in row {line}, found {error}") from None
        smiles.append(row[header.index("smiles")])
        labels.append([value for value, _ in values])
        present.append([there for _, there in values])
    return Table(smiles, np.array(labels, np.uint8), np.array(present, np.uint8))


def index_split(table: Table) -> dict[str, Table]:
    """The first 80 % of the rows for training, the next 10 % for validation, the rest for testing; ends rounded down.

    The ends are `int(0.8 N)` and `int(0.9 N)` in float64, as in DeepChem's `IndexSplitter`.
    """
    train, validation = int(0.8 * len(table.smiles)), int(0.9 * len(table.smiles))
    parts = (slice(train), slice(train, validation), slice(validation, None))
    return {
        name: Table(table.smiles[part], table.labels[part], table.present[part])
        for name, part in zip(SPLITS, parts, strict=True)
    }


def load_splits(builder: Any, tasks: Sequence[str], *, radius: int, bits: int) -> dict[str, Batch]:
    """Fingerprints and labels of a prepared builder, by split; molecules that RDKit cannot read are left out.

    Inputs are float32 `[N, bits]`, targets int32 `[N]`. All splits have masks of one structure: an empty mask if no
    label is missing in any split, else an entry for every task.

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
        rows = readable[split]
        labels = np.ascontiguousarray(column["labels"][rows].T.astype(np.int32))
        present = np.ascontiguousarray(column["present"][rows].T.astype(bool))
        batches[split] = Batch(
            inputs=inputs[split][rows].astype(np.float32),
            targets=dict(zip(tasks, labels, strict=True)),
            mask={} if complete else dict(zip(tasks, present, strict=True)),
        )
    return batches

"""DeepChem's published tables of molecules and labels."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")
_ALLOWED = {"u": "0, 1", "f": "finite numbers"}  # by the kind of dtype


class Table(NamedTuple):
    """Molecules with labels.

    Attributes:
        smiles: N strings.
        labels: uint8 or float32 `[N, T]`, 0 where missing.
        present: uint8 `[N, T]`, 1 where there is a label.
    """

    smiles: list[str]
    labels: np.ndarray
    present: np.ndarray


def read_table(path: Path, tasks: Sequence[str], dtype: Any) -> Table:
    """Molecules and labels of a gzipped CSV file with a column `smiles` and one column per task.

    Args:
        path: the file.
        tasks: the columns of labels.
        dtype: of the labels: uint8 for 0 and 1, float32 for finite numbers.

    Raises:
        ValueError: a missing column, no rows, rows without a molecule or of another length, a label that is neither
            empty nor of `dtype`.
    """
    # gzip, whatever the file's name: TFDS renames downloads.
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    header, rows = (rows[0], rows[1:]) if rows else ([], [])
    missing = [name for name in ("smiles", *tasks) if name not in header]
    if missing or not rows:
        what = f"a column {missing[0]}" if missing else "at least one row"
        raise ValueError(
            f"{path}: expected {what}, found {len(rows)} rows with {len(header)} columns, the first of them "
            f"{', '.join(header[:3])}"
        )
    places, molecule = [header.index(name) for name in tasks], header.index("smiles")
    labels = np.zeros((len(rows), len(places)), dtype)
    present = np.zeros((len(rows), len(places)), np.uint8)
    for index, row in enumerate(rows):
        if len(row) != len(header) or not row[molecule]:
            raise ValueError(
                f"{path}: expected {len(header)} fields and a molecule in row {index + 1}, found {len(row)} fields, "
                f"the molecule {row[molecule : molecule + 1]}"
            )
        texts = [row[place] for place in places]
        there = [task for task, text in enumerate(texts) if text]
        present[index, there] = 1
        labels[index, there] = [_value(texts[task], labels.dtype, path, index + 1) for task in there]
    return Table([row[molecule] for row in rows], labels, present)


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


def _value(text: str, dtype: np.dtype, path: Path, row: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or (dtype.kind == "u" and value not in (0, 1)):
        raise ValueError(f"{path}: expected labels {_ALLOWED[dtype.kind]} or none in row {row}, found {text!r}")
    return value

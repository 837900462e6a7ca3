"""The frame of the TFDS builders of DeepChem's tables: a molecule per row, with its labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtljax.data.sets.frame import Frame
from mtljax.data.sets.molecules.tables import Table, index_split, read_table
from mtljax.data.sets.raw import fetch

# The last entry of each citation.
MOLECULENET = """\
@article{wu2018moleculenet,
  author = {Wu, Zhenqin and Ramsundar, Bharath and Feinberg, Evan N. and Gomes, Joseph and Geniesse, Caleb and Pappu,
    Aneesh S. and Leswing, Karl and Pande, Vijay},
  title = {{MoleculeNet}: A Benchmark for Molecular Machine Learning},
  journal = {Chemical Science},
  volume = {9},
  pages = {513--530},
  year = {2018}
}
"""


class MoleculeTable(Frame, skip_registration=True):
    """Base class of the builders of DeepChem's tables. Rows keep the order of the file, since the split is by index.

    Features: `smiles`, the molecule; `labels` uint8 `[T]`, 0 or 1, or float32 `[T]`; `present` uint8 `[T]`, 0 where the
    label is missing. Tasks are in the order of `TASKS`, which is `tasks` in the metadata. Preparation does not need
    RDKit.

    Attributes:
        FOLDER: the folder of the published file, under `MTLJAX_DATA`.
        URL: the published file.
        TASKS: names of its columns of labels.
        DTYPE: of the labels: uint8 for 0 and 1, float32 for numbers.
        KNOWN: description, home page and citation, as `tfds.core.DatasetInfo` takes them.
    """

    FOLDER: str
    URL: str
    TASKS: Sequence[str]
    DTYPE: Any = np.uint8
    KNOWN: dict[str, str]

    def _info(self) -> tfds.core.DatasetInfo:
        labels, present = (
            tfds.features.Tensor(shape=(len(self.TASKS),), dtype=dtype) for dtype in (self.DTYPE, np.uint8)
        )
        return self.describe(
            {"smiles": tfds.features.Text(), "labels": labels, "present": present},
            metadata=tfds.core.MetadataDict(tasks=list(self.TASKS)),
            **{"license": "MIT, as DeepChem, which publishes the file, states", **self.KNOWN},
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        (path,) = fetch(dl_manager, self.FOLDER, [self.URL])
        parts = index_split(read_table(path, self.TASKS, self.DTYPE))
        return {name: self._generate_examples(part) for name, part in parts.items()}

    def _generate_examples(self, table: Table) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, (smiles, labels, present) in enumerate(zip(*table, strict=True)):
            yield key, {"smiles": smiles, "labels": labels, "present": present}

"""The ChEMBL data set: measured affinities of molecules for 691 targets, split by year."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mtljax.data.sets.molecules.fingerprints import check_fingerprints, load_splits
from mtljax.data.sets.molecules.frame import MOLECULENET, MoleculeTable
from mtljax.data.sets.molecules.tables import SPLITS, read_table
from mtljax.data.sets.prepared import prepare
from mtljax.data.sets.raw import fetch
from mtljax.types import Batch

_TASKS = tuple((Path(__file__).parent / "chembl_targets.txt").read_text().split())
BANKS = {"targets": _TASKS}
_URL = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/chembl_year_sets/chembl_5thresh_ts_{}.csv.gz"

_DESCRIPTION = """
Affinities of 23,872 molecules for 691 protein targets, from the ChEMBL database, as published by DeepChem
(`chembl_5thresh`). A molecule is a SMILES string, and stands once. A label is a negative decadic logarithm of a molar
concentration, from 4 to 11; larger is stronger. 91,051 labels are there, .55 % of all; a molecule has at least one. The
split is by year, as DeepChem publishes it: 14,620 molecules for training, 4,000 later ones for validation, 5,252 still
later ones for testing. 562 targets have labels in the training part.
"""

_CITATION = """
@article{gaulton2012chembl,
  author = {Gaulton, Anna and Bellis, Louisa J. and Bento, A. Patricia and Chambers, Jon and Davies, Mark and Hersey,
    Anne and Light, Yvonne and McGlinchey, Shaun and Michalovich, David and Al-Lazikani, Bissan and Overington, John},
  title = {{ChEMBL}: A Large-Scale Bioactivity Database for Drug Discovery},
  journal = {Nucleic Acids Research},
  volume = {40},
  number = {D1},
  pages = {D1100--D1107},
  year = {2012}
}
"""


class Chembl(MoleculeTable):
    """TFDS builder of affinities; `load_chembl` describes the tasks.

    Features: `smiles`, the molecule; `labels` float32 `[691]`, one per target, 0 where missing; `present` uint8
    `[691]`, 0 where the label is missing. Targets have their names in ChEMBL and are in the order of the file, which is
    `tasks` in the metadata. Preparation does not need RDKit.

    Example:
        >>> Chembl.VERSION
        Version('1.0.0')
    """

    FOLDER = "chembl"
    TASKS = _TASKS
    DTYPE = np.float32
    KNOWN = {
        "description": _DESCRIPTION,
        "homepage": "https://www.ebi.ac.uk/chembl/",
        "citation": _CITATION + MOLECULENET,
        "license": "CC BY-SA 3.0, as ChEMBL states",
    }

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        paths = fetch(dl_manager, self.FOLDER, [_URL.format(part) for part in ("train", "valid", "test")])
        tables = (read_table(path, self.TASKS, self.DTYPE) for path in paths)
        return {split: self._generate_examples(table) for split, table in zip(SPLITS, tables, strict=True)}


def load_chembl(data_dir: str | Path | None = None, *, radius: int = 2, bits: int = 1024) -> dict[str, Batch]:
    """Affinities of molecules for 691 targets as NumPy arrays: fingerprints of molecules, and numbers, most missing.

    Inputs: float32 `[N, bits]`, the molecule's extended-connectivity fingerprint, 0 or 1 (ECFP4 by default; see
    `molecules.fingerprints`), computed when loaded, in a few seconds. The targets are a bank: targets `"targets"`,
    float32 `[N, 691]`, a negative decadic logarithm of a molar concentration from 4 to 11, 0 where missing, and a mask
    bool `[N, 691]`, True at 54,009, 14,890 and 22,152 labels. `data.banks("chembl")` has the names of the targets in
    ChEMBL, sorted. 129 targets have no label in "train".

    The split is by year, as published: 14,620, 4,000 and 5,252 molecules. RDKit 2026.09 reads all of them; molecules
    that RDKit cannot read are left out.

    Args:
        data_dir: TFDS's data directory, where molecules and labels are prepared once and read later; None is
            TFDS's own default, usually `~/tensorflow_datasets`.
        radius: of the fingerprints, in bonds, 0 or more.
        bits: of the fingerprints, at least 1.

    Returns:
        Dict with `"train"`, `"validation"` and `"test"`, each a `Batch` of NumPy arrays.

    Raises:
        ImportError: RDKit is not installed.
        ValueError: a negative `radius` or `bits` below 1, a file that is damaged or not as expected, or over 1 % of its
            molecules cannot be read.
        FileNotFoundError: a missing file; the message says where to put it.

    Data: A. Gaulton et al., ChEMBL, Nucleic Acids Research 40, 2012; packed by Z. Wu et al., MoleculeNet, Chemical
    Science 9, 2018. CC BY-SA 3.0.

    Example:
        >>> splits = load_chembl("/tmp/tfds")  # doctest: +SKIP
        >>> splits["train"].inputs.shape, splits["train"].targets["targets"].shape  # doctest: +SKIP
        ((14620, 1024), (14620, 691))
    """
    check_fingerprints("load_chembl", radius, bits)
    return load_splits(prepare("load_chembl", Chembl, data_dir), "targets", radius=radius, bits=bits)

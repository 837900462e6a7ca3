"""The Tox21 data set: twelve assays of toxicity per molecule, with missing labels."""

from __future__ import annotations

from pathlib import Path

from mtljax.data.sets.molecules.fingerprints import check_fingerprints, load_splits
from mtljax.data.sets.molecules.frame import MOLECULENET, MoleculeTable
from mtljax.data.sets.prepared import prepare
from mtljax.types import Batch

_TASKS = (
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
)

BANKS = {"assays": _TASKS}

_DESCRIPTION = """
Qualitative toxicity of 8,014 compounds in twelve assays, seven of nuclear receptors (NR) and five of stress response
(SR), of the Tox21 Data Challenge 2014, as published by DeepChem and MoleculeNet. A molecule is a SMILES string. A label
is 1 if the molecule is active in an assay: 3 % to 16 % of the labels per assay. 17.3 % of the labels are missing.
Split by index, as DeepChem's `IndexSplitter` does: 80 % of the rows, in the file's order, for training, 10 % for
validation, 10 % for testing. The file has 183 rows whose SMILES string an earlier row has too, some of them in another
split and some with other labels.
"""

_CITATION = """
@article{huang2016tox21challenge,
  author = {Huang, Ruili and Xia, Menghang and Nguyen, Dac-Trung and Zhao, Tongan and Sakamuru, Srilatha and Zhao,
    Jinghua and Shahane, Sampada A. and Rossoshek, Anna and Simeonov, Anton},
  title = {{Tox21Challenge} to Build Predictive Models of Nuclear Receptor and Stress Response Pathways as Mediated by
    Exposure to Environmental Chemicals and Drugs},
  journal = {Frontiers in Environmental Science},
  volume = {3},
  pages = {85},
  year = {2016}
}
"""


class Tox21(MoleculeTable):
    """TFDS builder of toxicity assays; `load_tox21` describes the tasks.

    Features: `smiles`, the molecule; `labels` uint8 `[12]`, 1 where the molecule is active, one per assay; `present`
    uint8 `[12]`, 0 where the label is missing. Assays are in the order of the file, which is `tasks` in the metadata.
    Preparation does not need RDKit.

    Example:
        >>> Tox21.VERSION
        Version('1.0.0')
    """

    FOLDER = "tox21"
    URL = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/tox21.csv.gz"
    TASKS = _TASKS
    KNOWN = {
        "description": _DESCRIPTION,
        "homepage": "https://tripod.nih.gov/tox21/challenge/",
        "citation": _CITATION + MOLECULENET,
    }


def load_tox21(data_dir: str | Path | None = None, *, radius: int = 2, bits: int = 1024) -> dict[str, Batch]:
    """Twelve assays of toxicity as NumPy arrays: fingerprints of molecules, and binary labels, some missing.

    Inputs: float32 `[N, bits]`, the molecule's extended-connectivity fingerprint, 0 or 1 (ECFP4 by default; see
    `molecules.fingerprints`), computed when loaded, in about a second. The assays are a bank: targets `"assays"`,
    int32 `[N, 12]`, 1 where the molecule is active, 0 where it is inactive or the label is missing, and a mask bool
    `[N, 12]`, False where the label is missing: 17.3 % of all labels. `data.banks("tox21")` has the names of the
    assays, "NR-AR" to "SR-p53".

    The split is by index, as in DeepChem's published figures. Of the N = 8,014 rows of the file, "train" ends at
    `int(0.8 N)` and "validation" at `int(0.9 N)`. Then molecules that RDKit cannot read are left out, 8 with RDKit
    2026.09 (their aluminium has six bonds): 6,404, 800 and 802 rows remain. 35 rows of "validation" and 25 of "test"
    have a SMILES string that is also in "train": a flaw of the published data, kept for comparison.

    Departures: DeepChem leaves unreadable molecules out before it splits, which moves a few rows between splits.

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

    Data: R. Huang et al., Tox21Challenge, Frontiers in Environmental Science 3, 2016; packed by Z. Wu et al.,
    MoleculeNet, Chemical Science 9, 2018. MIT.

    Example:
        >>> splits = load_tox21("/tmp/tfds")  # doctest: +SKIP
        >>> splits["validation"].inputs.shape, splits["validation"].targets["assays"].shape  # doctest: +SKIP
        ((800, 1024), (800, 12))
    """
    check_fingerprints("load_tox21", radius, bits)
    return load_splits(prepare("load_tox21", Tox21, data_dir), "assays", radius=radius, bits=bits)

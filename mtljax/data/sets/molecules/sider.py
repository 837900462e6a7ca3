"""The SIDER data set: side effects of marketed drugs in 27 organ classes."""

from __future__ import annotations

from pathlib import Path

from mtljax.data.sets.molecules.fingerprints import check_fingerprints, load_splits
from mtljax.data.sets.molecules.frame import MOLECULENET, MoleculeTable
from mtljax.data.sets.prepared import prepare
from mtljax.types import Batch

_TASKS = (
    "Hepatobiliary disorders",
    "Metabolism and nutrition disorders",
    "Product issues",
    "Eye disorders",
    "Investigations",
    "Musculoskeletal and connective tissue disorders",
    "Gastrointestinal disorders",
    "Social circumstances",
    "Immune system disorders",
    "Reproductive system and breast disorders",
    "Neoplasms benign, malignant and unspecified (incl cysts and polyps)",
    "General disorders and administration site conditions",
    "Endocrine disorders",
    "Surgical and medical procedures",
    "Vascular disorders",
    "Blood and lymphatic system disorders",
    "Skin and subcutaneous tissue disorders",
    "Congenital, familial and genetic disorders",
    "Infections and infestations",
    "Respiratory, thoracic and mediastinal disorders",
    "Psychiatric disorders",
    "Renal and urinary disorders",
    "Pregnancy, puerperium and perinatal conditions",
    "Ear and labyrinth disorders",
    "Cardiac disorders",
    "Nervous system disorders",
    "Injury, poisoning and procedural complications",
)

BANKS = {"side_effects": _TASKS}

_DESCRIPTION = """
Side effects of 1,427 marketed drugs (Side Effect Resource, version 4), grouped into 27 organ classes of MedDRA, as
published by DeepChem and MoleculeNet. A drug is a SMILES string. A label is 1 if side effects of a class are known. No
label is missing. The split is by index, as in DeepChem's `IndexSplitter`: the first 80 % of the rows for training, 10 %
for validation, 10 % for testing.
"""

_CITATION = """
@article{kuhn2016sider,
  author = {Kuhn, Michael and Letunic, Ivica and Jensen, Lars Juhl and Bork, Peer},
  title = {The {SIDER} Database of Drugs and Side Effects},
  journal = {Nucleic Acids Research},
  volume = {44},
  number = {D1},
  pages = {D1075--D1079},
  year = {2016}
}
"""


class Sider(MoleculeTable):
    """TFDS builder of side effects; `load_sider` describes the tasks.

    Features: `smiles`, the drug; `labels` uint8 `[27]`, 1 where side effects are known, one per class; `present` uint8
    `[27]`, all 1. Classes are in the order of the file, which is `tasks` in the metadata. Preparation does not need
    RDKit.

    Example:
        >>> Sider.VERSION
        Version('1.0.0')
    """

    FOLDER = "sider"
    URL = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/sider.csv.gz"
    TASKS = _TASKS
    KNOWN = {
        "description": _DESCRIPTION,
        "homepage": "http://sideeffects.embl.de/",
        "citation": _CITATION + MOLECULENET,
    }


def load_sider(data_dir: str | Path | None = None, *, radius: int = 2, bits: int = 1024) -> dict[str, Batch]:
    """Side effects of drugs in 27 classes as NumPy arrays: fingerprints of molecules, and binary labels, all present.

    Inputs: float32 `[N, bits]`, the drug's extended-connectivity fingerprint, 0 or 1 (ECFP4 by default; see
    `molecules.fingerprints`), computed when loaded, in less than a second. The classes are a bank: targets
    `"side_effects"`, int32 `[N, 27]`, 1 where side effects of the class are known. `data.banks("sider")` has the names
    of the classes, in the order of the file. `mask` is empty, since no label is missing.

    The split is by index, as in DeepChem's published figures. Of the N = 1,427 rows of the file, "train" ends at
    `int(0.8 N)` and "validation" at `int(0.9 N)`: 1,141, 143 and 143 rows. RDKit 2026.09 reads all molecules; molecules
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

    Data: M. Kuhn, I. Letunic, L. J. Jensen and P. Bork, The SIDER database of drugs and side effects, Nucleic Acids
    Research 44, 2016; packed by Z. Wu et al., MoleculeNet, Chemical Science 9, 2018. MIT.

    Example:
        >>> splits = load_sider("/tmp/tfds")  # doctest: +SKIP
        >>> splits["train"].inputs.shape, splits["train"].targets["side_effects"].shape  # doctest: +SKIP
        ((1141, 1024), (1141, 27))
    """
    check_fingerprints("load_sider", radius, bits)
    return load_splits(prepare("load_sider", Sider, data_dir), "side_effects", radius=radius, bits=bits)

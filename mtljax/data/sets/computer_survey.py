"""The computer survey: 190 people rate 20 computers, one task per person and the same inputs for all tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from mtljax.data.sets.frame import Frame
from mtljax.data.sets.prepared import columns, prepare
from mtljax.data.sets.raw import fetch
from mtljax.types import Batch

_URL = "manual:computer_survey/conjointAnalysisComputerBuyers.mat"
_COMPUTERS, _COLUMNS, _PEOPLE = 20, 14, 190
_TRAIN = 16  # computers rated first

_DESCRIPTION = """
A conjoint analysis: 190 people rated from 0 to 10 how likely they were to buy each of 20 personal computers. A computer
has 13 attributes of two levels, coded -1 and 1 (such as price, memory, screen and processor), after a constant 1 in
column 0. Each person is a regression task on the same 20 computers. The split is that of Argyriou, Evgeniou and Pontil:
the first 16 computers that were rated are for training, the last 4 for testing. Seven numbers about each person in the
file are left out.
"""

BANKS = {"people": tuple(f"person_{number:03d}" for number in range(1, _PEOPLE + 1))}

_CITATION = """
@article{lenk1996hierarchical,
  author = {Lenk, Peter J. and DeSarbo, Wayne S. and Green, Paul E. and Young, Martin R.},
  title = {Hierarchical {Bayes} Conjoint Analysis: Recovery of Partworth Heterogeneity from Reduced Experimental
    Designs},
  journal = {Marketing Science},
  volume = {15},
  number = {2},
  pages = {173--191},
  year = {1996}
}
@article{argyriou2008convex,
  author = {Argyriou, Andreas and Evgeniou, Theodoros and Pontil, Massimiliano},
  title = {Convex Multi-Task Feature Learning},
  journal = {Machine Learning},
  volume = {73},
  number = {3},
  pages = {243--272},
  year = {2008}
}
"""


class ComputerSurvey(Frame):
    """TFDS builder of the computer survey; `load_computer_survey` describes the tasks.

    A row is a computer. Features: `computer` int8 `[14]`, a constant 1 and attributes that are -1 or 1; `ratings` uint8
    `[190]`, from 0 to 10, one per person in the order of the file. No public URL is known: the file must be in
    `computer_survey/` of the folder that `MTLJAX_DATA` names.

    Example:
        >>> ComputerSurvey.VERSION
        Version('1.0.0')
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return self.describe(
            {
                "computer": tfds.features.Tensor(shape=(_COLUMNS,), dtype=np.int8),
                "ratings": tfds.features.Tensor(shape=(_PEOPLE,), dtype=np.uint8),
            },
            description=_DESCRIPTION,
            homepage="https://doi.org/10.1287/mksc.15.2.173",
            citation=_CITATION,
            license="none stated",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        (path,) = fetch(dl_manager, "computer_survey", [_URL])
        computers, ratings = _read(path)
        return {
            "train": self._generate_examples(computers[:_TRAIN], ratings[:_TRAIN]),
            "test": self._generate_examples(computers[_TRAIN:], ratings[_TRAIN:]),
        }

    def _generate_examples(
        self, computers: np.ndarray, ratings: np.ndarray
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for key, (computer, row) in enumerate(zip(computers, ratings, strict=True)):
            yield key, {"computer": computer, "ratings": row}


def load_computer_survey(data_dir: str | Path | None = None) -> dict[str, Batch]:
    """Ratings of computers by 190 people as NumPy arrays, one task per person, the same inputs for all tasks.

    Inputs: float32 `[N, 14]`, a constant 1 in column 0 and 13 attributes that are -1 or 1. The people are a bank:
    targets `"people"`, float32 `[N, 190]`, ratings from 0 to 10, in the order of the file; `data.banks` has their
    names, "person_001" to "person_190". N is 16 in "train", the computers that were rated first, and 4 in "test".
    No label is missing.

    `mtljax.convex.columns(batch.inputs, batch.targets["people"])` makes the arrays that `mtljax.convex` reads.

    Args:
        data_dir: TFDS's data directory, where the data are prepared once and read later; None is TFDS's
            default, usually `~/tensorflow_datasets`.

    Returns:
        Dict with `"train"` and `"test"`, each a `Batch` of NumPy arrays.

    Raises:
        FileNotFoundError: the file is missing; the message says where to put it.
        ValueError: a file that is damaged or has unexpected content.

    Data: P. J. Lenk, W. S. DeSarbo, P. E. Green and M. R. Young, Hierarchical Bayes conjoint analysis, Marketing
    Science 15, 1996; the split is that of A. Argyriou, T. Evgeniou and M. Pontil, Convex multi-task feature learning,
    Machine Learning 73, 2008. No licence is stated.

    Example:
        >>> splits = load_computer_survey("/tmp/tfds")  # doctest: +SKIP
        >>> splits["train"].inputs.shape, splits["train"].targets["people"].shape  # doctest: +SKIP
        ((16, 14), (16, 190))
    """
    builder = prepare("load_computer_survey", ComputerSurvey, data_dir)
    return {split: _as_batch(columns(builder, split)) for split in ("train", "test")}


def _as_batch(column: dict[str, np.ndarray]) -> Batch:
    return Batch(column["computer"].astype(np.float32), {"people": column["ratings"].astype(np.float32)})


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Computers int8 `[20, 14]` and ratings uint8 `[20, 190]`."""
    found = scipy.io.loadmat(str(path), appendmat=False)
    # The name of the design is misspelt in the file.
    for name, shape in (("designMarix", (_COMPUTERS, _COLUMNS)), ("likeBuy", (_PEOPLE, _COMPUTERS))):
        if name not in found or found[name].shape != shape:
            what = f"shape {found[name].shape}" if name in found else "no such array"
            raise ValueError(f"{path}: expected {name} {list(shape)}, found {what}")
    computers, ratings = found["designMarix"], found["likeBuy"].T
    if np.any(computers[:, 0] != 1) or not np.isin(computers, (-1, 1)).all() or not np.isin(ratings, range(11)).all():
        raise ValueError(
            f"{path}: expected a constant 1 and attributes -1 or 1 in designMarix and ratings 0 to 10 in likeBuy, "
            "found other values"
        )
    return computers.astype(np.int8), ratings.astype(np.uint8)

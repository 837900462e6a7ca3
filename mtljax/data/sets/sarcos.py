"""The SARCOS data set: inverse dynamics of a robot arm, seven torques from the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from mtljax.checks import check_count, check_flag
from mtljax.data.sets.frame import Frame
from mtljax.data.sets.prepared import columns, prepare
from mtljax.data.sets.raw import fetch
from mtljax.types import Batch

_URL = "http://www.gaussianprocess.org/gpml/data/sarcos_inv_test.mat"
_INPUTS, _TORQUES = 21, 7
_NAME = "sarcos_inv_test"
BANKS = {"torques": tuple(f"torque_{number}" for number in range(1, _TORQUES + 1))}

_DESCRIPTION = """
Inverse dynamics of an anthropomorphic robot arm of seven degrees of freedom (SARCOS): seven joint positions, seven
velocities and seven accelerations are the inputs of seven regression tasks, the seven torques. These are the 4,449 rows
of the published test file, in its order. The published training file is left out: most rows of the test file are
reported to be in it too, so the two files should not be used as a split.
"""

_CITATION = """
@inproceedings{vijayakumar2000locally,
  author = {Vijayakumar, Sethu and Schaal, Stefan},
  title = {Locally Weighted Projection Regression: An {O(n)} Algorithm for Incremental Real Time Learning in High
    Dimensional Space},
  booktitle = {International Conference on Machine Learning},
  pages = {1079--1086},
  year = {2000}
}
@book{rasmussen2006gaussian,
  author = {Rasmussen, Carl Edward and Williams, Christopher K. I.},
  title = {Gaussian Processes for Machine Learning},
  publisher = {MIT Press},
  year = {2006}
}
"""


class Sarcos(Frame):
    """TFDS builder of the robot arm's inverse dynamics; `load_sarcos` describes the tasks.

    Split "full" has all rows of the file, in order. Features: `inputs` float32 `[21]`, positions, velocities
    and accelerations of the seven joints; `torques` float32 `[7]`. The file's numbers are float64 with six decimals.

    Example:
        >>> Sarcos.VERSION
        Version('1.0.0')
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return self.describe(
            {
                "inputs": tfds.features.Tensor(shape=(_INPUTS,), dtype=np.float32),
                "torques": tfds.features.Tensor(shape=(_TORQUES,), dtype=np.float32),
            },
            description=_DESCRIPTION,
            homepage="http://www.gaussianprocess.org/gpml/data/",
            citation=_CITATION,
            license="none stated with the file; MIT in the repository that it was taken from",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        (path,) = fetch(dl_manager, "sarcos", [_URL])
        return {"full": self._generate_examples(path)}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for key, row in enumerate(_read(path)):
            yield key, {"inputs": row[:_INPUTS], "torques": row[_INPUTS:]}


def load_sarcos(
    data_dir: str | Path | None = None,
    *,
    train_rows: int = 600,
    test_rows: int = 1400,
    seed: int = 0,
    standardize: bool = True,
) -> dict[str, Batch]:
    """Seven torques of a robot arm from its motion, as NumPy arrays; all seven tasks have the same inputs.

    Inputs: float32 `[N, 21]`, positions, velocities and accelerations of seven joints. The torques are a bank: targets
    `"torques"`, float32 `[N, 7]`; `data.banks("sarcos")` has their names, "torque_1" to "torque_7". No label is
    missing.

    Rows are drawn without replacement from the 4,449 rows of the published test file. With
    `order = np.random.default_rng(seed).permutation(4449)`, the first `train_rows` are for training and the next
    `test_rows` for testing. 600 and 1,400 are common sizes in multi-task learning. The rows that other authors drew are
    not known, so compare means over seeds. The file records one motion over time, so a random split tests
    interpolation.

    Args:
        data_dir: TFDS's data directory, where the data are prepared once and read later; None is TFDS's
            default, usually `~/tensorflow_datasets`.
        train_rows: rows of "train", at least 1.
        test_rows: rows of "test", at least 1.
        seed: non-negative integer that draws the rows.
        standardize: whether each column of inputs and targets is scaled to mean 0 and variance 1 over the training rows
            (a constant column becomes 0). False gives the numbers of the file. The usual metric, the mean squared error
            divided by the variance of the test targets (nMSE), is the same either way.

    Returns:
        Dict with `"train"` and `"test"`, each a `Batch` of NumPy arrays.

    Raises:
        ValueError: no rows in a split or more rows than the file has, a negative seed, or a file that is damaged or has
            unexpected content.
        FileNotFoundError: a missing file; the message says where to put it.

    Data: S. Vijayakumar and S. Schaal, Locally weighted projection regression, ICML 2000; the file is that of C. E.
    Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning, 2006. No licence is stated with it.

    Example:
        >>> splits = load_sarcos("/tmp/tfds")  # doctest: +SKIP
        >>> splits["train"].inputs.shape, splits["test"].targets["torques"].shape  # doctest: +SKIP
        ((600, 21), (1400, 7))
    """
    check_count("load_sarcos", "train_rows", train_rows)
    check_count("load_sarcos", "test_rows", test_rows)
    check_count("load_sarcos", "seed", seed, least=0)
    check_flag("load_sarcos", "standardize", standardize)
    found = columns(prepare("load_sarcos", Sarcos, data_dir), "full")
    # In float64, so that standardized columns are exact to float32 rounding.
    rows = np.concatenate([found["inputs"], found["torques"]], axis=1).astype(np.float64)
    if train_rows + test_rows > len(rows):
        raise ValueError(
            f"load_sarcos: train_rows and test_rows must be at most {len(rows)} together, "
            f"found {train_rows} and {test_rows}"
        )
    order = np.random.default_rng(seed).permutation(len(rows))
    train, test = rows[order[:train_rows]], rows[order[train_rows : train_rows + test_rows]]
    if standardize:
        mean, deviation = train.mean(0), train.std(0)
        scale = np.where(np.ptp(train, 0) > 0, deviation, 1.0)
        train, test = (train - mean) / scale, (test - mean) / scale
    return {"train": _as_batch(train), "test": _as_batch(test)}


def _as_batch(rows: np.ndarray) -> Batch:
    rows = rows.astype(np.float32)
    inputs, torques = (np.ascontiguousarray(part) for part in (rows[:, :_INPUTS], rows[:, _INPUTS:]))
    return Batch(inputs, {"torques": torques})


def _read(path: Path) -> np.ndarray:
    """All rows, float32 `[N, 28]`: 21 inputs and 7 torques."""
    found = scipy.io.loadmat(str(path), appendmat=False).get(_NAME)
    if found is None or found.ndim != 2 or found.shape[1] != _INPUTS + _TORQUES or not np.isfinite(found).all():
        what = "no such array" if found is None else f"shape {found.shape}, {np.isfinite(found).mean():.0%} finite"
        raise ValueError(f"{path}: expected {_NAME} [N, {_INPUTS + _TORQUES}] of finite numbers, found {what}")
    return found.astype(np.float32)

"""The School data set: examination scores of pupils of 139 schools, one task per school."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from mtljax.checks import check_count, check_number
from mtljax.data.sets.frame import Frame
from mtljax.data.sets.prepared import columns, prepare
from mtljax.data.sets.raw import fetch
from mtljax.types import Batch

_URL = "https://raw.githubusercontent.com/jiayuzhou/MALSAR/ca3d55b878cc4113f0d9603e8ac46538aeb1ecd9/data/school.mat"
_COLUMNS = 28  # 27 features and a constant
BANKS = {"schools": tuple(f"school_{number:03d}" for number in range(1, 140))}

_DESCRIPTION = """
Examination scores of 15,362 pupils of 139 secondary schools of the Inner London Education Authority in 1985, 1986 and
1987, as published with MALSAR. A pupil has 27 features and a constant, 1, in the last column. Features describe the
year, the school (percentages of pupils with free meals and in the highest band of verbal reasoning, its gender and
denomination) and the pupil (gender, verbal reasoning band, ethnic group). All except the two percentages, columns 3 and
4, are indicators. Each school is a regression task. Pupils are in the order of the file, school by school.
"""

_CITATION = """
@article{argyriou2008convex,
  author = {Argyriou, Andreas and Evgeniou, Theodoros and Pontil, Massimiliano},
  title = {Convex Multi-Task Feature Learning},
  journal = {Machine Learning},
  volume = {73},
  number = {3},
  pages = {243--272},
  year = {2008}
}
@misc{zhou2011malsar,
  author = {Zhou, Jiayu and Chen, Jianhui and Ye, Jieping},
  title = {{MALSAR}: Multi-tAsk Learning via StructurAl Regularization},
  publisher = {Arizona State University},
  year = {2011}
}
"""


class School(Frame):
    """TFDS builder of examination scores by school; `load_school` describes the tasks.

    The published file has no split: all pupils are in split "full" (TFDS reserves the name "all").
    Features: `inputs` uint8 `[28]`, the last one 1; `score` uint8, from 1 to 70; `school` int32, from 1 to 139.

    Example:
        >>> School.VERSION
        Version('1.0.0')
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return self.describe(
            {
                "inputs": tfds.features.Tensor(shape=(_COLUMNS,), dtype=np.uint8),
                "score": tfds.features.Scalar(np.uint8),
                "school": tfds.features.Scalar(np.int32),
            },
            description=_DESCRIPTION,
            homepage="https://github.com/jiayuzhou/MALSAR",
            citation=_CITATION,
            license="none stated",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        (path,) = fetch(dl_manager, "school", [_URL])
        return {"full": self._generate_examples(path)}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        key = 0
        for school, (inputs, scores) in enumerate(_read(path), start=1):
            for row, score in zip(inputs, scores, strict=True):
                yield key, {"inputs": row, "score": score, "school": np.int32(school)}
                key += 1


def load_school(
    data_dir: str | Path | None = None, *, train_share: float | None = None, seed: int = 0
) -> dict[str, Batch]:
    """Examination scores of the pupils of 139 schools as NumPy arrays, one task per school.

    Every school has its own pupils, from 22 to 251, 15,362 in all. The schools are a bank, and each pupil is of one
    school. Inputs: float32 `[N, 28]`, the numbers of the file: 27 features, percentages not scaled, and a constant 1 in
    the last column. Targets: `"schools"`, float32 `[N]`, a score from 1 to 70. `task["schools"]`: int32 `[N]`, the
    pupil's school, from 0 to 138; `data.banks("school")` has their names, "school_001" to "school_139", in the order of
    the file. Pupils are sorted by school.

    `data.multi_input(batch, data.banks("school"))` is a dict of `Batch` by school. From it come the padded arrays of
    `mtljax.convex`, here without the constant feature:

        schools = mtljax.data.multi_input(load_school()["all"], mtljax.data.banks("school"))
        rows = mtljax.convex.pad(
            {name: batch.inputs[:, :27] for name, batch in schools.items()},
            {name: batch.targets[name] for name, batch in schools.items()},
        )

    Args:
        data_dir: TFDS's data directory, where the data are prepared once and read later; None is TFDS's
            default, usually `~/tensorflow_datasets`.
        train_share: share of each school's pupils in "train", from 0 to 1, rounded to the nearest pupil, halves up;
            "test" has the others. None (default) for all pupils under "all". The data have no published split. Papers
            commonly report means over ten random splits with a share of 0.75.
        seed: seed of the split, which is that of `mtljax.convex.split_rows(jax.random.key(seed), pad(...), share)`
            with JAX's default settings.

    Returns:
        `{"all": ...}` without `train_share`, else `{"train": ..., "test": ...}`, each a `Batch`. Pupils keep the
        order of the file.

    Raises:
        ValueError: a `train_share` that is not from 0 to 1, or a file that is damaged or has unexpected content.
        FileNotFoundError: a missing file; the message says where to put it.

    Data: A. Argyriou, T. Evgeniou and M. Pontil, Convex multi-task feature learning, Machine Learning 73, 2008; the
    file is that of J. Zhou, J. Chen and J. Ye, MALSAR, 2011. No licence is stated.

    Example:
        >>> pupils = load_school("/tmp/tfds", train_share=0.75)["train"]  # doctest: +SKIP
        >>> pupils.inputs.shape, int(np.sum(pupils.task["schools"] == 0))  # doctest: +SKIP
        ((11521, 28), 150)
    """
    if train_share is not None:
        check_number("load_school", "train_share", train_share, least=0, most=1)
    check_count("load_school", "seed", seed, least=0)
    found = columns(prepare("load_school", School, data_dir), "full")
    scores: dict[str, Any] = {"schools": found["score"].astype(np.float32)}
    school: dict[str, Any] = {"schools": found["school"].astype(np.int32) - 1}
    pupils = Batch(found["inputs"].astype(np.float32), scores, task=school)
    if train_share is None:
        return {"all": pupils}
    train = _train_mask(np.bincount(school["schools"]).tolist(), train_share, seed)
    parts = {"train": train, "test": ~train}
    return {name: jax.tree.map(lambda array, rows=rows: array[rows], pupils) for name, rows in parts.items()}


def _train_mask(sizes: list[int], share: float, seed: int) -> np.ndarray:
    """The pupils that `mtljax.convex.split_rows` draws, without importing `mtljax.convex`, which imports data."""
    # The draw depends on JAX's precision and generator, which are fixed here so that the split is always the same.
    with jax.enable_x64(False), jax.threefry_partitionable(True):
        drawn = np.asarray(jax.random.uniform(jax.random.key(seed, impl="threefry2x32"), (len(sizes), max(sizes))))
    wanted = np.floor(np.float32(share) * np.array(sizes, np.float32) + np.float32(0.5))
    ranks = [np.argsort(np.argsort(row[:size], kind="stable")) for row, size in zip(drawn, sizes, strict=True)]
    return np.concatenate([rank < number for rank, number in zip(ranks, wanted, strict=True)])


def _read(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs uint8 `[n, 28]` and scores uint8 `[n]` of every school."""
    found = scipy.io.loadmat(str(path), appendmat=False)
    missing = sorted({"X", "Y"} - set(found))
    if missing:
        raise ValueError(f"{path}: expected cells X and Y, one entry for each school, found no {missing[0]}")
    cells, labels = found["X"].ravel(), found["Y"].ravel()
    if len(cells) != len(labels):
        raise ValueError(f"{path}: expected X and Y of equally many schools, found {len(cells)} and {len(labels)}")
    for school, (x, y) in enumerate(zip(cells, labels, strict=True), start=1):
        if x.ndim != 2 or x.shape[1] != _COLUMNS or y.shape != (len(x), 1) or not len(x) or np.any(x[:, -1] != 1):
            raise ValueError(
                f"{path}: expected X [n, {_COLUMNS}] with a last column of ones and Y [n, 1] for school {school}, "
                f"found shapes {x.shape} and {y.shape}"
            )
        if not all(np.isin(array, range(256)).all() for array in (x, y)):
            raise ValueError(f"{path}: expected whole numbers from 0 to 255, found others for school {school}")
    return [(x.astype(np.uint8), y[:, 0].astype(np.uint8)) for x, y in zip(cells, labels, strict=True)]

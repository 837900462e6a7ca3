"""The multi_digits data set: two real scanned digits on one canvas, four tasks, prepared offline in seconds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtljax.checks import check_count
from mtljax.data.sets.frame import Frame
from mtljax.data.sets.prepared import columns, prepare
from mtljax.types import Batch

_SCANS = 1797  # digits in sklearn.datasets.load_digits()
_SIDE = 8  # of a scanned digit, in pixels
_INK = 16  # darkest grey level of the scans
_CANVAS = (12, 16, 1)  # height, width, channels
_CELL = 4  # side of a grid cell, in pixels
_GRID = (_CANVAS[0] // _CELL, _CANVAS[1] // _CELL)
_ROWS, _LEFT, _RIGHT = (1, 3), (0, 2), (6, 8)  # ranges of the digits' upper left corners, both ends included
_SIZES = {"train": 10_000, "validation": 2_000, "test": 2_000}  # examples

_DESCRIPTION = """
Two handwritten digits overlaid on one 12x16 canvas, after Multi-MNIST (Sabour, Frosst and Hinton 2017; Sener and
Koltun 2018). The digits are the 1,797 real 8x8 scans bundled with scikit-learn, grey levels 0 to 16.

The left digit's upper left corner is drawn from columns 0 to 2 and the right one's from columns 6 to 8, so that the
two scans share 0 to 4 columns; rows are drawn from 1 to 3, independently. Where both have ink, the darker one is seen.
The canvas is a grid of 3x4 cells of 4x4 pixels; one cell, drawn at random, is blank in `masked`, the network's input.

Train, validation and test are made from disjoint source digits (1,079, 359 and 359 scans, at random);
`left_source` and `right_source` are their positions in `sklearn.datasets.load_digits()`. The writers of the scans are
not known, so digits of one writer may be in several splits. The label `sum` is missing for exactly half of the examples
of every split, at random: it is NaN there, and `sum_mask` is False.
"""

_CITATION = """
@misc{alpaydin1998optical,
  author = {Alpaydin, E. and Kaynak, C.},
  title = {Optical Recognition of Handwritten Digits},
  year = {1998},
  howpublished = {UCI Machine Learning Repository},
  doi = {10.24432/C50P49}
}
"""


@dataclasses.dataclass(kw_only=True)
class MultiDigitsConfig(tfds.core.BuilderConfig):
    """Configuration of `MultiDigits`.

    Attributes:
        name: TFDS's name of the configuration and of its folder; a different seed needs a different name.
        seed: non-negative integer from which everything random is drawn: the digits of each split, pairs, places,
            masked cells and missing labels.
    """

    seed: int = 0


class MultiDigits(Frame):
    """TFDS builder of two overlaid digits; `load_multi_digits` describes the tasks.

    Preparation needs scikit-learn, but no TensorFlow and no network; reading does not need scikit-learn. The prepared
    files depend only on the configuration's seed. Their format is array_record by default, since TFDS's own default
    format needs TensorFlow.

    Features: `canvas` uint8 `[12, 16, 1]`, grey levels 0 to 16; `masked`, the same with one cell set to 0; `cell`
    int32, its number, row by row; `left` and `right`, classes 0 to 9; `sum` float32, NaN where it is missing;
    `sum_mask` bool, True where it is present; `left_source` and `right_source` int32, the scans used.

    Data: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    doi:10.24432/C50P49, CC BY 4.0.

    Example:
        >>> MultiDigits.VERSION
        Version('1.0.0')
    """

    BUILDER_CONFIGS = [MultiDigitsConfig(name="seed_0", seed=0, description="Drawn from seed 0.")]

    def _info(self) -> tfds.core.DatasetInfo:
        level = tfds.features.Tensor(shape=_CANVAS, dtype=np.uint8)
        number = tfds.features.Scalar(np.int32)
        digit = tfds.features.ClassLabel(num_classes=10)
        return self.describe(
            {
                "canvas": level,
                "masked": level,
                "cell": number,
                "left": digit,
                "right": digit,
                "sum": tfds.features.Scalar(np.float32),
                "sum_mask": tfds.features.Scalar(np.bool_),
                "left_source": number,
                "right_source": number,
            },
            description=_DESCRIPTION,
            homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
            citation=_CITATION,
            license="CC BY 4.0, as the UCI Machine Learning Repository states for the scans",
            metadata=tfds.core.MetadataDict(
                seed=self._seed(),
                tasks={
                    "left": "classification, 10 classes",
                    "right": "classification, 10 classes",
                    "sum": "regression, 0 to 18, missing where sum_mask is False",
                    "reconstruct": "canvas from masked, self-supervised",
                },
                source_digits={
                    "dataset": "sklearn.datasets.load_digits",
                    "disjoint_between_splits": True,
                    "counts": {name: len(scans) for name, scans in _source_digits(self._seed()).items()},
                },
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError(
                "preparing multi_digits needs scikit-learn, which bundles the scans: pip install mtljax[demo]"
            ) from error
        bunch: Any = load_digits()
        images, labels = bunch.images.astype(np.uint8), bunch.target
        if images.shape != (_SCANS, _SIDE, _SIDE):
            raise ValueError(f"load_digits gave images {images.shape}, expected {(_SCANS, _SIDE, _SIDE)}")
        sources = _source_digits(self._seed())
        return {
            name: self._generate_examples(images, labels, sources[name], size, np.random.default_rng([self._seed(), k]))
            for k, (name, size) in enumerate(_SIZES.items(), start=1)
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, scans: np.ndarray, size: int, rng: np.random.Generator
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        first = rng.integers(len(scans), size=size)
        second = (first + rng.integers(1, len(scans), size=size)) % len(scans)  # never the same scan twice
        tops = rng.integers(_ROWS[0], _ROWS[1] + 1, size=(size, 2))
        columns = rng.integers([_LEFT[0], _RIGHT[0]], [_LEFT[1] + 1, _RIGHT[1] + 1], size=(size, 2))
        cells = rng.integers(_GRID[0] * _GRID[1], size=size)
        labeled = rng.permutation(size) < size // 2
        for i in range(size):
            pair = scans[[first[i], second[i]]]
            canvas = np.zeros(_CANVAS, np.uint8)
            for scan, top, column in zip(pair, tops[i], columns[i], strict=True):
                place = canvas[top : top + _SIDE, column : column + _SIDE, 0]
                np.maximum(place, images[scan], out=place)
            masked = canvas.copy()
            row, column = _CELL * np.array(divmod(cells[i], _GRID[1]))
            masked[row : row + _CELL, column : column + _CELL] = 0
            left, right = (int(label) for label in labels[pair])
            yield (
                i,
                {
                    "canvas": canvas,
                    "masked": masked,
                    "cell": np.int32(cells[i]),
                    "left": left,
                    "right": right,
                    "sum": np.float32(left + right if labeled[i] else np.nan),
                    "sum_mask": bool(labeled[i]),
                    "left_source": np.int32(pair[0]),
                    "right_source": np.int32(pair[1]),
                },
            )

    def _seed(self) -> int:
        return getattr(self.builder_config, "seed", 0)


def load_multi_digits(data_dir: str | Path | None = None, *, seed: int = 0) -> dict[str, Batch]:
    """Two overlaid digits and their four tasks as NumPy arrays; prepared with TFDS on first use, in seconds.

    The input is one canvas with one blank grid cell, and the network predicts every task from it. So one forward pass
    through the trunk serves all tasks, and `reconstruct` may conflict with the other tasks on the same example. The
    price: the blank cell sometimes hides a stroke that distinguishes two digits, also in evaluation.

    Inputs: float32 `[N, 12, 16, 1]`, ink from 0 to 1. Tasks (targets, in the order of their names):

    - `left`, `right`: int32 `[N]`, the digit on either side, classes 0 to 9.
    - `reconstruct`: float32 `[N, 12, 16, 1]`, the canvas before the cell was blanked: self-supervised inpainting.
    - `sum`: float32 `[N]`, left + right, 0 to 18. It is missing for exactly half of the examples of every split, chosen
      at random once. A missing value is NaN, so that code which reads it by mistake gives NaN.

    `mask` has one entry, `sum`, bool `[N]`. N is 10,000, 2,000 and 2,000; the splits have disjoint source digits.

    Args:
        data_dir: TFDS's data directory, under which `multi_digits/seed_<seed>/1.0.0` is written and read later; None
            is TFDS's own default, usually `~/tensorflow_datasets`. Several processes may prepare it at once.
        seed: non-negative integer, see `MultiDigitsConfig`; published results use seed 0.

    Returns:
        Dict with `"train"`, `"validation"` and `"test"`, each a `Batch` of NumPy arrays.

    Raises:
        ImportError: the data is not prepared yet and scikit-learn is not installed.
        ValueError: a negative seed.

    Data: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    doi:10.24432/C50P49, CC BY 4.0.

    Example:
        >>> splits = load_multi_digits("/tmp/tfds")  # doctest: +SKIP
        >>> splits["train"].inputs.shape  # doctest: +SKIP
        (10000, 12, 16, 1)
    """
    check_count("load_multi_digits", "seed", seed, least=0)
    name = f"seed_{seed}"
    config = MultiDigits.builder_configs.get(name)  # TFDS refuses a new configuration under a listed name
    if config is None:
        config = MultiDigitsConfig(name=name, seed=seed, description=f"Drawn from seed {seed}.")
    builder = prepare("load_multi_digits", functools.partial(MultiDigits, config=config), data_dir)
    return {name: _as_batch(columns(builder, name)) for name in _SIZES}


def _source_digits(seed: int) -> dict[str, np.ndarray]:
    """The scans of each split, by position: three parts of one permutation, about 60, 20 and 20 percent."""
    order = np.random.default_rng([seed, 0]).permutation(_SCANS)
    held_out = _SCANS // 5
    return {
        "train": order[2 * held_out :],
        "validation": order[:held_out],
        "test": order[held_out : 2 * held_out],
    }


def _as_batch(column: dict[str, Any]) -> Batch:
    return Batch(
        inputs=column["masked"].astype(np.float32) / _INK,
        targets={
            "left": column["left"].astype(np.int32),
            "reconstruct": column["canvas"].astype(np.float32) / _INK,
            "right": column["right"].astype(np.int32),
            "sum": column["sum"].astype(np.float32),
        },
        mask={"sum": column["sum_mask"].astype(bool)},
    )

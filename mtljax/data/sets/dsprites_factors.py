"""dSprites with five known factors, each of which is a task of classification and of regression."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtljax.checks import check_choice, check_count, check_names
from mtljax.data.sets import raw
from mtljax.data.sets.frame import Frame
from mtljax.data.sets.prepared import columns, prepare
from mtljax.types import Batch

_URL = "manual:dsprites/dsprites_downsampled.npz"
_SIDE = 64  # of an image, in pixels
# The factors in the order of the file, with their classes.
_FACTORS = {"shape": 3, "scale": 6, "orientation": 10, "x": 16, "y": 16}
_SHAPE, _SCALE, _ORIENTATION, _X, _Y = range(len(_FACTORS))
_SYMMETRY = np.array([4, 2, 1], np.float32)  # turns after which a square, an ellipse, a heart look the same
_ARRAYS = {"imgs": "uint8", "latents_classes": "int64", "latents_values": "float64"}

_DESCRIPTION = """
46,080 black and white images, each of one shape, rendered from every combination of five factors: shape (square,
ellipse, heart), 6 scales, 10 orientations, 16 horizontal and 16 vertical positions. This is C. Gillon's downsampled
version ("1_downsampled", June 2021) of dSprites (Matthey, Higgins, Hassabis and Lerchner 2017), with every fourth
orientation and every second position, without noise.

`classes` are the numbers of the five factors from 0, in the order shape, scale, orientation, x, y. `values` are the
published values: shape 1 to 3, scale 0.5 to 1, orientation in radians, x and y from 0 to 1. x grows to the right and y
downwards. Rows are in the order of the grid.
"""

_CITATION = """
@misc{dsprites17,
  author = {Matthey, Loic and Higgins, Irina and Hassabis, Demis and Lerchner, Alexander},
  title = {{dSprites}: Disentanglement testing Sprites dataset},
  year = {2017},
  howpublished = {https://github.com/deepmind/dsprites-dataset}
}
"""


class DspritesFactors(Frame):
    """TFDS builder of the downsampled dSprites; `load_dsprites_factors` describes the tasks and makes the splits.

    Preparation needs `dsprites_downsampled.npz`, which has no public URL, see `mtljax.data.sets.raw.fetch`. It does not
    need TensorFlow. The file also holds a pickle, which is never read.

    The builder has one split, `train`, with all images in the order of the grid. The splits of `load_dsprites_factors`
    are rows of it, so a new seed does not write the images again.

    Features: `image` uint8 `[64, 64, 1]`, 0 or 1; `classes` int32 `[5]`; `values` float32 `[5]`.

    Data: L. Matthey, I. Higgins, D. Hassabis and A. Lerchner, dSprites: Disentanglement testing Sprites dataset, 2017,
    Apache-2.0; downsampled by C. Gillon, 2021.

    Example:
        >>> DspritesFactors.VERSION
        Version('1.0.0')
    """

    def _info(self) -> tfds.core.DatasetInfo:
        tensor = tfds.features.Tensor
        # As integers, TFDS's default, pixels take several times as long to write.
        in_bytes = tfds.features.Encoding.BYTES
        return self.describe(
            {
                "image": tensor(shape=(_SIDE, _SIDE, 1), dtype=np.uint8, encoding=in_bytes),
                "classes": tensor(shape=(len(_FACTORS),), dtype=np.int32),
                "values": tensor(shape=(len(_FACTORS),), dtype=np.float32),
            },
            description=_DESCRIPTION,
            homepage="https://github.com/deepmind/dsprites-dataset",
            citation=_CITATION,
            license="Apache-2.0",
            metadata=tfds.core.MetadataDict(factors=list(_FACTORS), num_classes=list(_FACTORS.values())),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        (path,) = raw.fetch(dl_manager, "dsprites", [_URL])
        return {"train": self._generate_examples(path)}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        images, classes, values = _read(path)
        for row in range(len(images)):
            yield row, {"image": images[row, ..., None], "classes": classes[row], "values": values[row]}


def load_dsprites_factors(
    data_dir: str | Path | None = None, *, tasks: Sequence[str] | None = None, split_seed: int = 0
) -> dict[str, Batch]:
    """Images of one shape and up to nine tasks, as NumPy arrays; prepared with TFDS on first use, in seconds.

    Inputs: float32 `[N, 64, 64, 1]`, 0 or 1. Tasks:

    - `shape`, `scale`, `orientation`, `x`, `y`: int32 `[N]`, 3, 6, 10, 16 and 16 classes. Square, ellipse, heart;
      small to large; turned by `class * 2 pi * 4 / 39`; left to right; top to bottom.
    - `scale_value`, `x_value`, `y_value`: float32 `[N]`, as published: 0.5 to 1, 0 to 30/31, 0 to 30/31.
    - `orientation_angle`: float32 `[N, 2]`, `(sin(s a), cos(s a))` of the published angle a, with s = 4 for a square,
      2 for an ellipse and 1 for a heart.

    A square after a quarter turn and an ellipse after a half turn look the same, so the angle is not a function of the
    image. `orientation_angle` is a continuous function of the image: its `atan2`, divided by s, is the angle modulo
    `2 pi / s`. `orientation` is the published class, without regard to symmetry. Modulo a quarter turn its ten angles
    differ by at least 4.6 degrees, which changes only a few pixels. 14 pairs of the smallest ellipses with different
    orientations are equal in every pixel, although the file states that all images differ.

    The images are a complete grid, and the splits are drawn from it. Nearly every test image has neighbours in training
    that differ by one step of one factor: the test error measures interpolation.

    Args:
        data_dir: TFDS's data directory, under which `dsprites_factors/1.0.0` is written and read later; None is
            TFDS's own default, usually `~/tensorflow_datasets`. Several processes may prepare it at once.
        tasks: names of the tasks in `targets`; None is all nine.
        split_seed: non-negative integer that draws the permutation, which is cut into 80, 10 and 10 percent.

    Returns:
        Dict with `"train"`, `"validation"` and `"test"`, each a `Batch` of NumPy arrays: 36,864, 4,608 and 4,608
        images. No label is missing.

    Raises:
        FileNotFoundError: the published file is missing.
        TypeError: `tasks` is a string.
        ValueError: no tasks, an unknown one or one twice; a negative seed; a file that is damaged or is not as
            described.

    Data: see `DspritesFactors`.

    Example:
        >>> splits = load_dsprites_factors("/tmp/tfds", tasks=["shape", "x_value"])  # doctest: +SKIP
        >>> splits["test"].inputs.shape, sorted(splits["test"].targets)  # doctest: +SKIP
        ((4608, 64, 64, 1), ['shape', 'x_value'])
    """
    chosen = list(_TASKS) if tasks is None else check_names("load_dsprites_factors", "tasks", tasks)
    for task in chosen:
        check_choice("load_dsprites_factors", "a task of tasks", task, list(_TASKS))
    check_count("load_dsprites_factors", "split_seed", split_seed, least=0)
    column = columns(prepare("load_dsprites_factors", DspritesFactors, data_dir), "train")
    order = np.random.default_rng(split_seed).permutation(len(column["image"]))
    part = len(order) // 10
    rows = {"train": order[2 * part :], "validation": order[:part], "test": order[part : 2 * part]}
    return {
        name: Batch(
            inputs=column["image"][i].astype(np.float32),
            targets={task: _TASKS[task](column["classes"][i], column["values"][i]) for task in chosen},
        )
        for name, i in rows.items()
    }


def _class(factor: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda classes, _: classes[:, factor].astype(np.int32)


def _value(factor: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda _, values: values[:, factor].astype(np.float32)


def _angle(classes: np.ndarray, values: np.ndarray) -> np.ndarray:
    turned = _SYMMETRY[classes[:, _SHAPE]] * values[:, _ORIENTATION]
    return np.stack([np.sin(turned), np.cos(turned)], 1).astype(np.float32)


# By task, the function that makes targets from the classes [N, 5] and the values [N, 5].
_TASKS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "shape": _class(_SHAPE),
    "scale": _class(_SCALE),
    "orientation": _class(_ORIENTATION),
    "x": _class(_X),
    "y": _class(_Y),
    "scale_value": _value(_SCALE),
    "orientation_angle": _angle,
    "x_value": _value(_X),
    "y_value": _value(_Y),
}


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, classes and values of the published file, without unpickling."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in _ARRAYS if name in arrays}
    except (zipfile.BadZipFile, zlib.error, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"dsprites_factors: {path} must be an npz file of plain arrays, found: {error}") from error
    images, classes, values = (found.get(name, np.zeros(0)) for name in _ARRAYS)
    size, factors = (*images.shape, 0)[0], len(_FACTORS)  # 0 where an array is a bare number
    shapes = {"imgs": (size, _SIDE, _SIDE), "latents_classes": (size, factors), "latents_values": (size, factors)}
    described = {name: f"{array.dtype} {list(array.shape)}" for name, array in found.items()}
    wanted = {name: f"{dtype} {list(shapes[name])}" for name, dtype in _ARRAYS.items()}
    if described != wanted:
        raise ValueError(f"dsprites_factors: {path} must hold {wanted}, found {described}")
    sizes, most = classes.max(0, initial=-1) + 1, list(_FACTORS.values())
    complete = size and (sizes <= most).all() and math.prod(sizes) == size
    if not complete or not np.array_equal(classes, np.stack(np.unravel_index(np.arange(size), sizes), 1)):
        raise ValueError(
            f"dsprites_factors: {path} must hold a complete grid, in order, of at most {most} classes, "
            f"found {size} rows of {sizes.tolist()} classes"
        )
    infinite = np.count_nonzero(~np.isfinite(values))
    if images.max() > 1 or infinite:
        raise ValueError(
            f"dsprites_factors: {path} must hold pixels of 0 and 1 and finite values, "
            f"found pixels up to {images.max()} and {infinite} values that are not finite"
        )
    return images, classes.astype(np.int32), values.astype(np.float32)

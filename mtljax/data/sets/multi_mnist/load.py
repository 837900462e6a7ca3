"""Loaders of the Multi-MNIST family: two overlaid images, one task per side."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from mtljax.checks import check_flag
from mtljax.data.sets.multi_mnist.builder import SPLITS, TwoDigits, TwoDigitsConfig
from mtljax.data.sets.prepared import columns, prepare
from mtljax.types import Batch

_MEAN, _DEVIATION = 0.1307, 0.3081  # of MNIST's training pixels; Sener and Koltun's


def load_multi_mnist(
    data_dir: str | Path | None = None,
    *,
    variant: str = "pareto",
    overlap: int | None = None,
    seed: int = 0,
    normalize: bool = False,
) -> dict[str, Batch]:
    """Two overlaid digits of MNIST, one task per digit, as NumPy arrays; prepared with TFDS on first use, in seconds.

    Inputs: float32 `[N, S, S, 1]`, ink from 0 to 1. Tasks: `left` and `right`, int32 `[N]`, the class of the upper
    left and of the lower right image, 0 to 9. No label is missing. Where both images have ink, the brighter pixel is
    seen.

    | variant | after | S | train, validation, test | pairs |
    |---|---|---|---|---|
    | `"pareto"` | Lin et al. 2019 | 36 | 110,000, 10,000, 20,000 | of different classes; each image twice per side |
    | `"mgda"` | Sener and Koltun 2018 | 28 | 55,000, 5,000, 10,000 | of different images; each image once per side |

    `layout` defines the places of the images. One of twelve training images, chosen at random by `seed`, is used for
    validation. Train and validation together have the papers' sizes, 120,000 and 60,000. No source image is in two
    splits.

    Departures: the papers have no validation images, and our random draws differ from theirs. So the data have the same
    distribution, but are not equal pixel by pixel.

    Lin et al.: their code (Xi-L/ParetoMTL) confirms sizes and canvas, but reads prepared data. Four choices are not
    confirmed; they follow from memory and from the paper's words "top-left corner" and "up to 4 pixels on each
    direction". An image moves within the canvas and is not cut off at its edge. The brighter pixel is seen; the code of
    Sabour et al. adds pixels and clips the sum at 255. Pairs are of different classes, as in Sabour et al. The number
    120,000 comes from using every image twice per side.

    Sener and Koltun: their code (isl-org/MultiObjectiveOptimization) draws the right image with replacement, and may
    draw the left image itself. Here each image is on each side exactly once. Their code stretches the grey levels of
    each canvas to 0 to 255. Here grey levels are MNIST's. The rest agrees.

    Args:
        data_dir: TFDS's data directory, under which `two_digits/<configuration>/1.0.0` is written and read later;
            None is TFDS's own default, usually `~/tensorflow_datasets`. Several processes may prepare it at once.
        variant: `"pareto"` or `"mgda"`.
        overlap: rows and columns that the two boxes of 28x28 share before they move; None is the paper's, 20 for
            `"pareto"` (0 to 27 allowed; the canvas is `56 - overlap` below 20) and 22 for `"mgda"` (20 to 27).
        seed: non-negative integer, see `TwoDigitsConfig`; published results use seed 0.
        normalize: whether inputs are `(ink - 0.1307) / 0.3081`, with the mean and deviation of MNIST's training pixels.

    Returns:
        Dict with `"train"`, `"validation"` and `"test"`, each a `Batch` of NumPy arrays.

    Raises:
        FileNotFoundError: the published files are missing and cannot be downloaded.
        TypeError: an overlap or a seed that is not a whole number.
        ValueError: an unknown variant, an overlap outside its range, a negative seed; a published file that is damaged.

    References: S. Sabour, N. Frosst and G. E. Hinton, Dynamic Routing Between Capsules, NeurIPS 2017. O. Sener and
    V. Koltun, Multi-Task Learning as Multi-Objective Optimization, NeurIPS 2018. X. Lin, H.-L. Zhen, Z. Li, Q. Zhang
    and S. Kwong, Pareto Multi-Task Learning, NeurIPS 2019. Data: Y. LeCun, L. Bottou, Y. Bengio and P. Haffner,
    Gradient-Based Learning Applied to Document Recognition, Proceedings of the IEEE, 1998.

    Example:
        >>> splits = load_multi_mnist("/tmp/tfds")  # doctest: +SKIP
        >>> splits["train"].inputs.shape  # doctest: +SKIP
        (110000, 36, 36, 1)
    """
    return _load("multi_mnist", data_dir, variant, overlap, seed, normalize)


def load_multi_fashion(
    data_dir: str | Path | None = None,
    *,
    variant: str = "pareto",
    overlap: int | None = None,
    seed: int = 0,
    normalize: bool = False,
) -> dict[str, Batch]:
    """Two overlaid articles of Fashion-MNIST, one task per article: `load_multi_mnist` with other images.

    Lin et al. 2019 used it with `"pareto"`. Classes: T-shirt/top, trouser, pullover, dress, coat, sandal, shirt,
    sneaker, bag, ankle boot.

    Arguments, result and errors are those of `load_multi_mnist`; `normalize` uses MNIST's mean and deviation here too.

    Data: H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    Algorithms, 2017, arXiv:1708.07747, MIT.

    Example:
        >>> load_multi_fashion("/tmp/tfds", variant="mgda")["test"].inputs.shape  # doctest: +SKIP
        (10000, 28, 28, 1)
    """
    return _load("multi_fashion", data_dir, variant, overlap, seed, normalize)


def load_mnist_fashion(
    data_dir: str | Path | None = None,
    *,
    variant: str = "pareto",
    overlap: int | None = None,
    seed: int = 0,
    normalize: bool = False,
) -> dict[str, Batch]:
    """A digit of MNIST, upper left, and an article of Fashion-MNIST, lower right: `load_multi_mnist` with both.

    Lin et al. 2019 used it with `"pareto"`. That the digit is on the left is from memory. All pairs of a digit and an
    article are possible.

    Arguments, result and errors are those of `load_multi_mnist`; `normalize` uses MNIST's mean and deviation for both
    images.

    Example:
        >>> load_mnist_fashion("/tmp/tfds")["train"].inputs.shape  # doctest: +SKIP
        (110000, 36, 36, 1)
    """
    return _load("mnist_fashion", data_dir, variant, overlap, seed, normalize)


def _load(
    family: str, data_dir: str | Path | None, variant: str, overlap: int | None, seed: int, normalize: bool
) -> dict[str, Batch]:
    check_flag(f"load_{family}", "normalize", normalize)
    config = TwoDigitsConfig(family=family, variant=variant, overlap=overlap, seed=seed)
    config = TwoDigits.builder_configs.get(config.name, config)  # TFDS refuses a new object under a listed name
    builder = prepare(f"load_{family}", functools.partial(TwoDigits, config=config), data_dir)
    return {name: _as_batch(columns(builder, name), normalize) for name in SPLITS}


def _as_batch(column: dict[str, np.ndarray], normalize: bool) -> Batch:
    blocks = column["image"]
    inputs = np.divide(blocks.reshape(-1, *blocks.shape[2:]), 255, dtype=np.float32)
    if normalize:
        inputs -= np.float32(_MEAN)
        inputs /= np.float32(_DEVIATION)
    return Batch(inputs, {side: column[side].reshape(-1).astype(np.int32) for side in ("left", "right")})

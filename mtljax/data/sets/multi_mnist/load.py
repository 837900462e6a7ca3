"""Loaders of the Multi-MNIST family: two overlaid images, a task for either side."""

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
    """Two overlaid digits of MNIST, a task for either, as NumPy arrays; prepared with TFDS on first use, in seconds.

    Inputs: float32 `[N, S, S, 1]`, ink from 0 to 1. Tasks: `left` and `right`, int32 `[N]`, the class of the upper
    left and of the lower right image, 0 to 9. Nothing is missing. Where both images have ink the brighter pixel is
    seen.

    | variant | after | S | train, validation, test | pairs |
    |---|---|---|---|---|
    | `"pareto"` | Lin et al. 2019 | 36 | 110,000, 10,000, 20,000 | of different classes; each image twice a side |
    | `"mgda"` | Sener and Koltun 2018 | 28 | 55,000, 5,000, 10,000 | of different images; each image once a side |

    `layout` says where the images stand. Validation is made from one training image in twelve, chosen at random from
    `seed`; train and validation together are the papers' 120,000 and 60,000. No source image is in two splits.

    Deviations and doubts. The papers hold out no validation images, and the draws are not theirs: the data are theirs
    in kind, not to the pixel. Lin et al.'s code (Xi-L/ParetoMTL) confirms sizes and canvas, but reads data made
    elsewhere. On memory, and on "top-left corner" and "up to 4 pixels on each direction", rest: that an image moves
    within the canvas only, rather than being cut off at its rim; that the brighter pixel is seen (Sabour et al.'s code
    adds pixels and cuts the sum at 255); that pairs are of different classes, as those of Sabour et al. are; that
    120,000 comes from using every image twice a side. Sener and Koltun's code (isl-org/MultiObjectiveOptimization)
    draws the right image with replacement, even the left one itself, where ours stands on its side exactly once, and
    stretches the grey levels of each canvas to 0 to 255, where ours keep MNIST's. All else of theirs agrees.

    Args:
        data_dir: TFDS's data directory, under which `two_digits/<configuration>/1.0.0` is written and found again;
            None is TFDS's own default, usually `~/tensorflow_datasets`. Several processes may prepare it at once.
        variant: `"pareto"` or `"mgda"`.
        overlap: rows and columns that the two boxes of 28x28 share before they move; None is the paper's, 20 for
            `"pareto"` (0 to 27 allowed; the canvas is `56 - overlap` below 20) and 22 for `"mgda"` (20 to 27).
        seed: non-negative integer, see `TwoDigitsConfig`; seed 0 is the data set that results refer to.
        normalize: whether to give `(ink - 0.1307) / 0.3081`, mean and deviation of MNIST's own training pixels.

    Returns:
        Dict with `"train"`, `"validation"` and `"test"`, each a `Batch` of NumPy arrays.

    Raises:
        FileNotFoundError: the published files are not at hand and cannot be downloaded.
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
    """Two overlaid articles of Fashion-MNIST, a task for either: `load_multi_mnist` with other images.

    Lin et al. 2019 made it with `"pareto"`. Classes: T-shirt/top, trouser, pullover, dress, coat, sandal, shirt,
    sneaker, bag, ankle boot.

    Arguments, result and errors are those of `load_multi_mnist`; `normalize` takes MNIST's mean and deviation here too.

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

    Lin et al. 2019 made it with `"pareto"`; that the digit is the one on the left rests on memory. Any digit may
    stand with any article.

    Arguments, result and errors are those of `load_multi_mnist`; `normalize` takes MNIST's mean and deviation on both
    sides.

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
    config = TwoDigits.builder_configs.get(config.name, config)  # TFDS refuses a new one under a listed name
    builder = prepare(f"load_{family}", functools.partial(TwoDigits, config=config), data_dir)
    return {name: _as_batch(columns(builder, name), normalize) for name in SPLITS}


def _as_batch(column: dict[str, np.ndarray], normalize: bool) -> Batch:
    blocks = column["image"]
    inputs = np.divide(blocks.reshape(-1, *blocks.shape[2:]), 255, dtype=np.float32)
    if normalize:
        inputs -= np.float32(_MEAN)
        inputs /= np.float32(_DEVIATION)
    return Batch(inputs, {side: column[side].reshape(-1).astype(np.int32) for side in ("left", "right")})

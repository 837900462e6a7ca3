"""The TFDS builder of the Multi-MNIST family: two digits, two articles, or one of each on one canvas."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from mtljax.checks import check_choice, check_count
from mtljax.data.sets.frame import Frame
from mtljax.data.sets.multi_mnist.canvas import layout, overlay, pair, resize
from mtljax.data.sets.multi_mnist.idx import ROOTS, read_published

_FAMILIES = {
    "multi_mnist": ("mnist", "mnist"),
    "multi_fashion": ("fashion_mnist", "fashion_mnist"),
    "mnist_fashion": ("mnist", "fashion_mnist"),
}
SPLITS = ("train", "validation", "test")
_HELD_OUT = 12  # one of 12 training images is for validation: 5,000 of 60,000
_BLOCK = 100  # examples per record

_DESCRIPTION = """
Two images of 28x28 pixels on one canvas, after Multi-MNIST (Sabour, Frosst and Hinton 2017): two digits of MNIST
(`multi_mnist`), two articles of Fashion-MNIST (`multi_fashion`), or a digit on the left and an article on the right
(`mnist_fashion`). Left is the upper left image, right the lower right one. Where both have ink the brighter pixel is
seen. `mtljax.data.sets.multi_mnist.canvas.layout` defines their places.

A record is a block of 100 examples in random order: reading is eight times as fast as with one record per example.

Train and validation are made from the publishers' training images and test from their test images; no source image is
in two splits. `left_source` and `right_source` are positions in the publisher's file.
"""

_CITATIONS = {
    "mnist": """
@article{lecun1998gradient,
  author = {LeCun, Yann and Bottou, L{\\'e}on and Bengio, Yoshua and Haffner, Patrick},
  title = {Gradient-based learning applied to document recognition},
  journal = {Proceedings of the IEEE},
  volume = {86},
  number = {11},
  pages = {2278--2324},
  year = {1998}
}
""",
    "fashion_mnist": """
@misc{xiao2017fashion,
  author = {Xiao, Han and Rasul, Kashif and Vollgraf, Roland},
  title = {Fashion-{MNIST}: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  year = {2017},
  eprint = {1708.07747},
  archivePrefix = {arXiv}
}
""",
}
_LICENSES = {"mnist": "MNIST: commonly CC BY-SA 3.0, none by its authors", "fashion_mnist": "Fashion-MNIST: MIT"}
_PAGES = {
    "mnist": "http://yann.lecun.com/exdb/mnist/",
    "fashion_mnist": "https://github.com/zalandoresearch/fashion-mnist",
}


@dataclasses.dataclass(kw_only=True, eq=False)
class TwoDigitsConfig(tfds.core.BuilderConfig):
    """Configuration of `TwoDigits`.

    Attributes:
        name: TFDS's name of the configuration and of its folder. Leave it out: it is made from the settings, so that
            different settings have different names.
        family: `"multi_mnist"`, `"multi_fashion"` or `"mnist_fashion"`.
        variant: `"pareto"` or `"mgda"`, see `layout`.
        overlap: rows and columns that the two boxes share before they move, see `layout`; None is the paper's.
        seed: non-negative integer from which everything random is drawn: validation images, pairs, order, places.

    Raises:
        TypeError: an overlap or a seed that is not a whole number.
        ValueError: an unknown family or variant, an overlap outside its range, a negative seed, another name.

    Example:
        >>> TwoDigitsConfig(family="multi_mnist", variant="mgda", overlap=24).name
        'multi_mnist_mgda_overlap_24_seed_0'
    """

    name: str = ""
    family: str = "multi_mnist"
    variant: str = "pareto"
    overlap: int | None = None
    seed: int = 0

    def __post_init__(self):
        check_choice("TwoDigitsConfig", "family", self.family, sorted(_FAMILIES))
        self.overlap = layout(self.variant, self.overlap).overlap
        self.seed = check_count("TwoDigitsConfig", "seed", self.seed, least=0)
        name = f"{self.family}_{self.variant}_overlap_{self.overlap}_seed_{self.seed}"
        if self.name not in ("", name):
            raise ValueError(f"TwoDigitsConfig: name must be left out or {name!r}, found {self.name!r}")
        self.name = name
        self.description = self.description or f"{self.family}, laid out as {self.variant}, drawn from {self.seed}."


class TwoDigits(Frame):
    """TFDS builder of the Multi-MNIST family; `load_multi_mnist` describes the tasks.

    Preparation needs the publisher's four files of each source, see `mtljax.data.sets.raw.fetch`, but no TensorFlow.
    The prepared files depend only on the configuration.

    A record is a block of 100 examples: `image` uint8 `[100, S, S, 1]`; `left` and `right` int32 `[100]`, classes 0
    to 9; `left_source` and `right_source` int32 `[100]`, positions in the publisher's file. So `tfds.data_source`
    yields batches of 100, and its length is the number of batches. With one example per record, an example would take
    0.16 ms to write and 0.06 ms to read: 8 seconds for all 140,000, against one second with blocks.

    Example:
        >>> sorted(TwoDigits.builder_configs)[0]
        'mnist_fashion_mgda_overlap_22_seed_0'
    """

    BUILDER_CONFIGS = [
        TwoDigitsConfig(family=family, variant=variant) for variant in ("pareto", "mgda") for family in _FAMILIES
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self._config()
        folders = sorted(set(_FAMILIES[config.family]))
        side = layout(config.variant, config.overlap).side
        number = tfds.features.Tensor(shape=(_BLOCK,), dtype=np.int32)
        # As integers, TFDS's default, pixels take several times as long to write.
        in_bytes = tfds.features.Encoding.BYTES
        image = tfds.features.Tensor(shape=(_BLOCK, side, side, 1), dtype=np.uint8, encoding=in_bytes)
        return self.describe(
            {"image": image, "left": number, "right": number, "left_source": number, "right_source": number},
            description=_DESCRIPTION,
            homepage=_PAGES[folders[0]],
            citation="".join(_CITATIONS[folder] for folder in folders),
            license="; ".join(_LICENSES[folder] for folder in folders),
            metadata=tfds.core.MetadataDict(
                family=config.family,
                variant=config.variant,
                overlap=config.overlap,
                seed=config.seed,
                examples_a_record=_BLOCK,
                sources=dict(zip(("left", "right"), _FAMILIES[config.family], strict=True)),
                tasks={"left": "classification, 10 classes", "right": "classification, 10 classes"},
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        config = self._config()
        sources = {
            folder: _sources(read_published(dl_manager, folder), folder, config.seed)
            for folder in set(_FAMILIES[config.family])
        }
        left, right = (sources[folder] for folder in _FAMILIES[config.family])
        return {
            name: self._generate_examples(left[name], right[name], np.random.default_rng([config.seed, k]))
            for k, name in enumerate(SPLITS, start=1)
        }

    def _generate_examples(
        self, left: _Source, right: _Source, rng: np.random.Generator
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self._config()
        places = layout(config.variant, config.overlap)

        def clash(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            if left.folder != right.folder:
                return np.zeros(np.broadcast_shapes(first.shape, second.shape), bool)
            return left.labels[first] == right.labels[second] if places.distinct else first == second

        # Every image occurs equally often on its side.
        of_left, of_right = pair(np.tile(left.ids, places.repeats), np.tile(right.ids, places.repeats), clash, rng)
        left_places = rng.integers(places.left[0], places.left[1] + 1, (len(of_left), 2))
        right_places = rng.integers(places.right[0], places.right[1] + 1, (len(of_left), 2))
        if not len(of_left) or len(of_left) % _BLOCK:
            raise ValueError(
                f"two_digits: a split must fill blocks of {_BLOCK} examples, found {len(of_left)} made from "
                f"{len(left.ids)} images of {left.folder}"
            )
        for block in range(len(of_left) // _BLOCK):
            rows = slice(block * _BLOCK, (block + 1) * _BLOCK)
            i, j = of_left[rows], of_right[rows]
            seen = overlay(left.images[i], right.images[j], left_places[rows], right_places[rows], places.canvas)
            yield (
                block,
                {
                    "image": resize(seen, places.side)[..., None],
                    "left": left.labels[i],
                    "right": right.labels[j],
                    "left_source": i,
                    "right_source": j,
                },
            )

    def _config(self) -> TwoDigitsConfig:
        if not isinstance(self.builder_config, TwoDigitsConfig):
            raise TypeError(f"TwoDigits: config must be a TwoDigitsConfig, found {self.builder_config!r}")
        return self.builder_config


class _Source(NamedTuple):
    """The source images for one side of one split.

    Attributes:
        folder: the data set.
        images: uint8 `[N, 28, 28]`, all images of the publisher's file.
        labels: int32 `[N]`, all labels of the publisher's file.
        ids: int32 `[M]`, positions of the images that belong to the split.
    """

    folder: str
    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray


def _sources(published: dict[str, tuple[np.ndarray, np.ndarray]], folder: str, seed: int) -> dict[str, _Source]:
    """The source images of each split: disjoint parts of one data set's images."""
    training = len(published["train"][0])
    stream = len(SPLITS) + 1 + list(ROOTS).index(folder)  # earlier streams draw the pairs of the splits
    order = np.random.default_rng([seed, stream]).permutation(training).astype(np.int32)
    held_out = training // _HELD_OUT
    return {
        "train": _Source(folder, *published["train"], order[held_out:]),
        "validation": _Source(folder, *published["train"], order[:held_out]),
        "test": _Source(folder, *published["test"], np.arange(len(published["test"][0]), dtype=np.int32)),
    }

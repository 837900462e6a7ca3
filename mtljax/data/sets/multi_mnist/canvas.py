"""Two images of 28x28 pixels on one canvas: their places, their pairs, and the pixels that are seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mtljax.checks import check_choice, check_count
from mtljax.data.sets.multi_mnist.idx import SIDE

_CANVAS = 36  # side of the canvas in the papers
_JITTER = 4  # largest shift of an image in Lin et al., in pixels
_HANDFUL = 32  # number of pairs with which a clashing pair first tries to exchange
_OVERLAP = {"mgda": 22, "pareto": 20}  # in the papers


class Layout(NamedTuple):
    """The possible places of two boxes of 28x28 pixels; rows and columns follow the same rule.

    Attributes:
        overlap: number of rows, and of columns, that the boxes share before they move.
        canvas: side of the canvas, in pixels.
        left: smallest and largest first row, and first column, of the upper left box.
        right: the same for the lower right box.
        side: side of the finished image: `canvas`, or less if the canvas is resized.
        repeats: number of times that each source image occurs per side.
        distinct: whether the two images must be of different classes, if both are of one data set.
    """

    overlap: int
    canvas: int
    left: tuple[int, int]
    right: tuple[int, int]
    side: int
    repeats: int
    distinct: bool


def layout(variant: str, overlap: int | None = None) -> Layout:
    """The places of the two images in a paper.

    `overlap` is the number of rows, and of columns, that the two boxes share before they move. The boxes share
    `overlap²` of their 784 pixels, and the right box is `28 - overlap` pixels lower and further right.

    - `"mgda"`, after Sener and Koltun 2018: the left box is at row and column 0 of 36x36, the right box at 6, that is
      `overlap=22`. The boxes do not move. The canvas is resized to 28x28. Two rows and columns at the end stay empty,
      as in the authors' code.
    - `"pareto"`, after Lin et al. 2019: the left box is in the upper left corner, the right box in the lower right
      corner, that is `overlap=20`. Each box is moved by up to 4 pixels in every direction within the canvas, with
      uniform probability: the left row is 0 to 4 and the right row 4 to 8. Moved boxes share 20 to 28 rows, 24 on
      average. With less overlap the canvas grows to `56 - overlap`. With more overlap the canvas stays at 36, with the
      boxes in the middle, and sometimes the left box is lower or further right than the right box.

    Args:
        variant: `"mgda"` or `"pareto"`.
        overlap: 20 to 27 for `"mgda"`, 0 to 27 for `"pareto"`; None is the paper's. At 28, left and right would have
            the same place.

    Returns:
        `Layout`.

    Raises:
        TypeError: an overlap that is not a whole number.
        ValueError: an unknown variant, or an overlap outside its range.

    Example:
        >>> layout("pareto")
        Layout(overlap=20, canvas=36, left=(0, 4), right=(4, 8), side=36, repeats=2, distinct=True)
        >>> layout("mgda").right
        (6, 6)
    """
    check_choice("layout", "variant", variant, sorted(_OVERLAP))
    chosen = _OVERLAP[variant] if overlap is None else overlap
    least = 2 * SIDE - _CANVAS if variant == "mgda" else 0
    pixels: int = check_count("layout", f"overlap of variant {variant!r}", chosen, least=least, most=SIDE - 1)
    apart = SIDE - pixels
    if variant == "mgda":
        return Layout(pixels, _CANVAS, (0, 0), (apart, apart), side=SIDE, repeats=1, distinct=False)
    canvas = max(_CANVAS, SIDE + apart)
    left = (canvas - SIDE - apart) // 2

    def around(place: int) -> tuple[int, int]:
        return max(0, place - _JITTER), min(canvas - SIDE, place + _JITTER)

    return Layout(pixels, canvas, around(left), around(left + apart), side=canvas, repeats=2, distinct=True)


def pair(
    left: np.ndarray,
    right: np.ndarray,
    clash: Callable[[np.ndarray, np.ndarray], np.ndarray],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs, in random order: every entry of each side occurs exactly once.

    Both sides are permuted. Then each clashing pair exchanges right partners with another pair, which is drawn at
    random from all pairs where the exchange leaves no clash. If `clash` compares classes, such a pair exists as long as
    no class has more than half of the images.

    Args:
        left: int `[N]`.
        right: int `[N]`.
        clash: `(left, right) -> bool`, elementwise with NumPy's broadcasting, True for forbidden pairs.
        rng: source of everything random.

    Returns:
        Both sides, int `[N]`, one pair per row.

    Raises:
        ValueError: sides of unequal length, or a clashing pair without a partner for the exchange.

    Example:
        >>> same = lambda left, right: left % 2 == right % 2
        >>> left, right = pair(np.arange(6), np.arange(6), same, np.random.default_rng(0))
        >>> sorted(left.tolist()), sorted(right.tolist()), ((left + right) % 2).tolist()
        ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [1, 1, 1, 1, 1, 1])
    """
    if left.shape != right.shape:
        raise ValueError(f"pair: left and right must be of one length, found {left.shape} and {right.shape}")
    left, right = rng.permutation(left), rng.permutation(right)

    def mending(i: int, others: np.ndarray) -> np.ndarray:
        return others[~clash(left[i], right[others]) & ~clash(left[others], right[i])]

    for i in map(int, np.flatnonzero(clash(left, right))):
        if not clash(left[i], right[i]):
            continue  # an earlier exchange has mended it
        free = mending(i, rng.integers(len(left), size=_HANDFUL))
        if not len(free):  # seldom: to look at all of them for every pair would take half a minute
            free = mending(i, rng.permutation(len(left)))
        if not len(free):
            raise ValueError(f"pair: no partner for {left[i]} among {len(left)}: is one class more than half of them?")
        right[i], right[free[0]] = right[free[0]], right[i]
    return left, right


def overlay(
    left: np.ndarray, right: np.ndarray, left_places: np.ndarray, right_places: np.ndarray, canvas: int
) -> np.ndarray:
    """Two images on an empty canvas; where they overlap, the brighter pixel is seen.

    Args:
        left: uint8 `[N, h, w]`.
        right: uint8 `[N, h, w]`.
        left_places: int `[N, 2]`, row and column of the left image's upper left pixel.
        right_places: int `[N, 2]`, the same for the right one.
        canvas: side of the canvas, in pixels.

    Returns:
        uint8 `[N, canvas, canvas]`.

    Raises:
        ValueError: a place where an image would leave the canvas.

    Example:
        >>> bright, dark = np.full([1, 2, 2], 9, np.uint8), np.full([1, 2, 2], 5, np.uint8)
        >>> overlay(bright, dark, np.array([[0, 0]]), np.array([[1, 1]]), 3)[0].tolist()
        [[9, 9, 0], [9, 9, 5], [0, 5, 5]]
    """
    height, width = left.shape[1:]
    for places in (left_places, right_places):
        if (places < 0).any() or (places > np.array([canvas - height, canvas - width])[None, :]).any():
            raise ValueError(
                f"overlay: images of {height}x{width} at places {places.min(0).tolist()} to {places.max(0).tolist()} "
                f"leave a canvas of side {canvas}"
            )
    canvases = np.zeros((len(left), canvas, canvas), np.uint8)
    # A view of every box of the canvas, by row and column of its first pixel: writing to it writes to the canvas.
    boxes = np.lib.stride_tricks.sliding_window_view(canvases, (height, width), (1, 2), writeable=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
    rows = np.arange(len(left))
    boxes[rows, left_places[:, 0], left_places[:, 1]] = left
    there = (rows, right_places[:, 0], right_places[:, 1])
    boxes[there] = np.maximum(boxes[there], right)
    return canvases


def resize(images: np.ndarray, side: int) -> np.ndarray:
    """Square images, resized by nearest neighbours: new pixel i is old pixel `floor((i + 1/2) S / side)`.

    Args:
        images: `[N, S, S]`.
        side: the new side.

    Returns:
        `[N, side, side]`, same dtype.

    Example:
        >>> resize(np.arange(16).reshape(1, 4, 4), 2).tolist()
        [[[5, 7], [13, 15]]]
    """
    if side == images.shape[1]:
        return images
    nearest = (2 * np.arange(side) + 1) * images.shape[1] // (2 * side)
    return images[:, nearest[:, None], nearest[None, :]]

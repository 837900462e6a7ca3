"""The view `jigsaw`: images whose cells are shuffled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.checks import check_count, expect, found
from mtljax.data.views.common import divides, height_and_width, images
from mtljax.types import Array, Key


def jigsaw(grid: int | tuple[int, int] = 2, *, permutations: Any = None) -> Callable[[Key, Any], tuple[Array, Array]]:
    """Predict how the cells of an image were shuffled: input cell i is cell `permutations[k][i]` of x; the target is k.

    Cells are numbered row by row. k is uniform over the permutations.

    Noroozi and Favaro, "Unsupervised learning of visual representations by solving jigsaw puzzles", ECCV 2016;
    Carlucci, D'Innocente, Bucci, Caputo and Tommasi, "Domain generalization by solving jigsaw puzzles", CVPR 2019.

    Departures: Noroozi and Favaro give each cell to its own network, with gaps between cells. Here the cells stay on
    one canvas, as in Carlucci et al., so that every trunk accepts them.

    Args:
        grid: number of cells along each side, or `(rows, columns)`; H and W must be multiples.
        permutations: int `[P, rows * columns]`, P different permutations, as from `far_permutations`. None (default):
            all permutations in lexicographic order, for up to four cells; a grid of 2 by 2 has 24 classes.

    Returns:
        View `(key, x [B, H, W, C]) -> (inputs like x, targets int32 [B])`, P classes; any dtype.

    Raises:
        TypeError: a grid that is not made of integers.
        ValueError: a grid of one cell, or of more than four without permutations; rows that are not permutations, are
            repeated, or are fewer than two; from the view, images that are not `[B, H, W, C]`, or H or W that is not a
            multiple.

    Example:
        >>> x = jnp.arange(4).reshape(1, 2, 2, 1)
        >>> inputs, targets = jigsaw(2)(jax.random.key(0), x)
        >>> tuple(inputs.ravel().tolist()) == list(itertools.permutations(range(4)))[int(targets[0])]
        True
    """
    rows, columns = height_and_width("jigsaw", "grid", grid)
    cells = rows * columns
    if cells < 2:
        raise ValueError(f"jigsaw: grid must have at least two cells, found {grid}")
    if permutations is None:
        if cells > 4:
            raise ValueError(
                f"jigsaw: a grid of {rows} by {columns} has {math.factorial(cells)} permutations; choose some, "
                f"for example permutations=far_permutations({cells}, 100)"
            )
        permutations = list(itertools.permutations(range(cells)))
    table = np.asarray(permutations)
    expect(table.dtype.kind in "iu", "jigsaw", "permutations", "integers", permutations, TypeError)
    if table.ndim != 2 or table.shape[1] != cells or not (np.sort(table, axis=1) == np.arange(cells)).all():
        raise ValueError(
            f"jigsaw: permutations must be [P, {cells}], each row an order of 0 to {cells - 1}, found {found(table)}"
        )
    if not 2 <= len(table) == len(np.unique(table, axis=0)):
        raise ValueError(f"jigsaw: permutations must be at least two, all different, found {len(table)} rows")
    table = table.astype(np.int32)

    def view(key: Key, x: Any) -> tuple[Array, Array]:
        x = images("jigsaw", x)
        divides("jigsaw", (rows, columns), "grid", x.shape)
        size, height, width, channels = x.shape
        which = jax.random.randint(key, (size,), 0, len(table), jnp.int32)
        h, w = height // rows, width // columns
        pieces = x.reshape(size, rows, h, columns, w, channels).swapaxes(2, 3).reshape(size, cells, h, w, channels)
        pieces = jnp.take_along_axis(pieces, jnp.asarray(table)[which][:, :, None, None, None], axis=1)
        pieces = pieces.reshape(size, rows, columns, h, w, channels).swapaxes(2, 3)
        return pieces.reshape(x.shape), which

    return view


def far_permutations(cells: int, count: int) -> np.ndarray:
    """Permutations that differ from one another in many places, for `jigsaw`.

    The choice is greedy, as algorithm 1 of Noroozi and Favaro (2016). The first permutation is the identity. Each next
    one has the largest Hamming distance to the permutations chosen before.

    Departures: their algorithm starts at random and compares sums of distances. Here the smallest distance to a chosen
    permutation decides, then the sum of distances, then lexicographic order. So nothing is random, and no two
    permutations are close.

    Args:
        cells: from 2 to 9; all `cells!` permutations are compared, which takes up to seconds. Compute the result once,
            outside the step.
        count: from 2 to `cells!`.

    Returns:
        NumPy int32 `[count, cells]`.

    Raises:
        TypeError: arguments that are not integers.
        ValueError: arguments outside their range.

    Example:
        >>> far_permutations(4, 3).tolist()
        [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1]]
    """
    cells, count = (
        check_count("far_permutations", "cells", cells, least=2),
        check_count("far_permutations", "count", count, least=2),
    )
    if cells > 9:
        raise ValueError(f"far_permutations: cells must be at most 9, found {cells}: there are {cells}! permutations")
    if count > math.factorial(cells):
        raise ValueError(
            f"far_permutations: {cells} cells have {math.factorial(cells)} permutations, asked for {count}"
        )
    every = np.array(list(itertools.permutations(range(cells))), np.int8)
    chosen = [0]
    least, total = np.full(len(every), cells, np.int64), np.zeros(len(every), np.int64)
    while len(chosen) < count:
        distance = (every != every[chosen[-1]][None, :]).sum(1)
        least, total = np.minimum(least, distance), total + distance
        # One number ranks by both, since the sum of distances is at most cells times count.
        chosen.append(int(np.argmax(least * (cells * count + 1) + total)))
    return every[chosen].astype(np.int32)

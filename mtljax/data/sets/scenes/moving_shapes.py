"""The moving_shapes data set: objects that move and hide one another, and four tasks on one stream of frames."""

from __future__ import annotations

import numpy as np

from mtljax.checks import check_count, expect
from mtljax.data.sets.scenes.motion import MovingShapes, random_sequence
from mtljax.sharing.frames.network import is_sequence
from mtljax.types import Batch

STRIDE = 4  # side of a cell of the target grid, in pixels

_SPLITS = ("train", "validation", "test")


def load_moving_sequences(
    *,
    num_sequences: tuple[int, int, int] = (120, 40, 40),
    length: int = 20,
    size: int = 48,
    max_objects: int = 6,
    seed: int = 0,
) -> dict[str, MovingShapes]:
    """Sequences of moving shapes whose identities are hard to follow from places alone; generated in seconds.

    Objects start in the frame or enter from a side towards its middle. Their velocities change slowly, and sometimes
    they turn. 30 % of objects bounce off the sides; the others leave and are replaced. An object in a later slot is in
    front of objects in earlier slots. In one sequence, most objects have the same shape, and all have nearly the same
    colour. The hue of a mark in the middle, drawn independently per object, distinguishes them.

    Args:
        num_sequences: S of the splits train, validation and test, each at least 1. A longer split begins with the
            sequences of a shorter one.
        length: L, frames, at least 1.
        size: H and W, pixels; a multiple of 4, at least 24.
        max_objects: K, at least 1.
        seed: non-negative integer, from which everything random is drawn.

    Returns:
        Dict with `"train"`, `"validation"` and `"test"`, the same to the bit for the same arguments.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> load_moving_sequences(num_sequences=(2, 1, 1), length=3, size=24)["test"].box.shape
        (1, 3, 6, 4)
    """
    where, expected = "load_moving_sequences", f"a sequence of integers, one for each of {_SPLITS}"
    expect(is_sequence(num_sequences), where, "num_sequences", expected, num_sequences, TypeError)
    expect(len(num_sequences) == len(_SPLITS), where, "num_sequences", expected, num_sequences, ValueError)
    for i, number in enumerate(num_sequences):
        check_count(where, f"num_sequences[{i}]", number)
    check_count(where, "length", length)
    check_count(where, "max_objects", max_objects)
    check_count(where, "size", size, least=24)
    expect(size % STRIDE == 0, where, "size", f"a multiple of {STRIDE}", size, ValueError)
    check_count(where, "seed", seed, least=0)
    found = {}
    for split, (name, count) in enumerate(zip(_SPLITS, num_sequences, strict=True)):
        generators = [np.random.default_rng([seed, split, s]) for s in range(count)]
        parts = [random_sequence(rng, length, size, max_objects) for rng in generators]
        found[name] = MovingShapes(*(np.stack(arrays) for arrays in zip(*parts, strict=True)))
    return found


def load_moving_shapes(
    *,
    num_sequences: tuple[int, int, int] = (120, 40, 40),
    length: int = 20,
    size: int = 48,
    max_objects: int = 6,
    seed: int = 0,
) -> dict[str, Batch]:
    """Pairs of consecutive frames and their four tasks: `as_pairs` of each split of `load_moving_sequences`.

    Arguments and what they raise are those of `load_moving_sequences`; `length` must be at least 2.

    Returns:
        Dict with `"train"`, `"validation"` and `"test"`, each a `Batch` of NumPy arrays, 60 MB per thousand pairs.
        Example `s (L - 1) + t` is frames t and t + 1 of sequence s.

    Example:
        >>> splits = load_moving_shapes(num_sequences=(2, 1, 1), length=3, size=24, max_objects=2)
        >>> splits["train"].inputs.shape
        (4, 2, 24, 24, 3)
    """
    sequences = load_moving_sequences(
        num_sequences=num_sequences, length=length, size=size, max_objects=max_objects, seed=seed
    )
    return {name: as_pairs(part) for name, part in sequences.items()}


def as_pairs(sequences: MovingShapes) -> Batch:
    """Consecutive frames as examples, with targets on a grid of cells of 4x4 pixels, after CenterNet and CenterTrack.

    An object's cell is the one that holds the centre of its box. If several objects have the same cell, the front
    object gets it, and the others have no target. G is H / 4, the number of cells per side. The earlier frame is first.

    Inputs: float32 `[N, 2, H, W, 3]`, N = S (L - 1). Tasks:

    - `detect`, both frames: `heatmap` float32 `[N, 2, G, G]`, `max_k exp(-|cell - cell_k|^2 / (2 s_k^2))` over objects
      k, 1 at their cells, with `s_k` a sixth of the box's mean side; `center` bool `[N, 2, G, G]`, those cells;
      `offset` float32 `[N, 2, G, G, 2]`, x and y of the box's centre in its cell, from 0 to 1; `size` float32
      `[N, 2, G, G, 2]`, width and height over the frame's side.
    - `classify`, both frames: `label` int32 `[N, 2, G, G]` and `center`.
    - `associate`: `cell` int32 `[N, 2, K]`, a place in the flattened grid, and `identity` int32 `[N, 2, K]`, 0 where
      the slot has no target.
    - `motion`: `displacement` float32 `[N, G, G, 2]`, pixels from the first frame to the second, at the second's
      `center` bool `[N, G, G]`, here the cells of objects that also have a cell in the first frame.

    Entries of other cells are 0. `mask` is False where a task has no target: pairs without objects for `classify`,
    pairs without an object that has a cell in both frames for `associate` and `motion`.

    X. Zhou, D. Wang and P. Krähenbühl, Objects as points, 2019, arXiv:1904.07850; X. Zhou, V. Koltun and P. Krähenbühl,
    Tracking objects as points, ECCV 2020, arXiv:2004.01177.

    Departures: the Gaussians of Objects as points have another width.

    Args:
        sequences: of at least 2 frames.

    Returns:
        `Batch` of NumPy arrays.

    Raises:
        ValueError: sequences of one frame.

    Example:
        >>> batch = as_pairs(load_moving_sequences(num_sequences=(1, 1, 1), length=4, size=24)["test"])
        >>> batch.targets["motion"]["displacement"].shape
        (3, 6, 6, 2)
    """
    expect(isinstance(sequences, MovingShapes), "as_pairs", "sequences", "MovingShapes", sequences, TypeError)
    if sequences.frames.shape[1] < 2:
        raise ValueError(f"as_pairs: sequences must have at least 2 frames, found {sequences.frames.shape[1]}")
    grid = sequences.frames.shape[2] // STRIDE
    place = sequences.box[..., :2] * np.float32(grid)
    index = np.minimum(place.astype(np.int32), grid - 1)  # x and y
    cell = index[..., 1] * grid + index[..., 0]
    # Later slots are in front of slot k.
    rivals = (cell[..., :, None] == cell[..., None, :]) & sequences.present[..., None, :]
    owned = sequences.present & ~np.triu(rivals, 1).any(-1)
    known = np.zeros_like(owned)  # True where the object also has a cell in the frame before
    known[:, 1:] = owned[:, 1:] & owned[:, :-1] & (sequences.identity[:, 1:] == sequences.identity[:, :-1])

    def on_grid(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        array = np.zeros((*where.shape[:2], grid * grid, *values.shape[3:]), values.dtype)
        s, t, _ = np.nonzero(where)
        array[s, t, cell[where]] = values[where]
        return array.reshape(*where.shape[:2], grid, grid, *values.shape[3:])

    def pairs(array: np.ndarray) -> np.ndarray:
        both = np.stack([array[:, :-1], array[:, 1:]], axis=2)
        return both.reshape(-1, *both.shape[2:])

    def second(array: np.ndarray) -> np.ndarray:
        return array[:, 1:].reshape(-1, *array.shape[2:])

    center = pairs(on_grid(owned, owned))
    identity = pairs(np.where(owned, sequences.identity, 0))
    targets = {
        "detect": {
            "heatmap": pairs(_heatmap(index, sequences.box[..., 2:], sequences.present, grid)),
            "center": center,
            "offset": pairs(on_grid(place - index.astype(np.float32), owned)),
            "size": pairs(on_grid(sequences.box[..., 2:], owned)),
        },
        "classify": {"label": pairs(on_grid(sequences.label, owned)), "center": center},
        "associate": {"cell": pairs(np.where(owned, cell, 0)), "identity": identity},
        "motion": {
            "displacement": second(on_grid(sequences.velocity, known)),
            "center": second(on_grid(known, known)),
        },
    }
    tracked = second(known.any(-1))
    mask = {"classify": center.any((1, 2, 3)), "associate": tracked, "motion": tracked}
    return Batch(inputs=pairs(sequences.frames), targets=targets, mask=mask)


def _heatmap(index: np.ndarray, sides: np.ndarray, present: np.ndarray, grid: int) -> np.ndarray:
    spread = sides.mean(-1) * grid / 6
    steps = np.arange(grid)
    x, y = (np.square(steps - index[..., i, None]) for i in (0, 1))
    square = y[..., :, None] + x[..., None, :]
    bumps = np.exp(-square / (2 * np.square(np.where(present, spread, 1)))[..., None, None])
    return np.where(present[..., None, None], bumps, 0).max(2).astype(np.float32)

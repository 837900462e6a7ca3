"""Batches for training, from arrays in memory or rows on disk: sharded by process, prefetched, resumed to the bit."""

from __future__ import annotations

import atexit
import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np

from mtljax.checks import check_callable, check_count, check_flag, check_number, expect
from mtljax.data.lengths import leading_length
from mtljax.types import PyTree


class Stream(Protocol):
    """An iterator of batches whose position can be saved and restored.

    `get_state()` returns the position after the last batch that the caller received, as values that JSON can hold.
    Batches that were only prefetched do not count. `set_state(state)` restores the position: the same batches follow.
    """

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...

    def get_state(self) -> dict[str, Any]:
        """The position of the stream."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a saved position."""
        ...


def batches(
    source: Any,
    *,
    batch_size: int,
    seed: int,
    shuffle: bool = True,
    weights: np.ndarray | None = None,
    epochs: int | None = None,
    shard: tuple[int, int] = (0, 1),
    collate: Callable[[list[Any]], PyTree] | None = None,
    device: Any = None,
    prefetch: int | None = None,
    start_step: int = 0,
) -> Stream:
    """Batches of `source` for training, each a pure function of `(seed, step)`.

    Epoch e is the permutation of the N examples drawn from `(seed, e)`. Batch s is slice `s mod n` of epoch `s // n`,
    with `n = N // batch_size` steps per epoch. Each epoch leaves out `N mod batch_size` examples, others each time. The
    stream has no other state.

    Sharding. `batch_size` counts the examples of all processes. Process i of c gets the i-th of c equal parts of every
    batch. The parts of all processes, in order, are the batch of a run with one process. So the examples and their
    order do not depend on the number of processes. Every process needs access to all of `source`, and reads only its
    own rows.

    Resuming. The position is one number, the step. With `fit`, pass `lambda start: batches(..., start_step=start)`, or
    the iterator itself: `fit` then saves its position in the checkpoint.

    Args:
        source: `Batch`, dict of `Batch` of equal length, or any pytree of arrays `[N, ...]` in memory. With `collate`,
            a random-access source: an object with `__len__`, and `__getitems__(list of int)` or `__getitem__(int)`,
            such as `tfds.data_source` returns.
        batch_size: examples per batch over all processes, from 1 to N; a multiple of the number of processes.
        seed: non-negative integer; everything random is drawn from it.
        shuffle: if False, every epoch is in the order of the source.
        weights: `[N]`; examples are drawn in proportion to these numbers, with replacement, instead of by permutations
            (see `mtljax.losses.sampling_weights`). An epoch has n steps here too.
        epochs: number of epochs; None (default) for an endless stream.
        shard: `(index, count)` of this process, for example `(jax.process_index(), jax.process_count())`.
        collate: makes a batch of a list of rows, for a random-access source; None for arrays in memory.
        device: where batches are put: a device, or a sharding of leaves `[batch_size, ...]`. None leaves NumPy arrays.
            A sharding over the devices of several processes gives global arrays `[batch_size, ...]`.
        prefetch: number of batches that a thread fetches, and puts on the device, in advance. None (default) is 2 with
            `device` or `collate` and 0 otherwise, since gathering rows in memory is faster than passing them between
            threads.
        start_step: number of batches to skip; skipping costs nothing.

    Returns:
        `Stream` (a Grain iterator) of trees like `source`, or like the result of `collate`, with leaves
        `[batch_size / count, ...]`; global arrays have `[batch_size, ...]`.

    Raises:
        ValueError: leaves of unequal length, `batch_size` outside 1 to N or not divisible by the number of processes,
            a `shard` whose index is not below its count, weights that are not finite, not negative, `[N]` and
            somewhere positive, weights without shuffling, negative `seed`, `prefetch` or `start_step`, `epochs` below
            1.
        TypeError: a random-access source without `__len__` or both ways to get items.

    Example:
        >>> import mtljax
        >>> data = mtljax.Batch(np.arange(6), {"a": np.arange(6)})
        >>> stream = batches(data, batch_size=2, seed=0)
        >>> first, state, second = next(stream), stream.get_state(), next(stream)
        >>> stream.set_state(state)
        >>> bool((next(stream).inputs == second.inputs).all())
        True
    """
    import grain  # slow to import, and only training needs it

    pair = isinstance(shard, tuple) and len(shard) == 2
    expect(pair, "batches", "shard", "a pair (index, count)", shard, TypeError)
    count = check_count("batches", "shard[1]", shard[1])
    index = check_count("batches", "shard[0]", shard[0], least=0, most=count - 1)
    check_flag("batches", "shuffle", shuffle)
    if collate is not None:
        check_callable("batches", "collate", collate)
    size, fetch = (_in_memory if collate is None else functools.partial(_random_access, collate=collate))(source)
    check_count("batches", "batch_size", batch_size, most=size)
    if batch_size % count:
        raise ValueError(f"batches: batch_size must be a multiple of the {count} processes, found {batch_size}")
    prefetch = (0 if device is None and collate is None else 2) if prefetch is None else prefetch
    for what, number in (("seed", seed), ("start_step", start_step), ("prefetch", prefetch)):
        check_count("batches", what, number, least=0)
    if epochs is not None:
        check_count("batches", "epochs", epochs)
    if weights is None:
        rows_of = _row_order(size, batch_size, seed, shuffle=shuffle)
    else:
        if not shuffle:
            raise ValueError("batches: shuffle must be True where there are weights, found False")
        rows_of = _weighted_rows(weights, size, batch_size, seed)
    own = slice(index * (batch_size // count), (index + 1) * (batch_size // count))

    def batch_at(step: Any) -> PyTree:
        return fetch(rows_of(int(step))[own])

    steps = sys.maxsize if epochs is None else epochs * (size // batch_size)
    synchronous = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    dataset = grain.MapDataset.range(steps).map(batch_at).to_iter_dataset(synchronous)
    if device is not None:
        dataset = dataset.map(functools.partial(_placed, device=device))
    if prefetch:
        dataset = grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=prefetch)
    stream = iter(dataset)
    grain.experimental.set_next_index(stream, start_step)
    if prefetch:
        atexit.register(_close, weakref.ref(stream))
    return stream


def _row_order(size: int, batch_size: int, seed: int, *, shuffle: bool = True) -> Callable[[int], np.ndarray]:
    """The examples of a batch, as a pure function of the step.

    Args:
        size: number of examples, B.
        batch_size: examples per batch, from 1 to B.
        seed: non-negative integer; epoch e is the permutation drawn from `(seed, e)`.
        shuffle: if False, every epoch is in the order of the data.

    Returns:
        `rows_of(step) -> int64 [batch_size]`.

    Example:
        >>> rows_of = _row_order(5, 2, seed=0, shuffle=False)
        >>> [rows_of(step).tolist() for step in range(3)]
        [[0, 1], [2, 3], [0, 1]]
    """
    steps = size // batch_size

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(size)

    def rows_of(step: int) -> np.ndarray:
        epoch, position = divmod(step, steps)
        part = slice(position * batch_size, (position + 1) * batch_size)
        return order(epoch)[part] if shuffle else np.arange(*part.indices(size))

    return rows_of


def _in_memory(source: PyTree) -> tuple[int, Callable[[np.ndarray], PyTree]]:
    size = leading_length(source, "batches")
    arrays = jax.tree.map(np.asarray, source)
    return size, lambda rows: jax.tree.map(lambda array: array[rows], arrays)


def _random_access(source: Any, collate: Callable[[list[Any]], PyTree]) -> tuple[int, Callable[[np.ndarray], PyTree]]:
    several = getattr(source, "__getitems__", None)
    if not hasattr(source, "__len__") or (several is None and not hasattr(source, "__getitem__")):
        raise TypeError(
            "batches: with collate, source must have __len__, and __getitem__ or __getitems__; "
            f"found {type(source).__name__}"
        )
    get = several or (lambda rows: [source[row] for row in rows])
    return len(source), lambda rows: collate(get(rows.tolist()))


def _weighted_rows(weights: Any, size: int, batch_size: int, seed: int) -> Callable[[int], np.ndarray]:
    """Rows drawn with replacement, by inversion of the cumulative weights."""
    weights = np.asarray(check_number("batches", "weights", weights, least=0, shape=(size,)), np.float64)
    expect(bool(weights.any()), "batches", "weights", "somewhere positive", weights, ValueError)
    edges = np.cumsum(weights / weights.max())

    def rows_of(step: int) -> np.ndarray:
        draws = np.random.default_rng([seed, step]).random(batch_size) * edges[-1]
        # By rounding, a draw may equal the last edge, which lies behind examples of weight 0.
        return np.minimum(np.searchsorted(edges, draws, side="right"), np.flatnonzero(weights)[-1])

    return rows_of


def _placed(batch: PyTree, device: Any) -> PyTree:
    if getattr(device, "is_fully_addressable", True):
        return jax.device_put(batch, device)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(device, leaf), batch)


def _close(stream: weakref.ref[Any]) -> None:
    """Stop the thread of a stream that is still open when the interpreter ends.

    Grain's own clean-up runs after its modules are gone, and prints an error; so `close` does nothing by then.
    """
    alive = stream()
    if alive is not None:
        alive.close()
        alive.close = lambda: None

"""Draws, which divide the examples of a step among tasks: pure functions of the seed, the step and the rates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Draw = Callable[[int, int, np.ndarray, int], np.ndarray]


def one_task(seed: int, step: int, rates: np.ndarray, batch_size: int) -> np.ndarray:
    """All examples of the step are of one task, which is drawn by the rates.

    Args:
        seed: non-negative integer.
        step: from 0; the seed and the step determine the draw.
        rates: `[T]`, which sum to 1.
        batch_size: B.

    Returns:
        Numbers of examples per task, `[T]`, which sum to B.

    Example:
        >>> one_task(0, 0, np.array([0.0, 1.0]), 8).tolist()
        [0, 8]
    """
    edges = np.cumsum(rates)
    # By rounding, a draw may equal the last edge, which lies behind tasks of rate 0.
    chosen = min(np.searchsorted(edges, _rng(seed, step).random() * edges[-1], side="right"), np.flatnonzero(rates)[-1])
    return batch_size * (np.arange(len(rates)) == chosen)


def round_robin(seed: int, step: int, rates: np.ndarray, batch_size: int) -> np.ndarray:
    """All examples of the step are of one task; tasks take turns, in task order. Rates and seed have no effect.

    Example:
        >>> [round_robin(0, step, np.ones(3) / 3, 8).tolist() for step in (0, 4)]
        [[8, 0, 0], [0, 8, 0]]
    """
    return batch_size * (np.arange(len(rates)) == step % len(rates))


def multinomial(seed: int, step: int, rates: np.ndarray, batch_size: int) -> np.ndarray:
    """Each of the B examples draws its task independently, by the rates.

    Example:
        >>> int(multinomial(0, 0, np.array([0.5, 0.5]), 8).sum())
        8
    """
    return _rng(seed, step).multinomial(batch_size, rates / rates.sum())


def largest_remainder(seed: int, step: int, rates: np.ndarray, batch_size: int) -> np.ndarray:
    """B examples divided in proportion to the rates, the same way every step: `floor(B r_k)`, then the remainders.

    The examples left after rounding down go to the tasks with the largest remainders, one example per task. With fixed
    rates, a task with a small share may never get an example; `systematic` gives every task some.

    Example:
        >>> largest_remainder(0, 0, np.array([0.47, 0.16, 0.37]), 10).tolist()
        [5, 1, 4]
    """
    quota = batch_size * rates
    counts = np.floor(quota).astype(int)
    order = np.argsort(counts - quota, kind="stable")  # largest remainder first
    counts[order[: batch_size - counts.sum()]] += 1
    return counts


def systematic(seed: int, step: int, rates: np.ndarray, batch_size: int) -> np.ndarray:
    """B examples divided in proportion to the rates, rounded at random: off by less than 1, and unbiased.

    Task k occupies an interval of length `B r_k` on a line. The examples are the points `u, u + 1, u + 2, ...`, with
    one u drawn from 0 to 1: each point is an example of the task in whose interval it lies.

    W. G. Madow and L. H. Madow, "On the theory of systematic sampling", Annals of Mathematical Statistics 15, 1944.

    Example:
        >>> systematic(0, 0, np.array([0.5, 0.5]), 8).tolist()
        [4, 4]
    """
    edges = np.cumsum(rates) * (batch_size / rates.sum())
    # Rounding must neither leave an interval behind the last task with a positive rate, nor add an example.
    edges[np.flatnonzero(rates)[-1] :] = batch_size
    reached = np.minimum(np.floor(edges + _rng(seed, step).random()), batch_size).astype(int)
    return np.diff(reached, prepend=0)


def _rng(seed: int, step: int) -> np.random.Generator:
    return np.random.default_rng([seed, step, 1])

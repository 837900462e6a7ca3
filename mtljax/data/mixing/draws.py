"""How the examples of a step are divided among tasks: pure functions of the seed, the step and the tasks' rates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Draw = Callable[[int, int, np.ndarray, int], np.ndarray]


def one_task(seed: int, step: int, rates: np.ndarray, batch_size: int) -> np.ndarray:
    """All examples of the step from one task, drawn with the tasks' rates.

    Args:
        seed: non-negative integer.
        step: from 0; together with the seed it decides the draw.
        rates: `[T]`, which sum to 1.
        batch_size: B.

    Returns:
        Examples of each task `[T]`, which sum to B.

    Example:
        >>> one_task(0, 0, np.array([0.0, 1.0]), 8).tolist()
        [0, 8]
    """
    edges = np.cumsum(rates)
    # Rounding may carry a draw to the very end, behind tasks of rate 0.
    chosen = min(np.searchsorted(edges, _rng(seed, step).random() * edges[-1], side="right"), np.flatnonzero(rates)[-1])
    return batch_size * (np.arange(len(rates)) == chosen)


def round_robin(seed: int, step: int, rates: np.ndarray, batch_size: int) -> np.ndarray:
    """All examples of the step from one task, each task in its turn, in task order; rates and seed have no say.

    Example:
        >>> [round_robin(0, step, np.ones(3) / 3, 8).tolist() for step in (0, 4)]
        [[8, 0, 0], [0, 8, 0]]
    """
    return batch_size * (np.arange(len(rates)) == step % len(rates))


def multinomial(seed: int, step: int, rates: np.ndarray, batch_size: int) -> np.ndarray:
    """B examples divided among tasks as if each drew its task by itself.

    Example:
        >>> int(multinomial(0, 0, np.array([0.5, 0.5]), 8).sum())
        8
    """
    return _rng(seed, step).multinomial(batch_size, rates / rates.sum())


def largest_remainder(seed: int, step: int, rates: np.ndarray, batch_size: int) -> np.ndarray:
    """B examples divided in proportion to the rates, the same way every step: `floor(B r_k)`, then the remainders.

    What is left after rounding down goes to the tasks with the largest remainders, one each. A task whose share stays
    below the others' remainders gets nothing, ever: see `systematic`.

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
    """B examples divided in proportion to the rates, rounded at random: never more than 1 off, and right on average.

    The examples are the points `u, u + 1, u + 2, ...` with one u drawn from 0 to 1, on a line on which task k occupies
    a stretch of length `B r_k`. (W. G. Madow and L. H. Madow, "On the theory of systematic sampling", Annals of
    Mathematical Statistics 15, 1944.)

    Example:
        >>> systematic(0, 0, np.array([0.5, 0.5]), 8).tolist()
        [4, 4]
    """
    edges = np.cumsum(rates) * (batch_size / rates.sum())
    # Rounding must neither leave a stretch behind the last task with a rate, nor make room for one example more.
    edges[np.flatnonzero(rates)[-1] :] = batch_size
    reached = np.minimum(np.floor(edges + _rng(seed, step).random()), batch_size).astype(int)
    return np.diff(reached, prepend=0)


def _rng(seed: int, step: int) -> np.random.Generator:
    return np.random.default_rng([seed, step, 1])

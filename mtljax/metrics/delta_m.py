"""One number for many tasks: the mean relative change against a baseline, and the mean rank among methods.

The functions read finished results on the host, in float64; they cannot be traced.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from mtljax.checks import check_number, expect


def delta_m(
    metrics: npt.ArrayLike,
    baseline: npt.ArrayLike,
    *,
    higher_is_better: npt.ArrayLike,
    task_of_metric: Sequence[str] | None = None,
) -> np.ndarray:
    """Mean relative change against a baseline, in percent; positive is worse.

    `delta_m = 100 / M * sum_k (-1)^{l_k} (M_k - B_k) / B_k`, with `l_k = 1` where higher is better and 0 elsewhere.

    K.-K. Maninis, I. Radosavovic and I. Kokkinos, Attentive single-tasking of multiple tasks, CVPR 2019,
    arXiv:1904.08918.

    Departures: the sign. Here a drop in performance is positive and lower is better, as in the tables of CAGrad,
    Nash-MTL, FAMO and FairGrad; in Maninis et al. a gain is positive. The mean is over all metrics by default, as in
    those tables. With `task_of_metric` it is over tasks, of the means over each task's metrics.

    Args:
        metrics: `[..., M]`, the metrics of a method; leading axes may be seeds or methods.
        baseline: `[M]`, usually the metrics of single-task training; all above 0, since a change relative to a negative
            number has the opposite sign.
        higher_is_better: bool `[M]`.
        task_of_metric: names `[M]`, the task of each metric; None (default) gives all metrics equal weight.

    Returns:
        float64 `[...]`, in percent.

    Raises:
        ValueError: shapes that do not match, or a baseline that is not finite and above 0.
        TypeError: metrics or a baseline that are not numbers, `higher_is_better` that is not bool, `task_of_metric`
            that is not names.

    Example:
        >>> float(delta_m([0.9, 2.0], [1.0, 4.0], higher_is_better=[True, False]))  # 10 % worse, 50 % better
        -20.0
    """
    values, base = _numbers("delta_m", "metrics", metrics), _numbers("delta_m", "baseline", baseline)
    if base.ndim != 1 or values.shape[-1:] != base.shape:
        raise ValueError(
            f"delta_m: metrics must be [..., M] and baseline [M], found {list(values.shape)} and {list(base.shape)}"
        )
    sign = _signs("delta_m", higher_is_better, len(base))
    check_number("delta_m", "baseline", base, above=0, shape=("M",))
    change = 100.0 * sign * (values - base) / base
    if task_of_metric is None:
        return np.mean(change, axis=-1)
    names = isinstance(task_of_metric, list | tuple) and all(isinstance(task, str) for task in task_of_metric)
    expect(names, "delta_m", "task_of_metric", "a sequence of names", task_of_metric, TypeError)
    if len(task_of_metric) != len(base):
        raise ValueError(f"delta_m: task_of_metric must name {len(base)} metrics' tasks, found {list(task_of_metric)}")
    tasks = np.array(task_of_metric)
    return np.mean([np.mean(change[..., tasks == task], axis=-1) for task in dict.fromkeys(task_of_metric)], axis=0)


def mean_rank(table: npt.ArrayLike, *, higher_is_better: npt.ArrayLike) -> np.ndarray:
    """Each method's mean rank over metrics; 1 is best, and ties share the mean of their ranks.

    Args:
        table: `[N, M]`, one row per method, one column per metric. Papers leave out the row of single-task training.
        higher_is_better: bool `[M]`.

    Returns:
        float64 `[N]`, from 1 to N.

    Raises:
        ValueError: a table that is not `[N, M]` or holds NaN, or `higher_is_better` of another length.
        TypeError: a table that is not numbers, `higher_is_better` that is not bool.

    Example:
        >>> mean_rank([[0.9, 1.0], [0.8, 1.0]], higher_is_better=[True, False]).tolist()
        [1.25, 1.75]
    """
    values = _numbers("mean_rank", "table", table)
    if values.ndim != 2:
        raise ValueError(f"mean_rank: table must be [N, M], found {list(values.shape)}")
    if np.isnan(values).any():
        raise ValueError("mean_rank: table must hold numbers that can be ranked, found NaN")
    sign = _signs("mean_rank", higher_is_better, values.shape[1])
    mine, other = (sign * values)[:, None], (sign * values)[None]
    better, tied = np.sum(other < mine, axis=1), np.sum(other == mine, axis=1)  # tied counts the method itself
    return np.mean(better + (tied + 1) / 2, axis=1)


def _numbers(caller: str, what: str, value: npt.ArrayLike) -> np.ndarray:
    """Real numbers as float64; NaN stays."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of unequal length
        array = np.asarray(None)
    real = array.dtype != bool and (array.dtype.kind in "iuf" or jnp.issubdtype(array.dtype, np.floating))
    expect(real, caller, what, "real numbers", value, TypeError)
    return array.astype(np.float64)


def _signs(caller: str, higher_is_better: npt.ArrayLike, size: int) -> np.ndarray:
    """-1 where higher is better and 1 elsewhere: after multiplication, lower is better everywhere."""
    higher = np.asarray(higher_is_better)
    if higher.dtype != bool:
        raise TypeError(f"{caller}: higher_is_better must be bool, found {higher.dtype}")
    if higher.shape != (size,):
        raise ValueError(f"{caller}: higher_is_better must be [{size}], one per metric, found {list(higher.shape)}")
    return np.where(higher, -1.0, 1.0)

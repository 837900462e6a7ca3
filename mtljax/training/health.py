"""Warnings during a run in which a task, a penalty or a method does not work as intended."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from mtljax.banks import ByTask
from mtljax.solvers import TRUSTED

FIRST, HELD = 10, 200
READ = ("below", "losses", "nonfinite", "penalty", "penalty_nonfinite")


def watch(start: int, num_steps: int) -> Callable[[int, Any, dict[str, Any] | None], None]:
    """Make `look(done, metrics, record)`, to be called after every step; it warns once per problem.

    It warns of four problems:

    * a task whose loss is below what the method accepts (the metric `below`), at the first record that shows it;
    * a penalty whose value or gradient is not finite, at the first record that shows it;
    * a task that was inactive in more than half of the steps because its loss or gradient was not finite; checked at
      every record;
    * a method that did not trust its solver (`mtljax.solvers.TRUSTED`) at more than half of the steps, or of the last
      200 steps; checked once, at the first record from the tenth step on.

    It waits for the device only at records.

    Args:
        start: step at which this process starts.
        num_steps: step at which this process ends.
    """
    enough = min(FIRST, num_steps - start)
    residuals: list[Any] = []
    warned: set[str] = set()
    looks = True

    def look(done: int, metrics: Any, record: dict[str, Any] | None) -> None:
        nonlocal looks
        metrics = metrics if isinstance(metrics, dict) else {}
        if looks and "residual" in metrics:
            residuals.append(metrics["residual"])
            del residuals[:-HELD]
        if record is None:
            return
        found = jax.device_get({name: metrics[name] for name in READ if name in metrics})
        for task, below in _by_name(found.get("below")):
            if np.any(below) and task not in warned:
                warned.add(task)
                warnings.warn(
                    f"fit: task '{task}' is inactive, its loss is {np.min(found['losses'][task]):g}: the method takes "
                    "logarithms or ratios of losses, which must not be negative (famo: below min_losses). Add a "
                    "constant to the loss, or use a method that mtljax.methods.table() lists for negative losses",
                    stacklevel=3,
                )
        if np.any(found.get("penalty_nonfinite", False)) and "" not in warned:
            warned.add("")  # stands for the penalty: no task has this name
            warnings.warn(
                f"fit: the penalty is {np.min(found['penalty']):g} after {done} steps and its gradient is not finite "
                "throughout; entries that are not finite count as 0. Look for a square root, norm, logarithm or "
                "quotient at 0, with jax_debug_nans",
                stacklevel=3,
            )
        if done - start < enough:
            return
        for task, count in _by_name(found.get("nonfinite")):
            if np.mean(count) > done / 2 and task not in warned:
                warned.add(task)
                warnings.warn(
                    f"fit: task '{task}' was inactive in {np.mean(count):g} of {done} steps: its loss or its gradient "
                    "is NaN, infinite or too large to be squared. Mask missing labels (mtljax.data.mask_missing, or "
                    "Batch.mask); else look for a square root, norm, logarithm or quotient at 0, with jax_debug_nans",
                    stacklevel=3,
                )
        if looks:
            untrusted = np.mean(np.asarray([np.asarray(each) for each in residuals]) > TRUSTED) if residuals else 0
            if untrusted > 0.5:
                warnings.warn(
                    f"fit: the method did not trust its solver at {untrusted:.0%} of the first {done - start} steps "
                    f"(metrics['residual'] above {TRUSTED:g}) and took its safe direction there. At Pareto-stationary "
                    "points this is expected; else scale the tasks' gradients to one length "
                    "(mtljax.methods.normalize), or use another method",
                    stacklevel=3,
                )
            looks = False
            residuals.clear()

    return look


def _by_name(values: Any) -> Iterable[tuple[str, Any]]:
    """Values by task, those of a bank's tasks one by one; nothing where a step of other make tells none."""
    values = values.by_name() if isinstance(values, ByTask) else values
    return values.items() if isinstance(values, dict) else ()

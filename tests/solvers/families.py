"""Task gradients as they occur and as they hurt: 19 families at any scale, whose Gramians are rounded to float32.

What is measured is the truth: the direction that weights make of the float64 rows themselves, beside the exact
direction of those rows. A solver sees the rounded Gramian alone.
"""

from __future__ import annotations

import numpy as np

FAMILIES = (
    "generic",
    "wide",
    "conflict",
    "common",
    "more_tasks_than_directions",
    "one_element",
    "two_elements",
    "rank_half",
    "opposite",
    "opposite_pairs",
    "signed_collinear",
    "nearly_collinear",
    "stationary",
    "weakly_stationary",
    "strictly_weakly_stationary",
    "spread_norms",
    "duplicates",
    "zero_rows",
    "near_dependent",
)


def rows_of(family: str, num_tasks: int, seed: int) -> np.ndarray:
    """Task gradients `[T, P]` in float64."""
    rng = np.random.default_rng([seed, num_tasks, FAMILIES.index(family)])
    size = num_tasks + 2
    normal = rng.normal(size=(num_tasks, size))
    common = rng.normal(size=(1, size))
    signs = np.where(rng.random((num_tasks, 1)) < 0.5, -1.0, 1.0)
    lengths = np.exp(rng.normal(size=(num_tasks, 1)))
    half = max(1, num_tasks // 2)
    match family:
        case "generic":
            return normal
        case "wide":
            return rng.normal(size=(num_tasks, 50 * num_tasks)) * lengths
        case "conflict":
            return normal + 1.5 * signs * common
        case "common":
            return normal + common
        case "more_tasks_than_directions":
            return rng.normal(size=(num_tasks, max(1, (num_tasks + 1) // 2))) * lengths
        case "one_element":
            return rng.normal(size=(num_tasks, 1))
        case "two_elements":
            return rng.normal(size=(num_tasks, 2))
        case "rank_half":
            return rng.normal(size=(num_tasks, half)) @ rng.normal(size=(half, size))
        case "opposite":
            normal[-1] = -normal[0]
        case "opposite_pairs":
            normal[num_tasks - half :] = -lengths[:half] * normal[:half]
        case "signed_collinear":
            return signs * lengths * common
        case "nearly_collinear":
            return signs * common + 10.0 ** rng.uniform(-5, -1) * normal
        case "stationary":
            shares = rng.random(num_tasks - 1) + 0.1
            normal[-1] = -shares @ normal[:-1]
        case "weakly_stationary":
            # Shares that cancel are not negative, and some are 0.
            shares = np.maximum(rng.normal(size=num_tasks - 1), 0.0)
            shares[0] = 1.0
            normal[-1] = -shares @ normal[:-1]
        case "strictly_weakly_stationary":
            # Every direction that does no harm is orthogonal to some of the tasks and helps the others.
            few = max(2, half)
            normal[:few, -1] = 0.0
            normal[:few] -= normal[:few].mean(0)
            normal[few:] += np.abs(rng.normal(size=size)) * np.eye(size)[-1] * 3.0
            return normal @ np.linalg.qr(rng.normal(size=(size, size)))[0]
        case "spread_norms":
            return (normal + 0.5 * common) * 10.0 ** rng.uniform(-4, 4, size=(num_tasks, 1))
        case "duplicates":
            normal[num_tasks - half :] = normal[:half] * np.where(rng.random((half, 1)) < 0.5, 1.0, lengths[:half])
        case "zero_rows":
            normal[rng.permutation(num_tasks)[: max(1, num_tasks // 4)]] = 0.0
        case "near_dependent":
            normal[-1] = rng.normal(size=num_tasks - 1) @ normal[:-1] + 10.0 ** rng.uniform(-6, -2) * common[0]
        case _:
            raise ValueError(family)
    return normal


def rounded(rows: np.ndarray) -> np.ndarray:
    """The Gramian as an engine has it: products of float32 rows, summed in float32."""
    rows = rows.astype(np.float32)
    return rows @ rows.T

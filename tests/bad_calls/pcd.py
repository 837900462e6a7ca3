"""Bad calls of priority-constrained descent."""

from __future__ import annotations

import jax
import numpy as np

from mtljax.methods import pcd
from tests.bad_calls.bad import INF, Bad, count, each, number

BAD = [
    *number(lambda x: pcd(tau=x), ("pcd", "tau"), -0.1, 1.5, INF, scalar=False),
    *number(lambda x: pcd(beta=x), ("pcd", "beta"), -0.1, 1.0, INF),
    *count(lambda x: pcd(priority=x), ("pcd", "priority"), -1),
    Bad(lambda: pcd(priority=3).init(3), ("pcd", "priority", "from 0 to 2", "found 3")),
    Bad(lambda: pcd(tau=[0.1, 0.2]).init(3), ("pcd", "tau", "3 tasks", "2 entries")),
    *each(lambda x: jax.eval_shape(lambda p: pcd(priority=p).init(3), x), ("pcd", "priority"), [1.0], TypeError),
    *each(
        lambda x: jax.eval_shape(lambda p: pcd(priority=p).init(3), x),
        ("pcd", "priority"),
        [np.ones(2, int)],
        TypeError,
    ),
]

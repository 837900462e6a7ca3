"""Bad arguments of what is made in float64."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

import mtljax
from mtljax import engines, methods
from tests.bad_calls.bad import Bad, each

J = jnp.eye(2)
NO_FLAGS: list[Any] = [1, "yes", None]
EXPECTED = ("refine", "True or False")

BAD = [
    *each(lambda x: mtljax.aggregate(methods.mgda(), J, refine=x), ("reconcile", *EXPECTED), NO_FLAGS, TypeError),
    *each(lambda x: engines.full(refine=x), ("full", *EXPECTED), NO_FLAGS, TypeError),
    Bad(lambda: mtljax.aggregate(methods.mgda(), J, refine=True), ("refine", "float64", "enable_x64")),
    Bad(lambda: mtljax.aggregate(methods.pcgrad(), J, refine=True), ("refine", "pcgrad")),
]

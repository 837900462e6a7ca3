"""Engines decide how much of the Jacobian is built; a rule picks the engine."""

from mtljax.engines.choice import CPU_ROWS, CPU_USES, ROWS_LIMIT, Choice, choose, explain
from mtljax.engines.cut import Cut
from mtljax.engines.features import features
from mtljax.engines.full import best_rows, chunked, full
from mtljax.engines.gramian import gramian
from mtljax.engines.rows import looped, unrolled, vmapped
from mtljax.engines.types import Engine, Reading

__all__ = [
    "CPU_ROWS",
    "CPU_USES",
    "ROWS_LIMIT",
    "Choice",
    "Cut",
    "Engine",
    "Reading",
    "best_rows",
    "choose",
    "chunked",
    "explain",
    "features",
    "full",
    "gramian",
    "looped",
    "unrolled",
    "vmapped",
]

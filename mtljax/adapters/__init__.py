"""Adapters to other libraries; no other module imports them.

`flax_linen` and `flax_nnx` are loaded where they are first asked for, since Flax takes a second to load.
"""

from __future__ import annotations

import importlib
from typing import Any

from mtljax.adapters.carry import carry
from mtljax.adapters.optax_links import OptaxState, as_optax

__all__ = ["OptaxState", "as_optax", "carry"]


def __getattr__(name: str) -> Any:
    if name in ("flax_linen", "flax_nnx"):
        return importlib.import_module(f"mtljax.adapters.{name}")
    raise AttributeError(f"module 'mtljax.adapters' has no attribute {name!r}")

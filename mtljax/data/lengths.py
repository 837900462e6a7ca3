"""The number of examples in a tree of arrays."""

from __future__ import annotations

import jax
import numpy as np

from mtljax.types import PyTree


def leading_length(tree: PyTree, caller: str) -> int:
    """The common length B of all leaves `[B, ...]`; at least 1."""
    lengths = {
        jax.tree_util.keystr(path): np.shape(leaf)[0] if np.ndim(leaf) else None
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }
    if len(set(lengths.values())) != 1 or None in lengths.values() or 0 in lengths.values():
        raise ValueError(f"{caller}: batch must hold arrays of one leading length, at least 1, found {lengths}")
    return next(iter(lengths.values()))  # pyright: ignore[reportReturnType]

"""Methods made of eigenvalues and pseudo-inverses."""

from __future__ import annotations

import numpy as np

from mtljax.methods.from_gramian import config_lengths as lengths
from mtljax.methods.from_gramian.aligned_mtl import aligned_mtl
from mtljax.methods.from_gramian.config import config
from mtljax.methods.from_gramian.imtl_g import imtl_g
from mtljax.methods.from_gramian.krum import krum
from mtljax.methods.from_gramian.ntkmtl import ntkmtl

METHODS = {
    "imtl_g": imtl_g(),
    "aligned_mtl": aligned_mtl(),
    "config": config(),
    "ntkmtl": ntkmtl(),
    "krum": krum(),
}


MEAN = aligned_mtl(mean=True)
SHORTEST = config(length=lengths.track_min)


def random_rows(num_tasks, seed=0, size=8):
    return np.random.default_rng(seed).normal(size=(num_tasks, size)).astype(np.float32)

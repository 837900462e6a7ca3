"""Bargaining methods, and steps of theirs."""

from __future__ import annotations

import numpy as np

from mtljax.methods.from_gramian.consmtl import consmtl
from mtljax.methods.from_gramian.fairgrad import fairgrad
from mtljax.methods.from_gramian.nash_mtl import nash_mtl
from mtljax.methods.from_gramian.pivrg import pivrg

METHODS = {"nash_mtl": nash_mtl(), "fairgrad": fairgrad(), "pivrg": pivrg(), "consmtl": consmtl()}
CLIPPED = nash_mtl(max_norm=1.0)
FAIR = {alpha: fairgrad(alpha) for alpha in (0.0, 1e-3, 0.5, 2.0, 200.0)} | {1.0: METHODS["fairgrad"]}


def random_rows(num_tasks, seed=0, size=6):
    return np.random.default_rng(seed).normal(size=(num_tasks, size)).astype(np.float32)


def power(scores, bound=2.0, least=10.0):
    scores = np.asarray(scores, float)
    temperature = max((scores.max() - scores.min()) / np.log(bound), least)
    powers = np.exp((scores - scores.max()) / temperature)
    return len(scores) * powers / powers.sum()

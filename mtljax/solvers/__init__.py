"""Solvers of problems over task weights, on a `[T, T]` Gramian. Each runs on the device and certifies its answer."""

from mtljax.solvers import spectral
from mtljax.solvers.bargaining import bargaining
from mtljax.solvers.cone_around_mean import max_min_around_mean
from mtljax.solvers.cone_projection import cone_projection, projected_rows
from mtljax.solvers.conflict_averse import conflict_averse
from mtljax.solvers.scaling import TRUSTED, Solution
from mtljax.solvers.sequential import sequential
from mtljax.solvers.simplex_lp import simplex_lp
from mtljax.solvers.simplex_projection import project_simplex
from mtljax.solvers.simplex_qp import min_norm
from mtljax.solvers.towards import min_norm_towards

__all__ = [
    "TRUSTED",
    "Solution",
    "bargaining",
    "cone_projection",
    "conflict_averse",
    "max_min_around_mean",
    "min_norm",
    "min_norm_towards",
    "project_simplex",
    "projected_rows",
    "sequential",
    "simplex_lp",
    "spectral",
]

"""All mutants, a module for every few folders of the package."""

from __future__ import annotations

from tests.mutants.mutant import Mutant
from tests.mutants.table import banks, convex, data, losses, methods, sharing, step, training

MUTANTS: tuple[Mutant, ...] = (
    *losses.MUTANTS,
    *data.MUTANTS,
    *sharing.MUTANTS,
    *convex.MUTANTS,
    *training.MUTANTS,
    *step.MUTANTS,
    *methods.MUTANTS,
    *banks.MUTANTS,
)

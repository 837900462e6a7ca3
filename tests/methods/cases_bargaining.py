"""Lines of the table of all methods: bargaining."""

from __future__ import annotations

from typing import Any

from mtljax.methods.from_gramian.aligned_mtl import aligned_mtl
from mtljax.methods.from_gramian.config import config
from mtljax.methods.from_gramian.consmtl import consmtl
from mtljax.methods.from_gramian.fairgrad import fairgrad
from mtljax.methods.from_gramian.imtl_g import imtl_g
from mtljax.methods.from_gramian.krum import krum
from mtljax.methods.from_gramian.nash_mtl import nash_mtl
from mtljax.methods.from_gramian.ntkmtl import ntkmtl
from mtljax.methods.from_gramian.pivrg import pivrg
from tests.methods.case import Case

# How long a fair direction is follows from alpha: for one task it is no fixed multiple of the gradient.
FAIR: dict[str, Any] = dict(alone=None, nonconflicting=True, strong=True)

CASES: list[Case] = [
    Case("nash_mtl", lambda t: nash_mtl(), **FAIR, degree=0.0, invariant=True, identical="other"),
    Case("fairgrad", lambda t: fairgrad(), **FAIR, degree=0.0, invariant=True, variant=True, identical="other"),
    Case("fairgrad_2", lambda t: fairgrad(2.0), **FAIR, degree=-1 / 3, variant=True, identical="other"),
    Case("fairgrad_half", lambda t: fairgrad(0.5), **FAIR, degree=1 / 3, variant=True, identical="other"),
    Case("pivrg", lambda t: pivrg(), **FAIR, degree=-1 / 3, identical="other"),
    Case("consmtl", lambda t: consmtl(), **FAIR, degree=-1 / 3, variant=True, identical="other"),
    Case("imtl_g", lambda t: imtl_g(), duplicable=True, invariant=True),
    Case("aligned_mtl", lambda t: aligned_mtl(), identical="sum"),
    Case("config", lambda t: config(), linear=True, duplicable=True, invariant=True, identical="sum"),
    Case("ntkmtl", lambda t: ntkmtl(), invariant=True, identical="other"),
    # Ties go to the first task, and two tasks always tie.
    Case("krum", lambda t: krum(), permutable=False),
]

"""Lines of the table of all methods: gramian."""

from __future__ import annotations

from mtljax.methods.from_gramian.conicgrad import conicgrad
from mtljax.methods.from_gramian.dualproj import dualproj
from mtljax.methods.from_gramian.epo import epo
from mtljax.methods.from_gramian.gradnorm import gradnorm
from mtljax.methods.from_gramian.gradvac import gradvac
from mtljax.methods.from_gramian.mgda import l2_norms, loss_values, mgda
from mtljax.methods.from_gramian.modo import modo
from mtljax.methods.from_gramian.pcd import pcd
from mtljax.methods.from_gramian.sdmgrad import sdmgrad
from tests.methods.case import Case

CASES: list[Case] = [
    # Gradients of length 1 have no scale, and one alone is itself over its length.
    Case(
        "mgda_l2",
        lambda t: mgda(normalization=l2_norms),
        alone=None,
        degree=0.0,
        nonconflicting=True,
        invariant=True,
        identical="other",
    ),
    Case(
        "mgda_loss",
        lambda t: mgda(normalization=loss_values),
        alone=None,
        nonconflicting=True,
        variant=True,
        invariant=True,
        identical="other",
    ),
    Case("dualproj", lambda t: dualproj(), nonconflicting=True, strong=True),
    # Which task comes first in a task's random order decides.
    Case("gradvac", lambda t: gradvac(), permutable=False, identical="sum"),
    Case("gradnorm", lambda t: gradnorm(), linear=True, identical="sum"),
    # The authors' step size is above what is stable: over 20 steps rounding grows to a hundredth of the weights.
    Case("sdmgrad", lambda t: sdmgrad(), permutable=False, degree=None),
    Case("sdmgrad_exact", lambda t: sdmgrad(steps=None), variant=True),
    # The paper's step size for the weights is in units of one over a squared gradient.
    Case("modo", lambda t: modo(gamma=1e-3), degree=None),
    Case("modo_normalized", lambda t: modo(normalize=True), variant=True),
    Case("conicgrad", lambda t: conicgrad(0.8)),
    Case("epo", lambda t: epo()),
    # One task has priority, by its place.
    Case("pcd", lambda t: pcd(tau=0.5), permutable=False, invariant=True),
]

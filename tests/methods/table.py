"""The table of all methods, one line each: what the contract suite, and whatever else runs over all, is driven by."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mtljax import methods
from tests.methods.case import Case
from tests.methods.cases_bargaining import CASES as BARGAINING
from tests.methods.cases_gramian import CASES as GRAMIAN
from tests.methods.cases_jacobian import CASES as JACOBIAN
from tests.methods.cases_losses import CASES as LOSSES
from tests.methods.cases_wrappers import CASES as WRAPPERS

__all__ = ["CASES", "FEW", "Case", "few", "over"]

CASES = [
    Case("equal", lambda t: methods.equal(), linear=True, identical="sum"),
    Case("fixed", lambda t: methods.fixed([1.0] * t), linear=True, identical="sum"),
    # The paper's weight at the first step is exp(-s) / 2 with s = 0, for one task as for many.
    Case("uncertainty", lambda t: methods.uncertainty(), alone=0.5, linear=True, identical="other"),
    Case("mgda", lambda t: methods.mgda(), nonconflicting=True, duplicable=True),
    # Which task comes first in a task's random order decides.
    Case("pcgrad", lambda t: methods.pcgrad(), permutable=False, identical="sum"),
    Case("cagrad", lambda t: methods.cagrad(), identical="other"),
    Case("upgrad", lambda t: methods.upgrad(), nonconflicting=True, linear=True, strong=True),
    Case("graddrop", lambda t: methods.graddrop(), identical="sum"),
    Case("every", lambda t: methods.every(methods.ntkmtl(), 3), invariant=True, identical="other"),
    Case(
        "preference",
        lambda t: methods.preference(methods.ntkmtl(), [2.0] * t),
        alone=2.0,
        invariant=True,
        identical="other",
    ),
    *LOSSES,
    *GRAMIAN,
    *BARGAINING,
    *JACOBIAN,
    *WRAPPERS,
]
FEW = {"equal", "famo", "nash_mtl", "graddrop", "m_config", "every"}


def over(cases: list[Case], *, at_once: Callable[[Case], bool] = lambda case: True):
    """Parameters for a test of several methods; variants, and those not in `at_once`, only where slow tests run too."""
    return pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=case.name, marks=[] if at_once(case) and not case.variant else pytest.mark.slow)
            for case in cases
        ],
        scope="module",  # one method after the other, so that its programs serve all tests before they are forgotten
    )


def few(cases: list[Case] = CASES):
    """The same for a test that compiles whole training steps: one method of each kind at once."""
    return over(cases, at_once=lambda case: case.name in FEW)

"""The table of all methods, one line each: what the contract suite, and whatever else runs over all, is driven by."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.methods.case import Case
from tests.methods.cases import CASES

__all__ = ["CASES", "FEW", "Case", "few", "over"]

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

"""The table of methods says what is: every method has a line, and every claim is one that the contract suite holds."""

from __future__ import annotations

import inspect

import pytest

from docs.write_tables import PAGES, filled
from mtljax import methods
from mtljax.types import Method
from tests.methods.table import CASES

ROWS = {row.name: row for row in methods.table()}
BY_NAME = {case.name: case for case in CASES}
# Their lines are run with other arguments than the defaults, which promise more.
TAMED = {"adatask", "sam_gs"}
NO_METHODS = {"Row", "aggregate", "as_markdown", "reconcile", "table", "weigh"}


def test_every_method_has_one_line():
    functions = {name for name in methods.__all__ if inspect.isfunction(getattr(methods, name))}
    assert functions - NO_METHODS == set(ROWS)
    assert len(methods.table()) == len(ROWS)


def test_every_method_has_a_case():
    plain = {row.name for row in methods.table() if row.reads not in ("any", "batches")}
    assert plain <= set(BY_NAME)


def test_cases_stand_in_the_order_of_the_table():
    places = [list(ROWS).index(case.make(3).name.partition("(")[0]) for case in CASES]
    assert places == sorted(places)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.reads not in ("any", "batches")])
def test_claims_are_those_that_are_tested(name):
    row, case = ROWS[name], BY_NAME[name]
    method = case.make(3)
    assert isinstance(method, Method)
    assert method.name == name
    assert row.reads == method.reads
    assert row.passes.startswith("1" if method.reads == "losses" or method.pick is not None else "T")
    assert (row.passes != "1 and a forward") == (method.observe is None)
    assert row.nonconflicting == case.nonconflicting
    assert row.invariant == case.invariant or name in TAMED
    assert row.homogeneous == (case.degree == 1.0) or name in TAMED
    assert row.identical == case.identical
    assert row.permutation == case.permutable
    takes = {"preference", "priority", "weights"} & set(inspect.signature(getattr(methods, name)).parameters)
    assert row.preference == bool(takes)
    assert row.negative == (method.least_loss is None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_show_the_table_as_it_is(page):
    text = page.read_text()
    assert "<!-- table: begin -->" in text
    assert filled(page) == text, "run python docs/write_tables.py"

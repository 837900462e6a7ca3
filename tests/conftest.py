"""Fixtures that every test may ask for. What must be set before JAX starts is in the conftest one folder up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real_data import folder, missing


@pytest.fixture(scope="session")
def real_data():
    """`real_data("mnist")` is the folder of that data set; the test is skipped where it is not there.

    Looked up in `MTLJAX_DATA`, then in `../shared/data` beside the checkout.
    """

    def find(name: str) -> Path:
        found = folder(name)
        return pytest.skip(missing(name)) if found is None else found

    return find

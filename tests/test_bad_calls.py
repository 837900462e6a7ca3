"""Every bad call gets a ValueError or TypeError of ours, at trace time, that names the function and the argument."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.bad_calls.bad import Bad

HERE = Path(__file__).parent / "bad_calls"
OURS = HERE.parents[1] / "mtljax"
AREAS = sorted(path.stem for path in HERE.glob("*.py") if path.stem != "bad")
ROWS = [
    pytest.param(bad, id=f"{area}-{row}")
    for area in AREAS
    for row, bad in enumerate(importlib.import_module(f"tests.bad_calls.{area}").BAD)
]


@pytest.mark.parametrize("bad", ROWS)
def test_a_bad_call(bad: Bad):
    with pytest.raises(Exception) as raised:
        bad.call()
    error, message = raised.value, str(raised.value)
    assert type(error) is bad.error, f"{type(error).__name__}: {message}"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    assert frame is not None
    assert OURS in Path(frame.tb_frame.f_code.co_filename).parents, f"raised outside mtljax: {message}"
    names = (bad.names,) if isinstance(bad.names, str) else bad.names
    assert not [name for name in names if name not in message], message


def test_the_table_is_large_enough():
    assert len(ROWS) >= 80

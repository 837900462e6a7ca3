"""Every bad call gets a ValueError or TypeError of ours, at trace time, that names the function and the argument."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest

from tests.bad_calls.bad import Bad

HERE = Path(__file__).parent / "bad_calls"
OURS = HERE.parents[1] / "mtljax"
AREAS = {
    path.stem: importlib.import_module(f"tests.bad_calls.{path.stem}").BAD
    for path in sorted(HERE.glob("*.py"))
    if path.stem != "bad"
}
# One test for the rows of one function: a thousand tests of a millisecond each would be slower.
GROUPS: dict[str, list[Bad]] = {}
for area, rows in AREAS.items():
    for row in rows:
        name = row.names if isinstance(row.names, str) else row.names[0]
        GROUPS.setdefault(f"{area}-{name}", []).append(row)


def fault(bad: Bad) -> str | None:
    """What is wrong with a bad call's error; None where nothing is."""
    try:
        found = bad.call()
    except Exception as raised:
        error = raised
    else:
        return f"taken in silence, returned {found!r:.200}"
    if type(error) is not bad.error:
        return f"{type(error).__name__} instead of {bad.error.__name__}: {error}"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None or OURS not in Path(frame.tb_frame.f_code.co_filename).parents:
        return f"raised outside mtljax: {error}"
    names = (bad.names,) if isinstance(bad.names, str) else bad.names
    missing = [name for name in names if name not in str(error)]
    return f"does not name {missing}: {error}" if missing else None


@pytest.mark.parametrize("group", GROUPS)
def test_bad_calls(group: str):
    faults = []
    for place, bad in enumerate(GROUPS[group]):
        wrong = fault(bad)
        if wrong is not None:
            faults.append(f"row {place} {getattr(bad.call, 'args', '')} {wrong}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("room", ["adapters", "methods", "metrics", "penalties", "sharing"])
def test_every_public_function_has_a_row(room: str):
    module = importlib.import_module(f"mtljax.{room}")
    named = {name for rows in AREAS.values() for row in rows for name in np.ravel(row.names)}
    public = [(name, getattr(module, name)) for name in module.__all__]
    missing = [
        name
        for name, function in public
        if inspect.isfunction(function) and inspect.signature(function).parameters and name not in named
    ]
    # `cr_mogm` is `ema`; `as_markdown` takes rows of the table of methods.
    assert set(missing) <= {"cr_mogm", "as_markdown"}


def test_the_table_is_large_enough():
    assert sum(map(len, AREAS.values())) >= 1000

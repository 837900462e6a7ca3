"""The table of mutants is of today's tree. `python -m tests.mutants` runs them."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.mutants.table import MUTANTS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mtljax"


def functions_of(file: str) -> set[str]:
    return {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_mutant_changes_one_place():
    wrong = [
        f"{mutant.file}: {mutant.old}"
        for mutant in MUTANTS
        if (PACKAGE / mutant.file).read_text().count(mutant.old) != 1 or mutant.new == mutant.old
    ]
    assert wrong == []


def test_no_mutant_is_there_twice():
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


def test_the_tests_that_are_named_exist():
    names = dict.fromkeys(test for mutant in MUTANTS for test in mutant.tests.split())
    files = {file: functions_of(file) for file in dict.fromkeys(name.split("::")[0] for name in names)}
    missing = [
        name for name in names if "::" in name and name.split("::")[1].split("[")[0] not in files[name.split("::")[0]]
    ]
    assert missing == []


def test_there_are_a_hundred_and_two_for_every_room():
    rooms = [path.stem for path in PACKAGE.iterdir() if not path.name.startswith("_") and path.name != "py.typed"]
    rooms += [f"methods/{path.name}" for path in (PACKAGE / "methods").iterdir() if (path / "__init__.py").exists()]
    of_room = {
        room: sum(f"{mutant.file.removesuffix('.py')}/".startswith(f"{room}/") for mutant in MUTANTS) for room in rooms
    }
    assert len(MUTANTS) >= 100
    assert {room for room, number in of_room.items() if number < 2} <= {"types"}  # which computes nothing

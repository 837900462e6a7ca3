"""The import graph of the package: which room imports which, drawn from top to bottom.

    python -m tests.imports            # prints the levels, arrows and circles
    python -m tests.imports --mermaid  # the same as a picture for a Markdown page

A room is a folder, or a file, directly under mtljax/. Imports inside functions count, those for type checkers alone do
not. A room stands one level above the highest room that it imports.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mtljax"


def room_of(module: str) -> str | None:
    """The room that a module is in; None where it is the package itself, or not of the package."""
    parts = module.split(".")
    return parts[1] if parts[0] == "mtljax" and len(parts) > 1 else None


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module or name of the package that the source imports, as a dotted path."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


def graph() -> dict[str, set[str]]:
    """Which rooms each room imports."""
    rooms: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue  # the package gathers all rooms
        arrows = rooms.setdefault(parts[0], set())
        found = {room_of(name) for name in imported(ast.parse(path.read_text()))}
        arrows |= {room for room in found if room is not None and room != parts[0]}
    return {room: arrows & set(rooms) for room, arrows in rooms.items()}


def levels(rooms: dict[str, set[str]]) -> list[list[str]]:
    """Rooms from the lowest level up; those that are on a circle, or above one, are missing."""
    placed: dict[str, int] = {}
    while True:
        ready = {room for room, arrows in rooms.items() if room not in placed and arrows <= set(placed)}
        if not ready:
            break
        placed |= {room: 1 + max((placed[other] for other in rooms[room]), default=-1) for room in ready}
    return [sorted(room for room, at in placed.items() if at == level) for level in range(1 + max(placed.values()))]


def mermaid(rooms: dict[str, set[str]]) -> str:
    """The graph for a Markdown page, without the arrows that others imply."""

    def below(room: str) -> set[str]:
        return {other for each in rooms[room] for other in {each, *below(each)}}

    lines = ["flowchart TD"]
    for room in sorted(rooms):
        implied = {other for each in rooms[room] for other in below(each)}
        lines += [f"  {room} --> {other}" for other in sorted(rooms[room] - implied)]
    return "\n".join(lines)


def main() -> None:
    """Prints the graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mermaid", action="store_true", help="as a picture for a Markdown page")
    rooms = graph()
    if parser.parse_args().mermaid:
        print(mermaid(rooms))
        return
    ordered = levels(rooms)
    for level in reversed(ordered):
        print("  ".join(level))
    circles = sorted(set(rooms) - {room for level in ordered for room in level})
    print(f"{len(rooms)} rooms, {sum(map(len, rooms.values()))} arrows, on or above a circle: {circles or 'none'}")


if __name__ == "__main__":
    main()

"""Rooms of the package import downwards."""

from __future__ import annotations

from pathlib import Path

from tests.imports import graph, levels, mermaid

CONTRIBUTING = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


def test_no_room_is_on_a_circle():
    rooms = graph()
    assert sorted(room for level in levels(rooms) for room in level) == sorted(rooms)


def test_engines_know_no_methods():
    assert "methods" not in graph()["engines"]


def test_a_circle_is_found():
    assert levels({"a": {"b"}, "b": {"a"}, "c": set(), "d": {"a"}}) == [["c"]]


def test_the_picture_is_the_graph():
    assert CONTRIBUTING.split("```mermaid\n")[1].split("\n```")[0] == mermaid(graph())

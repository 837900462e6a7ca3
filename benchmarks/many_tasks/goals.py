"""The goals for many tasks, what a run measured against them, and how each side grows with T."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.goals import Found, Row, row

Record = dict[str, Any]
GROWING = {"ms": "step", "compile_s": "compile", "trace_s": "trace", "peak_bytes": "peak"}


def judge(records: Sequence[Record]) -> list[Row]:
    """One row a goal."""
    banks = [r for r in records if r["side"] == "bank" and "why" not in r]
    losses = [r for r in banks if r["method"] in ("equal", "uncertainty")]
    grams = [r for r in banks if r not in losses]
    hands = {(r["method"], r["T"]): r for r in records if r["side"] == "by hand" and "why" not in r}

    def step(r: Record) -> float:
        return r["over_hand"]["median"]

    def compiling(r: Record) -> float:
        return r["compile_s"] / hands[r["method"], r["T"]]["compile_s"]

    few, many = [r for r in losses if r["T"] <= 128], [r for r in losses if r["T"] > 128]
    at_128 = [r for r in grams if r["T"] == 128]
    return [
        row("equal, uncertainty: bank over by hand, to 128 tasks", "<=", 1.1, _found(few, step)),
        row("equal, uncertainty: bank over by hand, 617 and 691", "<=", 1.3, _found(many, step)),
        row("equal, uncertainty: compile over by hand", "<=", 1.3, _found(losses, compiling)),
        row("equal, uncertainty: trace, s", "<=", 0.5, _found(losses, lambda r: r["trace_s"])),
        row("Gramian methods at 128: over equal by hand", "<=", 50.0, _found(at_128, step)),
        row("Gramian methods at 128: compile, s", "<=", 3.0, _found(at_128, lambda r: r["compile_s"])),
    ]


def _found(records: Sequence[Record], value: Callable[[Record], float]) -> Found:
    def pairs() -> Iterator[tuple[float, str]]:
        for r in records:
            yield value(r), f"{r['method']}, T={r['T']}"

    return pairs()


def growth(records: Sequence[Record]) -> dict[str, dict[str, float | None]]:
    """By method and side, the exponents a of `time ~ T^a`, least squares in logarithms; None below two values of T."""
    timed = [r for r in records if "why" not in r]
    found: dict[str, dict[str, float | None]] = {}
    for method, side in dict.fromkeys((r["method"], r["side"]) for r in timed):
        mine = [r for r in timed if (r["method"], r["side"]) == (method, side)]
        found[f"{method}, {side}"] = {
            told: exponent([(r["T"], r[key]) for r in mine if r.get(key)]) for key, told in GROWING.items()
        }
    return found


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """The slope of a line through the logarithms of points (T, value)."""
    if len({tasks for tasks, _ in points}) < 2:
        return None
    tasks, values = np.log(np.array(points, float)).T
    return round(float(np.polyfit(tasks, values, 1)[0]), 2)

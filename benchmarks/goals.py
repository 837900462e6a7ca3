"""The goals for speed and memory, and what a run measured against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Record = dict[str, Any]
Row = tuple[str, str, str, str]
EW = "EW by hand"


def judge(records: Sequence[Record]) -> list[Row]:
    """One row a goal: what it is, what is wanted, the worst that was measured and where, and whether that is enough."""
    timed = [record for record in records if "why" not in record]
    failed = [r for r in records if "why" in r and (r["side"] == "mtljax" or r["group"] == "engines")]
    rows = [
        row("equal over JAX by hand", "<=", 1.02, _of(timed, "equal", "mtljax")),
        row("uncertainty over JAX by hand", "<=", 1.03, _uncertainty(timed)),
        row("solver + weighted sum, over the T rows", "<=", 0.05, _solvers(timed)),
        row("  (the Gramian, over the T rows; no goal)", "", None, _of(timed, "parts", "gramian")),
        row("full engine over forward + T backward passes", "<=", 1.05, _floor(timed)),
        row("engine=None over the fastest exact engine", "<=", 1.10, _chosen(timed)),
        row("gramian engine: memory beyond EW's and activations, in P", "<=", 3.0, _memory(timed, "gramian")),
        row("  (full engine, likewise; no goal)", "", None, _memory(timed, "full")),
        row("features engine over EW, T <= 8", "<=", 1.15, _features(timed)),
    ]
    for peer in ("LibMTL", "TorchJD"):
        for kind, wanted in (("mlp", 2.0), ("conv", 1.0)):
            rows.append(row(f"{peer} over mtljax, {kind}, every method", ">=", wanted, _peer(timed, peer, kind)))
    rows += [
        row("penalty's share of a soft-sharing step", "<=", 0.05, _penalty(timed)),
        row("pmap over jit, one device", "<=", 1.05, _prefixed(timed, "parallel", "pmap")),
        row("sharded over jit, one device", "<=", 1.05, _prefixed(timed, "parallel", "sharded")),
        row("16 seeds over one, small net", "<=", 4.0, _prefixed(timed, "seeds", "16 seeds")),
    ]
    rows += [(f"{r['problem']}: {r['side']}, {r['group']}", "runs", r["why"], "NO") for r in failed]
    return rows


Found = Iterator[tuple[float, str]]


def row(name: str, sign: str, wanted: float | None, found: Found) -> Row:
    values = list(found)
    goal = f"{sign} {wanted:g}" if wanted is not None else ""
    if not values:
        return name, goal, "not measured", "-"
    value, where = (min if sign == ">=" else max)(values)
    measured = f"{value:.3g} ({where})"
    if wanted is None:
        return name, goal, measured, ""
    reached = [v >= wanted if sign == ">=" else v <= wanted for v, _ in values]
    return name, goal, measured, "yes" if all(reached) else f"NO ({sum(reached)} of {len(reached)})"


def _of(records: Sequence[Record], group: str, side: str) -> Found:
    for r in records:
        if r["group"] == group and r["side"] == side:
            yield r["ratio"][0], r["problem"]


def _prefixed(records: Sequence[Record], prefix: str, side: str) -> Found:
    for r in records:
        if r["group"].startswith(prefix) and r["side"] == side:
            yield r["ratio"][0], f"{r['group'].removeprefix(prefix).strip()}, {r['problem']}"


def _uncertainty(records: Sequence[Record]) -> Found:
    for r in records:
        if r["group"] == "uncertainty" and r["side"] == "by hand":
            yield 1.0 / r["over_mtljax"][0], r["problem"]


def _solvers(records: Sequence[Record]) -> Found:
    for r in records:
        if r["group"] == "parts" and r["side"].startswith("solve + sum "):
            yield r["ratio"][0], f"{r['side'].removeprefix('solve + sum ')}, {r['problem']}"


def _engines(records: Sequence[Record]) -> Iterator[tuple[str, dict[str, Record]]]:
    for problem in dict.fromkeys(r["problem"] for r in records):
        sides = {r["side"]: r for r in records if r["problem"] == problem and r["group"] == "engines"}
        if sides:
            yield problem, sides


def _fastest(sides: dict[str, Record], accept: Callable[[str], bool]) -> Record | None:
    return min((r for name, r in sides.items() if accept(name)), key=lambda r: r["ratio"][0], default=None)


def _exact(name: str) -> bool:
    return name.startswith(("full", "chunked", "gramian"))


def _chosen(records: Sequence[Record]) -> Found:
    for problem, sides in _engines(records):
        chosen, best = _fastest(sides, lambda name, s=sides: s[name]["chosen"]), _fastest(sides, _exact)
        if chosen and best:
            yield chosen["ratio"][0] / best["ratio"][0], f"{chosen['side']} v {best['side']}, {problem}"


def _floor(records: Sequence[Record]) -> Found:
    """The floor: one step of equal weighting, and T - 1 more backward passes."""
    for problem, sides in _engines(records):
        chosen = _fastest(sides, lambda name, s=sides: s[name]["chosen"])
        if chosen and chosen["side"].startswith("full"):
            backward = sides["forward + backward"]["ratio"][0] - sides["forward"]["ratio"][0]
            tasks = int(problem.split("T=")[1].split()[0])
            yield chosen["ratio"][0] / (1.0 + (tasks - 1) * backward), f"{chosen['side']}, {problem}"


def _memory(records: Sequence[Record], engine: str) -> Found:
    """A second set of activations is allowed (tangents beside values); the first and the gradient are EW's own."""
    for problem, sides in _engines(records):
        for name, r in sides.items():
            if name == engine or (engine == "full" and r["chosen"]):
                activations = max(sides[EW]["temp_p"] - 1.0, 0.0)
                yield r["temp_p"] - sides[EW]["temp_p"] - activations, problem


def _features(records: Sequence[Record]) -> Found:
    for value, problem in _of(records, "engines", "features"):
        if "T=32" not in problem:
            yield value, problem


def _peer(records: Sequence[Record], peer: str, kind: str) -> Found:
    for r in records:
        if r["side"] == peer and r["problem"].startswith(kind) and "over_mtljax" in r:
            yield r["over_mtljax"][0], f"{r['group']}, {r['problem']}"


def _penalty(records: Sequence[Record]) -> Found:
    for value, problem in _of(records, "soft", "soft, l2_to_mean"):
        yield 1.0 - 1.0 / value, problem

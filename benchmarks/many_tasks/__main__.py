"""Times T tasks of one form as a bank, beside the same program by hand, as single entries, and by other libraries.

python -m benchmarks.many_tasks [--quick] [--no-peers] [--tasks T ...] [--methods NAME ...] [--provisional] [--out FILE]

`over_hand` is a side's step over the hand-written step of the same weighting, round by round; for methods that read a
Gramian, over equal weighting by hand. `solver` is the method alone on the first Gramian. Sides that would take too long
are left out, with the reason: single entries beyond 32 tasks, Gramians beyond 128.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from benchmarks.many_tasks import peers, program
from benchmarks.many_tasks.goals import growth, judge

TASKS = (8, 32, 128, 617, 691)
LOSSES = ("equal", "uncertainty")
MOST = {"entries": 32, "gramian": 128, "peer": 128, "peer of losses": 617}
"""Up to which T a side is measured."""

Record = dict[str, Any]


def sides_of(problem: program.Problem, method: str, with_peers: bool) -> dict[str, Callable[[], program.Side]]:
    """How each side is made, by name."""
    chosen = program.methods(problem.tasks)[method]
    makers: dict[str, Callable[[], program.Side]] = {
        "by hand": lambda: program.by_hand(problem, uncertainty=method == "uncertainty"),
        "bank": lambda: program.by_mtljax(problem, chosen),
        "entries": lambda: program.by_mtljax(problem, chosen, banked=False),
    }
    if method not in LOSSES:
        makers["solver"] = lambda: program.solver(problem, chosen)
    if with_peers:
        makers |= {name: lambda make=make: make(problem, method) for name, make in peers.PEERS.items()}
    return makers


def too_many(side: str, method: str, tasks: int) -> str | None:
    """Why a side is not measured at this T."""
    kind = side
    if side in peers.PEERS:
        kind = "peer of losses" if method in LOSSES else "peer"
    most = min(MOST.get(kind, tasks), tasks if method in LOSSES else MOST["gramian"])
    return None if tasks <= most else f"not measured beyond {most} tasks: takes too long"


def measure(tasks: int, method: str, *, with_peers: bool, rounds: int, seconds: float) -> list[Record]:
    """One record a side."""
    problem = program.make_problem(tasks)
    made: dict[str, program.Side] = {}
    why: dict[str, str] = {}
    for name, make in sides_of(problem, method, with_peers).items():
        reason = too_many(name, method, tasks)
        if reason is None:
            try:
                made[name] = make()
                made[name].step()
            except Exception as error:
                if name not in peers.PEERS:
                    raise
                reason = f"{type(error).__name__}: {error}".split("\n")[0][:120]
                made.pop(name, None)
        if reason is not None:
            why[name] = reason
    check(made, f"{method}, {tasks} tasks")
    steps = {name: side.step for name, side in made.items()}
    times = timing.alternate(steps, rounds=rounds, seconds=seconds, warmup=1) if steps else {}
    records: list[Record] = []
    for name in [*made, *why]:
        record: Record = {"method": method, "T": tasks, "side": name}
        if name in why:
            record["why"] = why[name]
        else:
            record["ms"] = timing.milliseconds(times[name])
            record["over_hand"] = timing.ratio(times[name], times["by hand"])._asdict()
            record |= made[name].facts
            if name == "solver":
                record["share"] = 1 / timing.ratio(times["bank"], times[name]).median
        records.append(record)
    return records


def check(made: dict[str, program.Side], where: str) -> None:
    """All sides have seen the same first losses."""
    told = {name: side.losses() for name, side in made.items() if side.losses is not None}
    for name, losses in told.items():
        if not np.allclose(losses, told["by hand"], rtol=1e-4, atol=1e-5):
            raise RuntimeError(f"{where}: losses of {name} differ from those by hand")


def show(records: Sequence[Record]) -> str:
    """The table that is printed."""
    header = ["method, side", "T", "ms", "over by hand", "trace s", "compile s", "peak MB", "solver's share"]
    lines = []
    for r in records:
        name = f"{r['method']}, {r['side']}"
        if "why" in r:
            lines.append([name, r["T"], r["why"], "", "", "", "", ""])
            continue
        peak = r.get("peak_bytes")
        own = [f"{r['ms']:.3g}", timing.Ratio(**r["over_hand"]), r.get("trace_s", "-"), r.get("compile_s", "-")]
        own += ["-" if peak is None else f"{peak / 1e6:.1f}", f"{r['share']:.0%}" if "share" in r else ""]
        lines.append([name, r["T"], *own])
    return timing.table(header, lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(program.methods(2))
    parser.add_argument("--quick", action="store_true", help="T = 8 and 128 and losses alone; half a minute")
    parser.add_argument("--no-peers", action="store_true", help="JAX alone")
    parser.add_argument("--tasks", nargs="+", type=int, metavar="T", help="only these numbers of tasks")
    parser.add_argument("--methods", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--provisional", action="store_true", help="mark the results: the machine was not quiet")
    parser.add_argument("--out", type=Path, help="file for the results")
    options = parser.parse_args(argv)
    asked = options.tasks or ((8, 128) if options.quick else TASKS)
    chosen = options.methods or (LOSSES if options.quick else names)
    effort = {"rounds": 7, "seconds": 2.0} if options.quick else {"rounds": 15, "seconds": 8.0}
    with_peers = not options.no_peers
    if with_peers:
        _prepare_torch()
    # What only the first step of a process pays, imports above all, is nobody's trace.
    program.by_mtljax(program.make_problem(2), program.methods(2)["equal"])
    facts, busy, begin = timing.machine(), timing.Busy(), time.perf_counter()
    records: list[Record] = []
    share, path = 0.0, None
    for method in chosen:
        for tasks in asked:
            if method not in LOSSES and tasks > MOST["gramian"]:
                reason = too_many("bank", method, tasks)
                records.append({"method": method, "T": tasks, "side": "bank", "why": reason})
            else:
                records += measure(tasks, method, with_peers=with_peers, **effort)
            jax.clear_caches()
            # After every record: a run that is cut off keeps what it has measured.
            share = busy.share()
            results = {"provisional": options.provisional, "quick": options.quick, "busy": share}
            results |= {"seconds": round(time.perf_counter() - begin), "growth": growth(records), "records": records}
            name = "many_tasks-quick" if options.quick else "many_tasks"
            path = timing.write(name, facts, results, options.out)
            print(f"{method}, {tasks} tasks: {time.perf_counter() - begin:.0f} s", flush=True)
    print(f"\n{show(records)}\n")
    print(timing.table(["goal", "wanted", "worst measured", "reached"], judge(records)))
    header = ["method, side", "exponent of T: step", "compile", "trace", "peak"]
    print("\n" + timing.table(header, [[name, *each.values()] for name, each in growth(records).items()]))
    print(f"\n{time.perf_counter() - begin:.0f} s; other processes took {share:.1%} of the CPU.\nWritten to {path}")


def _prepare_torch() -> None:
    """As many threads as JAX has; without torch its libraries are rows with the reason."""
    try:
        from benchmarks import peers as by_torch
    except ImportError:
        return
    by_torch.prepare(timing.cores())


if __name__ == "__main__":
    main()

"""Time the solvers on `[T, T]` alone, beside TorchJD's and LibMTL's on the same Gramians, with the error of each.

python -m benchmarks.solvers [--tasks 2 8] [--no-peers] [--solvers mgda upgrad] [--out FILE]
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from benchmarks.solver_sides import SOLVERS, Solve, compiled, libmtl_side, mtljax_side, torchjd_side
from tests.solvers.solver_problems import jacobian, norms_of

TASKS = [2, 4, 8, 16, 32, 64, 128]
TOGETHER = 64
TIMED = "conflict"
ERRORS = ["random", "conflict", "duplicate", "spread", "collinear", "near_opposed", "rank_half"]
SEEDS = 3
SCALE = 2.0**-10
"""Task gradients are this long, as late in training, where thresholds that are absolute begin to decide. It is a power
of two, so that their Gramian is still exact in float32: an error is the solver's."""

# Seconds for all rounds of one comparison.
PATIENCE = 2.0


def sides_of(name: str, rows: np.ndarray, peers: bool) -> tuple[dict[str, Solve], dict[str, str]]:
    """Who solves this problem, and why the others do not."""
    sides, reasons = {"mtljax": mtljax_side(name, rows @ rows.T)}, {}
    for library, make in {"TorchJD": torchjd_side, "LibMTL": libmtl_side}.items() if peers else ():
        try:
            side = make(SOLVERS[name], rows)
            side()
        except Exception as error:  # whatever a library raises is its answer, and is shown
            reasons[library] = f"{type(error).__name__}: {str(error)[:100]}"
        else:
            sides[library] = side
    return sides, reasons


def direction(answer: Any, rows: np.ndarray) -> np.ndarray:
    """Weights `[T]`, or already the direction `[P]`, as a float64 direction."""
    array = np.asarray(answer.detach() if hasattr(answer, "detach") else answer, np.float64)
    return array if array.shape == rows.shape[1:] and rows.shape[0] != rows.shape[1] else array @ rows


def errors(name: str, num_tasks: int, peers: bool) -> dict[str, dict[str, float]]:
    """Relative errors of directions over families of Gramians, of each side: the median and the worst."""
    oracle = SOLVERS[name].oracle
    if oracle is None:
        return {}
    found: dict[str, list[float]] = {}
    for family in ERRORS:
        for seed in range(SEEDS):
            rows = SCALE * jacobian(family, num_tasks, seed)
            exact = oracle(rows)
            if exact is None:
                continue
            unit = max(float(np.linalg.norm(exact)), 1e-3 * float(norms_of(rows)[1]))
            for library, side in sides_of(name, rows, peers)[0].items():
                error = np.linalg.norm(direction(side(), rows) - exact) / unit
                found.setdefault(library, []).append(float(np.nan_to_num(error, nan=np.inf)))
    return {
        library: {"median": float(np.median(each)), "worst": float(np.max(each))} for library, each in found.items()
    }


def measure(name: str, num_tasks: int, peers: bool) -> dict[str, Any]:
    """One solver at one T: microseconds a solve, ratios to ours, errors."""
    rows = SCALE * jacobian(TIMED, num_tasks, 0)
    sides, reasons = sides_of(name, rows, peers)
    many = np.stack([r @ r.T for r in (SCALE * jacobian(TIMED, num_tasks, seed) for seed in range(TOGETHER))])
    together = mtljax_side(name, many)
    times = timing.alternate({**sides, "together": together}, seconds=PATIENCE, rounds=9)
    record: dict[str, Any] = {"solver": name, "T": num_tasks, "lacking": reasons}
    record["microseconds"] = {side: 1e6 * float(np.median(taken)) for side, taken in times.items()}
    record["ratio"] = {side: timing.ratio(times[side], times["mtljax"])._asdict() for side in sides if side != "mtljax"}
    record["error"] = errors(name, num_tasks, peers and num_tasks <= 32)
    return record


def show(records: Sequence[dict[str, Any]]) -> str:
    """The table that is printed."""
    header = ["solver", "T", "µs", f"µs of {TOGETHER}", "worst error"]
    for peer in ("TorchJD", "LibMTL"):
        header += [f"{peer} / mtljax", "median", "worst"]
    lines = []
    for record in records:
        took, error = record["microseconds"], record["error"]
        worst = f"{error['mtljax']['worst']:.0e}" if error else "-"
        line = [record["solver"], record["T"], f"{took['mtljax']:.0f}", f"{took['together']:.0f}", worst]
        for peer in ("TorchJD", "LibMTL"):
            line.append(f"{record['ratio'][peer]['median']:.3g}" if peer in record["ratio"] else "-")
            line += [f"{error[peer][kind]:.0e}" if peer in error else "-" for kind in ("median", "worst")]
        lines.append(line)
    return timing.table(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", type=int, default=TASKS, metavar="T")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS))
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    random.seed(0)
    if not arguments.no_peers:
        import torch

        torch.manual_seed(0)
        torch.set_num_threads(timing.cores())
    facts, busy = timing.machine(), timing.Busy()
    records, share, path = [], 0.0, None
    for name in arguments.solvers:
        for num_tasks in arguments.tasks:
            records.append(measure(name, num_tasks, not arguments.no_peers))
            compiled.cache_clear()
            jax.clear_caches()
            print(show(records[-1:]).splitlines()[-1], flush=True)
            # After every record: a run that is cut off keeps what it has measured.
            share = busy.share()
            path = timing.write("solvers", facts, {"busy": share, "records": records}, arguments.out)
    print("\n" + show(records))
    print(f"\nOther processes took {share:.1%} of the CPU.\nWritten to {path}")


if __name__ == "__main__":
    main()

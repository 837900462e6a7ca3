"""Time several ways of doing one thing, in turn and in one process; describe the machine; write and print results."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

RESULTS = Path(__file__).parent / "results"


class Ratio(NamedTuple):
    """Quartiles of the ratios of two sides, round by round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


class Built(NamedTuple):
    """A compiled program, and the seconds that tracing and compiling took."""

    program: Any
    trace_s: float
    compile_s: float


def build(step: Any, *args: Any) -> Built:
    """Trace and compile a jitted function for these arguments."""
    begun = time.perf_counter()
    traced = step.trace(*args)
    middle = time.perf_counter()
    program = traced.lower().compile()
    return Built(program, middle - begun, time.perf_counter() - middle)


def alternate(
    sides: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 15,
    seconds: float = 10.0,
    turn: float = 0.015,
    settle: float = 0.005,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, np.ndarray]:
    """Seconds a call of every side, round by round.

    In each round every side has one turn, and every other round the order is reversed, so that drift of the machine
    reaches all sides alike. A turn is a short sleep, since torch's threads spin for milliseconds after their work and
    would take a core from whoever comes next; one call that is not timed, since caches belong to the side before (left
    out where a call lasts longer than four turns, for it then hardly matters); and calls that are timed together for
    about `turn` seconds, one at least.

    Args:
        sides: by name, functions that run one step and return its arrays. JAX arrays are waited for.
        rounds: how many rounds to aim at.
        seconds: stop earlier, after three rounds at the least, once this much time is spent.
        turn: what a timed turn should last.
        settle: the sleep before a turn.
        warmup: calls of each side before anything is timed; the first compiles.
        clock: seconds.

    Returns:
        Arrays `[rounds]` by name, in seconds a call.
    """
    calls, leads = {}, {}
    for name, side in sides.items():
        for _ in range(warmup):
            jax.block_until_ready(side())
        start = clock()
        jax.block_until_ready(side())
        trial = clock() - start
        calls[name], leads[name] = max(1, round(turn / max(trial, 1e-9))), trial <= 4 * turn
    found: dict[str, list[float]] = {name: [] for name in sides}
    begin = clock()
    for index in range(rounds):
        for name in list(sides) if index % 2 == 0 else reversed(list(sides)):
            side, count = sides[name], calls[name]
            time.sleep(settle)
            if leads[name]:
                jax.block_until_ready(side())
            start = clock()
            for _ in range(count):
                jax.block_until_ready(side())
            found[name].append((clock() - start) / count)
        if index >= 2 and clock() - begin > seconds:
            break
    return {name: np.array(times) for name, times in found.items()}


def ratio(times: np.ndarray, reference: np.ndarray) -> Ratio:
    """Median and quartiles of `times / reference`, round by round."""
    low, median, high = np.percentile(times / reference, [25, 50, 75])
    return Ratio(float(median), float(low), float(high))


def milliseconds(times: np.ndarray) -> float:
    return float(np.median(times) * 1e3)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    device = jax.devices()[0]
    versions = {}
    for name in ("jax", "jaxlib", "torch", "torchjd", "LibMTL", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "device": device.device_kind,
        "platform": device.platform,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "versions": versions,
    }


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Busy:
    """What others took of the machine's CPU time since this was made; on Linux."""

    def __init__(self) -> None:
        self._begin = self._read()

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        try:
            ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        except (OSError, ValueError):
            return None
        own = os.times()
        return sum(ticks[:8]), sum(ticks[:8]) - ticks[3] - ticks[4], (own.user + own.system) * os.sysconf("SC_CLK_TCK")

    def share(self) -> float:
        """From 0 to 1; NaN where it cannot be known. Above a few percent timings are not worth keeping."""
        now = self._read()
        if now is None or self._begin is None:
            return float("nan")
        everything, busy, own = (b - a for a, b in zip(self._begin, now, strict=True))
        return max(0.0, round((busy - own) / max(everything, 1.0), 3))


def _cpu() -> str:
    """Model name, and the family's numbers where a virtual machine hides the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    entries = dict(_entry(line) for line in lines if ":" in line)
    name = entries.get("model name", platform.machine())
    return f"{name} (family {entries['cpu family']}, model {entries['model']})" if "cpu family" in entries else name


def _entry(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def slug(facts: Mapping[str, Any]) -> str:
    """A machine's name for a file: device and cores."""
    name = facts["cpu"] if facts["platform"] == "cpu" else facts["device"]
    return re.sub(r"[^a-z0-9]+", "-", f"{name} {facts['cores']} cores".lower()).strip("-")


def write(name: str, facts: Mapping[str, Any], results: Mapping[str, Any], path: Path | None = None) -> Path:
    """Write results as JSON, to `benchmarks/results/<name>-<machine>.json` unless told otherwise."""
    path = RESULTS / f"{name}-{slug(facts)}.json" if path is None else path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": facts, **results}, indent=1) + "\n")
    return path


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns in line; the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

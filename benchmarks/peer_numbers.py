"""How far our updates are from the peers': on the same Jacobians, and after 200 training steps from the same start.

    python -m benchmarks.peer_numbers [--libmtl DIRECTORY]

Needs the extra `bench`. A directory with LibMTL's repository is measured as "LibMTL main"; otherwise its lines are kept
as they stand in the result. Writes benchmarks/results/peer_numbers.json, which docs/methods.md quotes.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from benchmarks.peer_lines import LINES, Line
from mtljax import methods

RESULT = Path(__file__).parent / "results" / "peer_numbers.json"
STEPS, RATE = 200, 0.05
SHAPE = (5, 6)


class Problem(NamedTuple):
    """A small network with a tanh layer, tasks that want different things of it, and all of the data at every step."""

    shared: np.ndarray
    heads: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray


class Trained(NamedTuple):
    """A run: the shared matrix and the heads, at the start, after one step and after all."""

    shared: list[np.ndarray]
    heads: list[np.ndarray]


def problem(tasks: int) -> Problem:
    draw = np.random.default_rng(tasks)
    inputs = draw.normal(size=(32, 5))
    # With noise, so that no loss gets near 0, where methods that divide by losses are chaotic.
    targets = np.tanh(inputs @ draw.normal(size=(5, tasks))) + draw.normal(size=(32, tasks))
    targets = targets.T * np.array([3.0, 1.0, 0.5])[:tasks, None]
    return Problem(0.5 * draw.normal(size=SHAPE), 0.5 * draw.normal(size=(tasks, 6)), inputs, targets)


def jacobians(line: Line) -> list[np.ndarray]:
    """Twenty: as many parameters as tasks, and more; rows of one length or far apart. Of a given shape: Gaussian."""
    tasks = line.tasks
    draw = np.random.default_rng(10 + tasks)
    if line.only is not None:
        return list(draw.normal(size=(20, *line.only)))
    return [
        draw.normal(size=(tasks, tasks + 5 * (number % 2))) * np.exp((number % 4 > 1) * draw.normal(size=(tasks, 1)))
        for number in range(20)
    ]


def our_method(line: Line) -> mtljax.Method:
    return eval(line.ours, {"optax": optax, "log": np.log, **vars(methods.options), **vars(methods)})


def our_draws(line: Line, key: jax.Array, shape: tuple[int, ...]) -> np.ndarray:
    """What the method here draws of a key, with shared parameters of a shape; for the peer to draw the same."""
    if line.ours.startswith("graddrop"):
        return np.asarray(jax.random.uniform(jax.random.split(key, 1)[0], shape))
    return np.asarray([jax.random.normal(jax.random.fold_in(key, rank)) for rank in range(line.tasks)])


def our_updates(line: Line, rows: list[np.ndarray]) -> list[np.ndarray]:
    method = our_method(line)
    losses, key = jnp.ones(len(rows[0])), jax.random.key(0)
    update = jax.jit(lambda jacobian: mtljax.aggregate(method, jacobian, losses=losses, key=key))
    return [np.asarray(update(jnp.float32(jacobian)), np.float64) for jacobian in rows]


def our_run(line: Line) -> Trained:
    start = problem(line.tasks)
    inputs, targets = jnp.float32(start.inputs), jnp.float32(start.targets)

    def losses_fn(params, state, batch, key, train):
        hidden = jnp.tanh(inputs @ params.shared)
        return {k: jnp.mean((hidden @ params.tasks[k] - targets[int(k)]) ** 2) for k in params.tasks}, mtljax.Aux(state)

    init, step = mtljax.training.make_train_step(losses_fn, our_method(line), optax.sgd(RATE))
    params = mtljax.Params(jnp.float32(start.shared), {str(k): jnp.float32(h) for k, h in enumerate(start.heads)})

    @jax.jit
    def run(state):
        def body(state, _):
            state, _ = step(state, None)
            return state, state.params

        return jax.lax.scan(body, state, None, length=STEPS)[1]

    path = run(init(params, key=jax.random.key(0)))
    at = (0, STEPS - 1)
    return Trained(
        [start.shared, *(np.asarray(path.shared[k], np.float64) for k in at)],
        [start.heads, *(np.stack([np.asarray(path.tasks[name][k], np.float64) for name in path.tasks]) for k in at)],
    )


def their_updates(line: Line, rows: list[np.ndarray], fresh: Callable[[], Any]) -> list[np.ndarray]:
    """First updates at losses of 1, each of a fresh method."""
    import torch

    from benchmarks.peer_sides import drawing

    updates = []
    for jacobian in rows:
        shared = torch.nn.Parameter(torch.zeros(jacobian.shape[1]))
        losses = torch.tensor(jacobian, dtype=torch.float32) @ shared + 1.0
        with drawing(our_draws(line, jax.random.key(0), shared.shape)):
            fresh().backward(losses, shared, [])
        assert shared.grad is not None
        updates.append(shared.grad.numpy().astype(np.float64).copy())
    return updates


def their_run(line: Line, fresh: Callable[[], Any]) -> Trained:
    import torch

    from benchmarks.peer_sides import drawing

    start = problem(line.tasks)
    inputs, targets = (torch.tensor(array, dtype=torch.float32) for array in (start.inputs, start.targets))
    shared = torch.nn.Parameter(torch.tensor(start.shared, dtype=torch.float32))
    heads = [torch.nn.Parameter(torch.tensor(head, dtype=torch.float32)) for head in start.heads]

    def losses_now() -> Any:
        hidden = torch.tanh(inputs @ shared)
        return torch.stack([((hidden @ head - targets[k]) ** 2).mean() for k, head in enumerate(heads)])

    side, saved = fresh(), ([start.shared], [start.heads])
    for number in range(STEPS):
        for parameter in (shared, *heads):
            parameter.grad = None
        losses = losses_now()
        # As `make_train_step` folds and splits its key.
        key = jax.random.split(jax.random.fold_in(jax.random.key(0), number))[1]
        with drawing(our_draws(line, key, SHAPE)):
            side.backward(losses, shared, heads)
        with torch.no_grad():
            for parameter in (shared, *heads):
                parameter -= RATE * parameter.grad
            moved = losses_now()
        side.after(number, losses.detach(), moved)
        if number in (0, STEPS - 1):
            saved[0].append(shared.detach().numpy().astype(np.float64).copy())
            saved[1].append(np.stack([head.detach().numpy().astype(np.float64) for head in heads]))
    return Trained(*saved)


def distance(found: np.ndarray, expected: np.ndarray, start: Any = 0.0) -> float:
    """Of what the peer moved."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected - start))


def measure(line: Line, weighting: Any = None) -> dict[str, Any]:
    """A line's differences. Numbers are shares of the length of the peer's own update or move; None: not measured."""
    from benchmarks import peer_sides

    def fresh() -> peer_sides.Side:
        return peer_sides.torchjd_side(line) if line.library == "TorchJD" else peer_sides.libmtl_side(line, weighting)

    rows = jacobians(line)
    apart = [distance(*pair) for pair in zip(our_updates(line, rows), their_updates(line, rows, fresh), strict=True)]
    found = {
        "library": line.library,
        "theirs": line.theirs,
        "ours": line.ours,
        "only": line.only and list(line.only),
        "median": float(np.median(apart)),
        "worst": max(apart),
    }
    if line.only is not None:
        return {**found, "heads": None, "trained": None, "trained_heads": None}
    ours, theirs = our_run(line), their_run(line, fresh)
    return {
        **found,
        "heads": distance(ours.heads[1], theirs.heads[1], ours.heads[0]),
        "trained": distance(ours.shared[2], theirs.shared[2], ours.shared[0]),
        "trained_heads": distance(ours.heads[2], theirs.heads[2], ours.heads[0]),
    }


def as_markdown(lines: list[dict[str, Any]]) -> str:
    """The table that docs/methods.md shows.

    Example:
        >>> line = {"library": "TorchJD", "theirs": "Sum()", "ours": "equal()", "only": None, "median": 0.0}
        >>> line |= {"worst": 1e-7, "heads": 0.0, "trained": 2.5e-4, "trained_heads": 0.15}
        >>> print(as_markdown([line]).splitlines()[-1])
        | TorchJD | Sum() | `equal()` | 0 | 0 | 0 | .025 % | 15 % |
    """

    def share(number: float | None) -> str:
        if number is None:
            return ""
        if number < 5e-6:
            return "0"
        percent = (
            f"{100 * number:.{max(0, 1 - int(np.floor(np.log10(100 * number))))}f}"
            if number < 0.1
            else f"{100 * number:.0f}"
        )
        percent = percent.rstrip("0").rstrip(".") if "." in percent else percent
        return f"{percent.removeprefix('0') if percent.startswith('0.') else percent} %"

    names = ("median", "worst", "heads", "trained", "trained_heads")
    header = ("library", "its method", "here", "draws, median", "draws, worst", "heads, step 1")
    header = (*header, "shared, 200 steps", "heads, 200 steps")
    table = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for line in lines:
        theirs = line["theirs"] + (" on {} x {}".format(*line["only"]) if line["only"] else "")
        cells = (line["library"], theirs, f"`{line['ours']}`", *(share(line[name]) for name in names))
        table.append("| " + " | ".join(cells) + " |")
    return "\n".join(table)


def main() -> None:
    from benchmarks.peer_sides import import_libmtl_from
    from benchmarks.peers import import_libmtl

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libmtl", type=Path, help="LibMTL's repository, for the lines of LibMTL main")
    libmtl_main = parser.parse_args().libmtl
    old = json.loads(RESULT.read_text()) if RESULT.exists() else {"versions": {}, "lines": []}
    versions = {name: importlib.metadata.version(name) for name in ("torchjd", "LibMTL", "torch", "jax")}
    versions["LibMTL main"] = old["versions"].get("LibMTL main", "")
    if libmtl_main is not None:
        commit = ["git", "-C", str(libmtl_main), "rev-parse", "--short", "HEAD"]
        versions["LibMTL main"] = subprocess.run(commit, check=True, capture_output=True, text=True).stdout.strip()
    lines, weighting = [], import_libmtl()[1]
    for line in LINES:
        if line.library == "LibMTL main":
            if libmtl_main is None:
                lines += [
                    kept for kept in old["lines"] if kept["library"] == line.library and kept["theirs"] == line.theirs
                ]
                continue
            if weighting.__file__ != str(libmtl_main / "LibMTL" / "weighting" / "__init__.py"):
                weighting = import_libmtl_from(libmtl_main)
        lines.append(measure(line, weighting))
        print(as_markdown(lines[-1:]).splitlines()[-1], flush=True)
        RESULT.write_text(json.dumps({"versions": versions, "lines": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()

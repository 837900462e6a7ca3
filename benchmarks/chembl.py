"""ChEMBL: a bank of 691 heads beside the program that one would write by hand, on the same data: errors and times.

python -m benchmarks.chembl [--seeds 3] [--epochs 15] [--data-dir DIR] [--out FILE]

The data are `mtljax.data.load_chembl`'s, which needs `mtljax[molecules]`; the network is that of `examples/chembl.py`:
fingerprints of 1,024 bits, one hidden layer of 512 ReLU units with dropout, 691 outputs. By hand it is a matrix of
`[512, 691]`, the mean of squared errors over the labels of the batch, and Adam, in plain jax and optax. Ours is
`sharing.hard` with a bank, under `methods.pooled()`, which is that objective, and under `methods.equal()`.

Errors are those of the epoch that is best on the validation split. Step times are of one batch on the device, all
programs in turn; tracing and compiling are timed apart, once each, after the first in the process.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from benchmarks import timing
from examples import chembl
from mtljax.types import Array, Batch, Key

GOAL_ERROR, GOAL_RATIO = 0.755, 1.3  # validation error over all labels; step time over the one by hand


class ByHand(NamedTuple):
    """The program by hand: `init(key) -> state`, `step(state, x, y, mask) -> state`, `predict(params, x)`."""

    init: Callable[..., Any]
    step: Callable[..., Any]
    predict: Callable[..., Array]


def by_hand(num_bits: int, num_targets: int) -> ByHand:
    optimizer = optax.adam(chembl.LEARNING_RATE)

    def init(key: Key) -> Any:
        first, second, own = jax.random.split(key, 3)
        normal = jax.nn.initializers.lecun_normal()
        params = {
            "w1": normal(first, (num_bits, chembl.WIDTH)),
            "b1": jnp.zeros(chembl.WIDTH),
            "w2": normal(second, (chembl.WIDTH, num_targets)),
            "b2": jnp.zeros(num_targets),
        }
        return params, optimizer.init(params), own, jnp.int32(0)

    def hidden(params: Any, x: Array) -> Array:
        return jax.nn.relu(x @ params["w1"] + params["b1"])

    def loss(params: Any, key: Key, x: Array, y: Array, mask: Array) -> Array:
        keep = jax.random.bernoulli(key, 1 - chembl.DROPOUT, (len(x), chembl.WIDTH))
        features = jnp.where(keep, hidden(params, x) / (1 - chembl.DROPOUT), 0)
        error = jnp.where(mask, features @ params["w2"] + params["b2"] - y, 0)
        return jnp.sum(error**2) / jnp.maximum(jnp.sum(mask), 1)

    def step(state: Any, x: Array, y: Array, mask: Array) -> tuple[Any, Array]:
        params, memory, key, count = state
        value, slope = jax.value_and_grad(loss)(params, jax.random.fold_in(key, count), x, y, mask)
        updates, memory = optimizer.update(slope, memory, params)
        return (optax.apply_updates(params, updates), memory, key, count + 1), value

    def predict(params: Any, x: Array) -> Array:
        return hidden(params, x) @ params["w2"] + params["b2"]

    return ByHand(init, jax.jit(step, donate_argnums=0), jax.jit(predict))


def train_by_hand(splits: dict[str, Batch], scale: chembl.Scale, *, epochs: int, seed: int) -> dict[str, Any]:
    data = splits["train"]
    program = by_hand(data.inputs.shape[1], data.targets[chembl.ENTRY].shape[1])
    state, best = program.init(jax.random.key(seed)), {"validation": {"labels": np.inf}}
    stream = mtljax.data.batches(data, batch_size=chembl.BATCH_SIZE, seed=seed)
    taken = []
    for epoch in range(1, epochs + 1):
        begun = time.perf_counter()
        for _ in range(len(data.inputs) // chembl.BATCH_SIZE):
            batch = next(stream)
            state, _ = program.step(state, batch.inputs, batch.targets[chembl.ENTRY], batch.mask[chembl.ENTRY])
        jax.block_until_ready(state)
        taken.append(time.perf_counter() - begun)
        found = {}
        for name in ("validation", "test"):
            mask, split = splits[name].mask[chembl.ENTRY], splits[name]
            error = np.where(mask, program.predict(state[0], split.inputs) - split.targets[chembl.ENTRY], 0)
            with np.errstate(invalid="ignore"):
                found[name] = chembl.errors((error**2).sum(0) / np.asarray(mask).sum(0), split, scale)
        if found["validation"]["labels"] < best["validation"]["labels"]:
            best = {**found, "epoch": epoch}
    return {**best, "seconds": float(np.median(taken[1:]))}


def programs(splits: dict[str, Batch], names: tuple[str, ...]) -> dict[str, tuple[Callable[..., Any], Any, tuple]]:
    """By name, the jitted step, a first state, and the other arguments, on the device."""
    data = splits["train"]
    batch = jax.device_put(jax.tree.map(lambda array: array[: chembl.BATCH_SIZE], data))
    hand = by_hand(data.inputs.shape[1], len(names))
    arrays = (batch.inputs, batch.targets[chembl.ENTRY], batch.mask[chembl.ENTRY])
    found: dict[str, Any] = {"by hand": (hand.step, hand.init(jax.random.key(0)), arrays)}
    rows = chembl.contestants(names)
    for name in ("pooled", "equal"):
        row = rows[name]
        init, step = mtljax.training.make_train_step(
            mtljax.make_losses_fn(row.model, chembl.TASKS), row.method, row.optimizer
        )
        found[name] = (mtljax.training.jit(step), init(jax.random.key(0), batch.inputs), (batch,))
    return found


def times(found: dict[str, tuple[Callable[..., Any], Any, tuple]], rounds: int) -> dict[str, dict[str, Any]]:
    """Milliseconds a step, their ratio to the program by hand, and seconds of tracing and compiling."""
    record: dict[str, dict[str, Any]] = {name: {} for name in found}
    for name, (step, state, others) in list(found.items())[:1] + list(found.items()):  # the first warms up
        jax.clear_caches()
        _, trace_s, compile_s = timing.build(step, state, *others)
        record[name] = {"trace s": trace_s, "compile s": compile_s}
    states = {name: state for name, (_, state, _) in found.items()}

    def side(name: str) -> Callable[[], Any]:
        step, _, others = found[name]

        def call() -> Any:
            states[name], told = step(states[name], *others)
            return told

        return call

    taken = timing.alternate({name: side(name) for name in found}, rounds=rounds, seconds=60, turn=0.15)
    for name, each in taken.items():
        record[name] |= {
            "step ms": timing.milliseconds(each),
            "ratio": timing.ratio(each, taken["by hand"])._asdict(),
        }
    return record


def show(records: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name, record in records.items():
        ratio = timing.Ratio(**record["ratio"])
        cells = [name, f"{record['step ms']:.2f}", str(ratio), f"{record['trace s']:.2f}", f"{record['compile s']:.2f}"]
        for split in ("validation", "test"):
            found = np.array([run[split]["labels"] for run in record["runs"]])
            spread = f" ± {found.std(ddof=1):.3f}" if len(found) > 1 else ""
            cells.append(f"{found.mean():.3f}{spread}" if len(found) else "")
        lines.append(cells)
    return timing.table(["program", "step ms", "/ by hand", "trace s", "compile s", "validation", "test"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="0 for the times alone")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--data-dir", type=Path, default=Path("outputs/chembl/data"))
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    splits, scale = chembl.load(arguments.data_dir)
    names = mtljax.data.banks("chembl")[chembl.ENTRY]
    facts, busy = timing.machine(), timing.Busy()
    records = times(programs(splits, names), arguments.rounds)
    settings = {"seeds": arguments.seeds, "epochs": arguments.epochs}
    results = {"busy": busy.share(), "settings": settings, "records": records}
    rows = chembl.contestants(names)
    for name, record in records.items():
        record["runs"] = []
        run = train_by_hand if name == "by hand" else functools.partial(chembl.train, rows[name])
        for seed in range(arguments.seeds):
            record["runs"].append(run(splits, scale, epochs=arguments.epochs, seed=seed))
    path = timing.write("chembl", facts, results, arguments.out)
    print(f"{show(records)}\n\nGoals: {GOAL_ERROR} and {GOAL_RATIO}. Written to {path}")


if __name__ == "__main__":
    main()

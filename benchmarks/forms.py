"""Data sets whose tasks are of one form: a bank of heads beside an entry for each task, the same network and examples.

python -m benchmarks.forms [--sets sarcos tox21 sider computer_survey school] [--rounds 15] [--out FILE]

The data sets are those of `mtljax.data` that are banks (Tox21 and SIDER need `mtljax[molecules]`). The network is one
hidden layer of 64 ReLU units and a linear head for each task, under equal weighting and Adam, 128 examples a step (16,
which are all, of the computer survey). Of School, whose examples are of one task each, a step has 4 pupils of every
school: `Batch.task` for the bank, a dict of `Batch` by school for the entries.

Step times are of one batch on the device, both forms in turn. Tracing and compiling are timed apart, once each, after
the first in the process. Both forms must agree on the losses of the first step, to float32 rounding.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

import mtljax
from benchmarks import timing
from mtljax import sharing
from mtljax.adapters.flax_linen import from_linen
from mtljax.types import Array, Batch

SETS = ("sarcos", "tox21", "sider", "computer_survey", "school")
BATCH_SIZE, PUPILS, WIDTH = 128, 4, 64


class Trunk(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.relu(nn.Dense(WIDTH)(x))


class Head(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(1)(x)[:, 0]


def forms(name: str, data: Batch) -> dict[str, tuple[Any, Any, Any]]:
    """By form, the jitted step, a first state and a batch."""
    banks = mtljax.data.banks(name)
    ((entry, names),) = banks.items()
    if data.task:
        rows = np.concatenate([np.flatnonzero(data.task[entry] == k)[:PUPILS] for k in range(len(names))])
    else:
        rows = np.arange(min(BATCH_SIZE, len(data.inputs)))
    batch = jax.tree.map(lambda array: array[rows], data)
    apart = mtljax.data.multi_input(batch, banks) if data.task else mtljax.data.single_tasks(batch, banks)
    kind = batch.targets[entry].dtype.kind
    task = mtljax.Task(mtljax.losses.squared_error if kind == "f" else mtljax.losses.binary_cross_entropy)
    trunk, head = from_linen(Trunk()), from_linen(Head())
    sides = {
        "bank": ({entry: sharing.Bank(head, names)}, {entry: task}, batch),
        "entries": (dict.fromkeys(names, head), dict.fromkeys(names, task), apart),
    }
    found = {}
    for form, (heads, tasks, each) in sides.items():
        losses_fn = mtljax.make_losses_fn(sharing.hard(trunk, heads), tasks)
        init, step = mtljax.training.make_train_step(losses_fn, mtljax.methods.equal(), optax.adam(1e-3))
        state = jax.jit(init)(jax.random.key(0), batch.inputs[:1])
        found[form] = (mtljax.training.jit(step), state, jax.device_put(each))
    return found


def measure(name: str, data: Batch, rounds: int) -> dict[str, Any]:
    """Both forms of a data set."""
    found = forms(name, data)
    record: dict[str, Any] = {"set": name, "tasks": sum(map(len, mtljax.data.banks(name).values()))}
    states, losses = {}, {}
    for form, (step, state, batch) in found.items():
        _, trace_s, compile_s = timing.build(step, state, batch)
        record[form] = {"trace s": trace_s, "compile s": compile_s}
        states[form], told = step(state, batch)
        losses[form] = told["losses"].by_name()
    for task, loss in losses["bank"].items():
        np.testing.assert_allclose(loss, losses["entries"][task], rtol=1e-5)

    def call(form: str) -> Any:
        step, _, batch = found[form]
        states[form], told = step(states[form], batch)
        return told

    taken = timing.alternate({form: lambda form=form: call(form) for form in found}, rounds=rounds)
    for form, each in taken.items():
        record[form]["step ms"] = timing.milliseconds(each)
    record["ratio"] = timing.ratio(taken["entries"], taken["bank"])._asdict()
    return record


def show(records: list[dict[str, Any]]) -> str:
    lines = []
    for record in records:
        kinds = ("step ms", "trace s", "compile s")
        pairs = [f"{record['entries'][what]:.2f} > {record['bank'][what]:.2f}" for what in kinds]
        lines.append([record["set"], record["tasks"], *pairs, str(timing.Ratio(**record["ratio"]))])
    return timing.table(["entries > bank", "tasks", "step ms", "trace s", "compile s", "entries / bank"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--data-dir", type=Path, default=Path("outputs/data"))
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    facts, busy = timing.machine(), timing.Busy()
    jax.jit(jnp.sin)(1.0)
    records = []
    for name in arguments.sets:
        splits = mtljax.data.load(name, data_dir=arguments.data_dir)
        records.append(measure(name, splits["all" if name == "school" else "train"], arguments.rounds))
        print(show(records[-1:]).splitlines()[-1], flush=True)
        jax.clear_caches()
    path = timing.write("forms", facts, {"busy": busy.share(), "records": records}, arguments.out)
    print(f"\n{show(records)}\n\nWritten to {path}")


if __name__ == "__main__":
    main()

"""Records a second of every way to feed a training step, and how long the step waits for each.

python -m benchmarks.input [--quick] [--kinds mlp conv] [--out FILE]

Rows are 36 x 36 uint8 images with two labels, as in the two-digit sets, drawn at random; 140,000 of them in memory and
20,000 on disk, which the speed of random access does not depend on. Batches have 256. Each way runs by itself, since
what fetches ahead would otherwise take the time of the others.

A step waits for its input in `next`, and longer where a transfer has to end first. Both are in "longer step": how much
longer a step lasts than one that is given the same batch, already on the device, again and again. "in next" is the
part that passes there.
"""

from __future__ import annotations

import argparse
import functools
import gc
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tensorflow_datasets as tfds

import mtljax
from benchmarks import nets, timing
from mtljax.data.batches import batches
from mtljax.data.mixing.draws import systematic
from mtljax.data.mixing.stream import mix
from mtljax.data.on_device import on_device
from mtljax.data.sets.prepared import prepare

BATCH, SIDE = 256, 36
IN_MEMORY, ON_DISK = 140_000, 20_000
LABELS = ("task00", "task01")  # nets' names
DEFAULT, NAIVE = "batches (default)", "grain over TFDS rows"
GOAL = 10.0  # the default's speed over the naive way's

Record = dict[str, Any]


def rows_on_disk(folder: str) -> Any:
    """The same kind of rows, prepared by TFDS; a random-access source."""

    class Rows(tfds.core.GeneratorBasedBuilder):
        """Random images and labels."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            features: dict[str, Any] = {name: tfds.features.Scalar(np.int32) for name in LABELS}
            features["image"] = tfds.features.Tensor(shape=(SIDE, SIDE), dtype=np.uint8)
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, Any]]]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, Any]]:
            data = arrays(ON_DISK)
            for row in range(ON_DISK):
                yield row, {"image": data.inputs[row], **{name: int(data.targets[name][row]) for name in LABELS}}

    return prepare("rows", functools.partial(Rows, file_format="array_record"), folder).as_data_source("train")


def arrays(size: int) -> mtljax.Batch:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, SIDE, SIDE), dtype=np.uint8)
    return mtljax.Batch(images, {name: rng.integers(0, 10, size).astype(np.int32) for name in LABELS})


def collate(rows: Sequence[Any]) -> mtljax.Batch:
    targets = {name: np.array([row[name] for row in rows], np.int32) for name in LABELS}
    return mtljax.Batch(np.stack([row["image"] for row in rows]), targets)


def streams(data: mtljax.Batch, rows: Any) -> dict[str, Callable[[], Iterator[Any]]]:
    """Every way to feed a step from outside, by name."""

    def by_hand() -> Iterator[mtljax.Batch]:
        for epoch in itertools.count():
            order = np.random.default_rng(epoch).permutation(IN_MEMORY)
            for start in range(0, IN_MEMORY - BATCH + 1, BATCH):
                part = order[start : start + BATCH]
                yield jax.tree.map(lambda array, part=part: array[part], data)

    def grain_over_rows() -> Iterator[mtljax.Batch]:
        import grain

        dataset = grain.MapDataset.source(rows).shuffle(seed=0).repeat().to_iter_dataset()
        return iter(dataset.batch(BATCH, batch_fn=collate))

    def mixed() -> Iterator[Any]:
        own = {name: data._replace(targets={name: data.targets[name]}) for name in LABELS}
        return mix(own, dict.fromkeys(LABELS, 0.5), batch_size=BATCH, seed=0, draw=systematic, capacity=BATCH // 2)

    device = jax.devices()[0]
    return {
        "NumPy by hand": by_hand,
        DEFAULT: lambda: batches(data, batch_size=BATCH, seed=0),
        "batches, to the device, 2 ahead": lambda: batches(data, batch_size=BATCH, seed=0, device=device),
        "mix of two tasks": mixed,
        "batches of TFDS rows, one at a time": lambda: batches(
            rows, batch_size=BATCH, seed=0, collate=collate, prefetch=0
        ),
        "batches of TFDS rows, 2 ahead": lambda: batches(rows, batch_size=BATCH, seed=0, collate=collate),
        NAIVE: grain_over_rows,
    }


def speed(step: Callable[[], Any], *, seconds: float, parts: int = 5) -> list[float]:
    """Records a second in each of several stretches, after one that is not counted."""
    found = []
    for _ in range(parts + 1):
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds / parts:
            out = step()
            count += 1
        jax.block_until_ready(out)
        found.append(count * BATCH / (time.perf_counter() - begin))
    return found[1:]


def throughput(data: mtljax.Batch, rows: Any, *, seconds: float) -> list[Record]:
    """Records a second of every way alone, with no step to feed."""
    records = []
    for name, make in streams(data, rows).items():
        stream = make()
        records.append(_quartiles(name, speed(lambda stream=stream: next(stream), seconds=seconds)))
        del stream
        gc.collect()
    resident, take = on_device(data, batch_size=BATCH, seed=0)
    steps, drawn = itertools.count(), jax.jit(take)
    records.append(_quartiles("on_device", speed(lambda: drawn(resident, next(steps)), seconds=seconds)))
    return records


def _quartiles(name: str, speeds: list[float]) -> Record:
    low, median, high = np.percentile(speeds, [25, 50, 75])
    return {"name": name, "records_per_second": float(median), "low": float(low), "high": float(high)}


def waiting(kind: str, data: mtljax.Batch, rows: Any, *, steps: int, rounds: int) -> list[Record]:
    """How much of a training step is waiting, for each way; in turns, so that a busy moment hits all alike."""
    problem = nets.make_problem(kind, len(LABELS), BATCH)
    model = nets.model(problem)
    losses_fn = nets.losses_fn(problem, model)
    init, step = mtljax.training.make_train_step(losses_fn, mtljax.methods.equal(), optax.sgd(1e-3))

    def on_images(state: Any, batch: mtljax.Batch) -> Any:
        # The networks of the other benchmarks see 28 x 28; which part of noise they see does not matter.
        images = batch.inputs[:, 4:-4, 4:-4].astype(jnp.float32) / 255
        images = images[..., None] if kind == "conv" else images.reshape(BATCH, -1)
        return step(state, batch._replace(inputs=images))

    plain = jax.jit(on_images, donate_argnums=0)
    resident, take = on_device(data, batch_size=BATCH, seed=0)
    drawing = jax.jit(lambda state, data: on_images(state, take(data, state.step)), donate_argnums=0)

    def run(name: str) -> tuple[float, float]:
        """Seconds a step, and the part of them that passes in `next`."""
        state = init(*model.init(jax.random.key(0), problem.inputs), key=jax.random.key(0))
        make = ways.get(name)
        stream = None if make is None else make()
        waited, begin = 0.0, 0.0
        for number in range(-5, steps):
            if number == 0:
                jax.block_until_ready(state)
                waited, begin = 0.0, time.perf_counter()
            if stream is None:
                state, _ = drawing(state, resident) if name == "on_device" else plain(state, same)
            else:
                before = time.perf_counter()
                batch = next(stream)
                waited += time.perf_counter() - before
                state, _ = plain(state, batch)
            jax.block_until_ready(state)
        return (time.perf_counter() - begin) / steps, waited / steps

    same = jax.tree.map(jnp.asarray, jax.tree.map(lambda array: array[:BATCH], data))
    ways = {name: make for name, make in streams(data, rows).items() if not name.startswith("mix")}
    names = ["the same batch", *ways, "on_device"]
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for index in range(rounds):
        for name in names if index % 2 == 0 else reversed(names):
            taken[name].append(run(name))
            gc.collect()
    bare = np.array([total for total, _ in taken[names[0]]])
    records = []
    for name in names:
        total, waited = np.array(taken[name]).T
        records.append(
            {
                "kind": kind,
                "name": name,
                "ms": timing.milliseconds(total),
                "in_next": float(np.median(waited / total)),
                "longer": timing.ratio(total, bare)._asdict(),
            }
        )
    return records


def show_speed(records: Sequence[Record]) -> str:
    naive = next(record["records_per_second"] for record in records if record["name"] == NAIVE)
    lines = ["| way | records/s | quartiles | times grain over rows |", "|---|---:|---:|---:|"]
    for record in records:
        found, low, high = (record[key] for key in ("records_per_second", "low", "high"))
        lines.append(f"| {record['name']} | {found:,.0f} | {low:,.0f} to {high:,.0f} | {found / naive:.3g} |")
    return "\n".join(lines)


def show_waiting(records: Sequence[Record]) -> str:
    lines = ["| network | way | ms a step | in next | longer step |", "|---|---|---:|---:|---:|"]
    for record in records:
        longer = timing.Ratio(**record["longer"])
        lines.append(
            f"| {record['kind']} | {record['name']} | {record['ms']:.2f} | {record['in_next']:.1%} | "
            f"{longer.median - 1:+.1%} [{longer.low - 1:+.1%}, {longer.high - 1:+.1%}] |"
        )
    return "\n".join(lines)


def judge(records: Sequence[Record]) -> str:
    found = {record["name"]: record["records_per_second"] for record in records}
    factor = found[DEFAULT] / found[NAIVE]
    return f"the default path over grain over rows: {factor:.0f} times, goal {GOAL:.0f}: {_verdict(factor >= GOAL)}"


def _verdict(reached: bool) -> str:
    return "reached" if reached else "MISSED"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short stretches, one network")
    parser.add_argument("--kinds", nargs="+", choices=["mlp", "conv"], default=["mlp", "conv"])
    parser.add_argument("--out", type=Path, help="file for the results")
    options = parser.parse_args(argv)
    facts, busy, begin = timing.machine(), timing.Busy(), time.perf_counter()
    tfds.disable_progress_bar()
    data = arrays(IN_MEMORY)
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_on_disk(folder)
        speeds = throughput(data, rows, seconds=0.5 if options.quick else 5.0)
        print(f"{show_speed(speeds)}\n\n{judge(speeds)}\n", flush=True)
        waits = []
        for kind in options.kinds[: 1 if options.quick else None]:
            waits += waiting(kind, data, rows, steps=10 if options.quick else 20, rounds=3 if options.quick else 15)
    share = busy.share()
    results = {"quick": options.quick, "busy": share, "batch": BATCH, "speeds": speeds, "waiting": waits}
    path = timing.write("input-quick" if options.quick else "input", facts, results, options.out)
    print(show_waiting(waits))
    print(f"\n{time.perf_counter() - begin:.0f} s; other processes took {share:.1%} of the CPU.\nWritten to {path}")


if __name__ == "__main__":
    main()

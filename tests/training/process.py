"""One process of several that train together: `python -m tests.training.process NUMBER COUNT PORT DIRECTORY STEPS HOW`.

HOW is "replicated", or "spread" for parameters of which no process has the whole; with "slow" each step takes a while,
and with "blind" the last process cannot read the checkpoint of step 8. Prints the step that it starts from, and the
norm that it ends with.
"""

from __future__ import annotations

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mtljax.training import fit
from mtljax.training.checkpoint import reading
from tests.training.problem import batch_at, make_state, step


def blind(path):
    if path.name == "mtljax_8":
        raise reading.DamagedCheckpoint("blind")
    return READ_FACTS(path)


READ_FACTS = reading.read_facts


def main(number, count, port, directory, num_steps, how):
    if "blind" in how and int(number) == int(count) - 1:
        reading.read_facts = blind
    jax.distributed.initialize(f"localhost:{port}", int(count), int(number))
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))

    def spread_of(leaf):
        axes = ("data",) if "spread" in how and leaf.ndim and leaf.shape[0] % jax.device_count() == 0 else ()
        return NamedSharding(mesh, PartitionSpec(*axes))

    state = make_state(features=4)
    shardings = jax.tree.map(spread_of, state)
    rows_apart, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], []))
    jitted = jax.jit(step, in_shardings=(shardings, rows_apart), out_shardings=(shardings, everywhere))
    state = jax.jit(lambda: make_state(features=4), out_shardings=shardings)()

    def batches(start):
        while True:
            batch = batch_at(start)
            batch["x"] = np.concatenate([batch["x"], batch["x"][:, :1]], 1)
            rows = slice(int(number) * 4, int(number) * 4 + 4)
            yield {name: jax.make_array_from_process_local_data(rows_apart, leaf[rows]) for name, leaf in batch.items()}
            start += 1

    begun = []

    def watched(state, batch):
        if not begun:
            print("from", int(state.step), flush=True)
        begun.append(None)
        time.sleep(0.05 if "slow" in how else 0)
        return jitted(state, batch)

    watched.__wrapped__ = jitted
    result = fit(
        *(watched, state, batches),
        num_steps=int(num_steps),
        evaluate=lambda state: {"norm": jax.jit(jnp.linalg.norm)(state.params.shared["w"])},
        log=directory + "/log.jsonl",
        log_every=2,
        checkpoint_dir=directory + "/c",
        checkpoint_every=4,
        progress=False,
    )
    assert result.record is not None
    print("norm", result.record["eval"]["norm"], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

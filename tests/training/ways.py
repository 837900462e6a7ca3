"""The ways to run a step on many devices, for tests that compare them with one device."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import jax
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

from mtljax import training

# pmap takes all there are; a mesh, and seeds on devices of their own, need no more than what tells many from two.
DEVICES, MESHED = 8, 4

needs_devices = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")


def mesh(name: str) -> Mesh:
    return jax.make_mesh((MESHED,), (name,), axis_types=(AxisType.Auto,), devices=jax.devices()[:MESHED])


def many_ways(names: Sequence[str], at_once: Collection[tuple[str, str]]) -> list:
    """Pairs `(name, how)` of every method and every way; those that are not run at once are slow tests."""
    return [
        pytest.param(name, how, marks=[] if (name, how) in at_once else pytest.mark.slow)
        for name in names
        for how in ("sharded", "pmap", "shard_map")
    ]


def compiled(step, batch, how: str):
    """The step, made for the axis "batch" where it is mapped, and the batch as it takes it."""
    if how == "jit":
        return training.jit(step), batch
    if how == "sharded":
        return training.sharded(step, mesh("data")), batch
    if how == "pmap":
        return training.pmap(step), training.split_batch(batch, DEVICES)
    specs = (PartitionSpec(), PartitionSpec("batch"))
    mapped = jax.shard_map(step, mesh=mesh("batch"), in_specs=specs, out_specs=PartitionSpec())
    return jax.jit(mapped), batch

"""Batches: every example once an epoch, divided among processes, ahead on the device, resumed at the very next one."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest

from mtljax.data.batches import batches
from mtljax.types import Batch


def numbered(size):
    index = np.arange(size, dtype=np.int32)
    targets, mask = {"a": (2 * index).astype(np.float32)}, {"a": index % 2 == 0}
    return Batch({"row": index, "image": np.stack([index, -index], 1)}, targets, mask)


class Rows:
    """A random-access source that says what it was asked for."""

    def __init__(self, size, many=True):
        self.size, self.asked = size, []
        if many:
            self.__getitems__ = lambda rows: [self[row] for row in rows]

    def __len__(self):
        return self.size

    def __getitem__(self, row):
        assert type(row) is int  # TFDS takes no NumPy integers
        self.asked.append(row)
        return {"row": row, "a": 2.0 * row}


def collate(rows):
    return Batch(np.array([row["row"] for row in rows]), {"a": np.array([row["a"] for row in rows])})


def take(stream, count):
    return list(itertools.islice(stream, count))


def assert_equal(left, right):
    chex.assert_trees_all_equal(left, right, strict=True)


def test_each_epoch_is_the_permutation_drawn_from_seed_and_epoch():
    found = take(batches(numbered(11), batch_size=4, seed=3), 6)
    for step, batch in enumerate(found):
        order = np.random.default_rng([3, step // 2]).permutation(11)
        np.testing.assert_array_equal(batch.inputs["row"], order[4 * (step % 2) : 4 * (step % 2) + 4])


def test_an_epoch_is_a_permutation_and_epochs_differ():
    rows = np.concatenate([b.inputs["row"] for b in take(batches(numbered(12), batch_size=4, seed=0), 6)])
    first, second = rows[:12], rows[12:]
    assert sorted(first) == sorted(second) == list(range(12))
    assert first.tolist() != second.tolist()
    assert first.tolist() != list(range(12))


def test_examples_stay_whole():
    for batch in take(batches(numbered(10), batch_size=4, seed=1), 5):
        row = batch.inputs["row"]
        assert_equal(batch, jax.tree.map(lambda array, row=row: array[row], numbered(10)))


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 100])
def test_resuming_at_any_step_gives_the_same_batches(step):
    arguments = {"batch_size": 4, "seed": 3}
    undisturbed = take(batches(numbered(10), **arguments), step + 8)
    resumed = take(batches(numbered(10), **arguments, start_step=step), 8)
    for mine, other in zip(resumed, undisturbed[step:], strict=True):
        assert_equal(mine, other)


def test_a_saved_iterator_state_gives_the_same_batches():
    found = batches(numbered(10), batch_size=4, seed=3)
    take(found, 5)
    state = found.get_state()
    expected = take(found, 4)
    again = batches(numbered(10), batch_size=4, seed=3)
    again.set_state(state)
    for mine, other in zip(take(again, 4), expected, strict=True):
        assert_equal(mine, other)


def test_seeds_differ():
    rows = [next(batches(numbered(100), batch_size=100, seed=seed)).inputs["row"].tolist() for seed in (0, 1)]
    assert rows[0] != rows[1]


def test_a_far_step_costs_nothing():
    assert next(batches(numbered(10), batch_size=5, seed=0, start_step=10**12)).inputs["row"].shape == (5,)


def test_shapes_are_constant_and_the_rest_is_dropped():
    found = take(batches(numbered(11), batch_size=4, seed=0), 30)
    assert {b.inputs["image"].shape for b in found} == {(4, 2)}
    seen = np.concatenate([b.inputs["row"] for b in found])
    assert set(seen) == set(range(11))  # other examples are left out each time


def test_a_dict_of_batches_is_shuffled_together():
    both = {"x": numbered(6), "y": numbered(6)}
    batch = next(batches(both, batch_size=3, seed=0))
    assert_equal(batch["x"], batch["y"])


def test_batches_do_not_share_memory_with_the_data():
    data = numbered(4)
    next(batches(data, batch_size=4, seed=0)).inputs["row"][:] = -1
    assert data.inputs["row"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_order_over_all_processes_does_not_depend_on_their_number(count):
    whole = take(batches(numbered(18), batch_size=8, seed=0), 6)
    parts = [take(batches(numbered(18), batch_size=8, seed=0, shard=(i, count)), 6) for i in range(count)]
    for step in range(6):
        shares = [part[step] for part in parts]
        assert {len(share.inputs["row"]) for share in shares} == {8 // count}
        assert_equal(jax.tree.map(lambda *leaves: np.concatenate(leaves), *shares), whole[step])
    epoch = np.concatenate([batch.inputs["row"] for part in parts for batch in part[:2]])
    assert len(set(epoch)) == 16  # no row twice in an epoch, in whichever process


def test_a_process_reads_its_own_rows_alone():
    source = Rows(12)
    rows = np.concatenate(
        [b.inputs for b in batches(source, batch_size=4, seed=0, shard=(1, 2), epochs=1, collate=collate)]
    )
    assert source.asked == rows.tolist()
    assert len(rows) == 6


def test_epochs_end_and_may_be_in_order():
    rows = [b.inputs["row"].tolist() for b in batches(numbered(5), batch_size=2, seed=0, shuffle=False, epochs=2)]
    assert rows == [[0, 1], [2, 3], [0, 1], [2, 3]]
    stream = batches(numbered(4), batch_size=2, seed=0, epochs=3, start_step=4)
    assert len(list(stream)) == 2


@pytest.mark.parametrize("many", [True, False])
def test_rows_on_disk_come_in_the_order_of_arrays_in_memory(many):
    found = take(batches(Rows(10, many), batch_size=3, seed=5, collate=collate), 5)
    expected = take(batches(numbered(10), batch_size=3, seed=5), 5)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine.inputs, other.inputs["row"])
        np.testing.assert_array_equal(mine.targets["a"], other.targets["a"])


@pytest.mark.parametrize("prefetch", [0, 1, 2, 5])
@pytest.mark.parametrize("place", [False, True])
def test_a_state_is_that_of_the_last_batch_handed_out(prefetch, place):
    arguments = {"batch_size": 4, "seed": 1, "prefetch": prefetch, "device": jax.devices()[0] if place else None}
    stream = batches(numbered(10), **arguments, start_step=3)
    take(stream, 4)
    state = json.loads(json.dumps(stream.get_state()))
    expected = take(batches(numbered(10), batch_size=4, seed=1), 12)[7:]
    for again in (stream, batches(numbered(10), **arguments), batches(numbered(10), **arguments, start_step=5)):
        again.set_state(state)
        for mine, other in zip(take(again, 5), expected, strict=True):
            assert all(isinstance(leaf, jax.Array if place else np.ndarray) for leaf in jax.tree.leaves(mine))
            assert_equal(jax.tree.map(np.asarray, mine), other)


def test_batches_are_put_where_they_are_wanted():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batch = next(batches(numbered(16), batch_size=8, seed=0, device=spread))
    assert {leaf.sharding for leaf in jax.tree.leaves(batch)} == {spread}
    expected = next(batches(numbered(16), batch_size=8, seed=0))
    np.testing.assert_array_equal(batch.inputs["image"], expected.inputs["image"])


def test_an_error_in_the_source_reaches_the_reader():
    stream = batches(Rows(4), batch_size=2, seed=0, collate=lambda rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_weights_decide_how_often_an_example_is_drawn():
    weights = np.array([0.0, 1.0, 2.0, 5.0, 0.0])
    stream = batches(numbered(5), batch_size=4, seed=0, weights=1e-9 * weights)
    counts = np.bincount(np.concatenate([b.inputs["row"] for b in take(stream, 2000)]), minlength=5)
    assert counts[0] == counts[4] == 0
    expected = 8000 * weights / 8
    chi_square = ((counts - expected) ** 2 / np.maximum(expected, 1)).sum()
    assert chi_square < 13.8  # 2 degrees of freedom, once in a thousand
    again = next(batches(numbered(5), batch_size=4, seed=0, weights=weights, start_step=7))
    assert_equal(again, take(batches(numbered(5), batch_size=4, seed=0, weights=1e-9 * weights), 8)[7])


@pytest.mark.slow
def test_a_stream_left_open_ends_quietly():
    program = """
import numpy as np
from mtljax.data.batches import batches
stream = batches({"x": np.arange(100)}, batch_size=2, seed=0, prefetch=3)
next(stream)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 11}, "batch_size must be from 1 to 10, found 11"),
        ({"batch_size": 4, "shard": (0, 3)}, "must be a multiple of the 3 processes, found 4"),
        ({"shard": (2, 2)}, r"shard\[0\] must be from 0 to 1, found 2"),
        ({"seed": -1}, "seed must be at least 0, found -1"),
        ({"start_step": -2}, "start_step must be at least 0, found -2"),
        ({"prefetch": -1}, "prefetch must be at least 0, found -1"),
        ({"epochs": 0}, "epochs must be at least 1, found 0"),
        ({"weights": np.ones(9)}, r"weights must be of shape \[10\], found an array of shape \(9,\)"),
        ({"weights": np.zeros(10)}, "somewhere positive"),
        ({"weights": np.full(10, np.nan)}, "weights must be at least 0, found"),
        ({"weights": np.ones(10), "shuffle": False}, "shuffle must be True where there are weights, found False"),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(ValueError, match=f"batches: .*{message}"):
        batches(numbered(10), **({"batch_size": 2, "seed": 0} | changes))


def test_mistaken_sources():
    with pytest.raises(ValueError, match="batches: batch must hold arrays of one leading length"):
        batches({"x": np.zeros(3), "y": np.zeros(2)}, batch_size=1, seed=0)
    with pytest.raises(TypeError, match="must have __len__, and __getitem__ or __getitems__; found int"):
        batches(3, batch_size=1, seed=0, collate=collate)


PROCESS = """
import sys
import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

jax.distributed.initialize(f"localhost:{sys.argv[2]}", 2, int(sys.argv[1]))
from mtljax.data.batches import batches
from mtljax.data.on_device import on_device

mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
data = {"row": np.arange(40, dtype=np.int32)}
mine = batches(data, batch_size=8, seed=0, shard=(jax.process_index(), jax.process_count()), device=spread)
whole = batches(data, batch_size=8, seed=0)
for _ in range(7):
    found = next(mine)["row"]
    assert found.shape == (8,) and not found.is_fully_addressable
    np.testing.assert_array_equal(process_allgather(found, tiled=True), next(whole)["row"])
resident, take = on_device(data, batch_size=8, seed=0, mesh=mesh)
rows = [process_allgather(jax.jit(take)(resident, step)["row"], tiled=True) for step in range(5)]
assert sorted(np.concatenate(rows)) == list(range(40))
"""


@pytest.mark.slow
def test_two_processes_make_one_batch():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(index), port], env=os.environ | flags, stderr=subprocess.PIPE, text=True
        )
        for index in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors

"""Data on the device: an exact permutation every epoch, the same batches in a loop, a scan and after a resume."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import mtljax
from mtljax.data.on_device import on_device, permuted
from mtljax.types import Batch
from tests.training.problem import assert_same_bits


def numbered(size):
    index = np.arange(size, dtype=np.int32)
    image = np.stack([index, index + 1], 1).astype(np.uint8)
    return Batch({"row": index, "image": image}, {"a": (2 * index).astype(np.float32)}, {"a": index % 2 == 0})


def rows_of_steps(data, take, count):
    """Rows `[count, batch_size]` of steps 0 to count - 1, drawn in one loop on the device."""
    run = jax.jit(lambda data: jax.lax.scan(lambda step, _: (step + 1, take(data, step)), 0, length=count)[1])
    found = run(data)
    return np.asarray(found.inputs["row"]), found


@pytest.mark.parametrize(
    "size", [1, 17, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 16, 100, 4097, 10**6))]
)
def test_it_is_a_permutation_whatever_the_size(size):
    found = jax.jit(permuted, static_argnums=2)(jax.random.key(size), jnp.arange(size), size)
    np.testing.assert_array_equal(np.sort(found), np.arange(size))


def test_places_and_neighbors_are_uniform():
    size, draws = 11, 20_000
    keys = jax.random.split(jax.random.key(0), draws)
    found = np.asarray(jax.jit(jax.vmap(lambda key: permuted(key, jnp.arange(size), size)))(keys))
    counts = np.stack([np.bincount(column, minlength=size) for column in found.T])
    chi_square = ((counts - draws / size) ** 2 / (draws / size)).sum()
    assert chi_square < 149.4  # 100 degrees of freedom, once in a thousand
    for first, second in ((0, 1), (4, 5), (2, 9)):
        pairs = np.bincount(found[:, first] * size + found[:, second], minlength=size**2).reshape(size, size)
        expected = draws / (size * (size - 1))
        apart = ~np.eye(size, dtype=bool)
        assert ((pairs[apart] - expected) ** 2 / expected).sum() < 158.0  # 109 degrees of freedom, once in 700


def test_every_epoch_has_every_example_once_and_epochs_differ():
    data, take = on_device(numbered(12), batch_size=4, seed=0)
    rows, batches = rows_of_steps(data, take, 9)
    orders = rows.reshape(3, 12)
    for order in orders:
        assert sorted(order) == list(range(12))
    assert len({tuple(order) for order in orders}) == 3
    # Examples stay whole, of the types they had.
    np.testing.assert_array_equal(batches.inputs["image"], np.stack([rows, rows + 1], -1).astype(np.uint8))
    np.testing.assert_array_equal(batches.targets["a"], 2.0 * rows)
    np.testing.assert_array_equal(batches.mask["a"], rows % 2 == 0)
    assert batches.inputs["image"].dtype == jnp.uint8


@pytest.mark.slow
def test_what_is_left_over_differs_from_epoch_to_epoch():
    rows, _ = rows_of_steps(*on_device(numbered(10), batch_size=4, seed=1), 20)
    epochs = rows.reshape(10, 8)
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({frozenset(epoch) for epoch in epochs}) > 1


@pytest.mark.slow
def test_seeds_differ():
    assert not np.array_equal(*(rows_of_steps(*on_device(numbered(64), batch_size=64, seed=s), 1)[0] for s in (0, 1)))


def make_training():
    """A two-task regression; `(state, step)`."""

    def losses_fn(params, state, batch, key, train):
        outputs = batch.inputs["row"].astype(jnp.float32) / 16 * params.shared
        residual = {name: outputs * own - batch.targets["a"] / 16 for name, own in params.tasks.items()}
        return {name: jnp.mean(each**2) for name, each in residual.items()}, mtljax.Aux(state)

    init, step = mtljax.training.make_train_step(losses_fn, mtljax.methods.equal(), optax.sgd(0.1))
    params = mtljax.Params(jnp.float32(1), {"a": jnp.float32(1), "b": jnp.float32(-1)})
    return init(params, key=jax.random.key(0)), step


@pytest.mark.slow
def test_a_loop_a_scan_and_a_resumed_run_are_one():
    data, take = on_device(numbered(16), batch_size=4, seed=0)
    start, step = make_training()
    one = jax.jit(lambda state, data: step(state, take(data, state.step)))

    @jax.jit
    def six(state, data):
        return jax.lax.scan(lambda state, _: step(state, take(data, state.step)), state, length=6)

    state, losses = start, []
    for _ in range(6):
        state, metrics = one(state, data)
        losses.append(float(metrics["losses"]["a"]))
    scanned, metrics = six(start, data)
    np.testing.assert_allclose(metrics["losses"]["a"], losses, rtol=1e-6)
    np.testing.assert_allclose(scanned.params.shared, state.params.shared, rtol=1e-6)

    half = start
    for _ in range(3):
        half, _ = one(half, data)
    data, take = on_device(numbered(16), batch_size=4, seed=0)  # as another process would
    again = jax.jit(lambda state, data: step(state, take(data, state.step)))
    for _ in range(3):
        half, _ = again(half, data)
    assert_same_bits(half, state)


def test_on_a_mesh_every_device_draws_from_its_own_rows():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("data"))
    data, take = on_device(numbered(24), batch_size=8, seed=0, mesh=mesh)
    assert {leaf.sharding for leaf in jax.tree.leaves(data)} == {spread}
    drawn = jax.jit(take)
    batches = [drawn(data, step) for step in range(6)]
    assert {leaf.sharding.spec for leaf in jax.tree.leaves(batches)} == {spread.spec}
    rows = np.stack([batch.inputs["row"] for batch in batches]).reshape(2, 3, 4, 2)
    for epoch in rows:
        for device in range(4):
            assert sorted(epoch[:, device].ravel()) == list(range(6 * device, 6 * device + 6))
    orders = rows[0].transpose(1, 0, 2).reshape(4, 6) - 6 * np.arange(4)[:, None]
    assert len({tuple(order) for order in orders}) > 1
    program = drawn.lower(data, 0).compile().as_text()
    assert "all-gather" not in program and "all-to-all" not in program and "collective-permute" not in program


@pytest.mark.slow
def test_the_sharded_step_takes_the_data_for_its_batch():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    data, take = on_device(numbered(16), batch_size=8, seed=0, mesh=mesh)
    state, step = make_training()
    on_mesh = mtljax.training.sharded(lambda state, data: step(state, take(data, state.step)), mesh)
    expected, _ = jax.jit(step)(state, jax.tree.map(np.asarray, jax.jit(take)(data, 0)))
    found, _ = on_mesh(state, data)
    np.testing.assert_allclose(found.params.shared, expected.params.shared, rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "batch_size", "seed", "devices", "message"),
    [
        (10, 11, 0, None, "batch_size must be from 1 to 10, found 11"),
        (10, 2, -1, None, "seed must be at least 0, found -1"),
        (10, 4, 0, 4, "examples must be a multiple of the 4 devices, found 10"),
        (12, 6, 0, 4, "batch_size must be a multiple of the 4 devices, found 6"),
    ],
)
def test_mistakes(size, batch_size, seed, devices, message):
    mesh = devices and jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match=f"on_device: {message}"):
        on_device(numbered(size), batch_size=batch_size, seed=seed, mesh=mesh)


def test_other_data_and_a_size_of_none_are_refused():
    _, take = on_device(numbered(10), batch_size=2, seed=0)
    with pytest.raises(ValueError, match="take: data must be the 10 examples that on_device returned, found 9"):
        take(numbered(9), 0)
    with pytest.raises(ValueError, match="permuted: size must be from 1 to"):
        permuted(jax.random.key(0), jnp.arange(3), 0)

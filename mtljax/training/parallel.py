"""Three ways to run a step: on one device with `jit`, on all devices with `pmap`, on a mesh with `sharded`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mtljax.checks import check_callable, check_count, expect
from mtljax.losses.objective import attribute
from mtljax.types import PyTree, TrainState

Step = Callable[[TrainState, Any], tuple[TrainState, Any]]


def jit(step: Step) -> Step:
    """Compile a step for one device; the step consumes its state (it reuses the buffers).

    Args:
        step: from `make_train_step` without `axis_name`.

    Returns:
        `step(state, batch) -> (state, metrics)`.

    Example:
        >>> import jax.numpy as jnp
        >>> double = jit(lambda state, batch: (2 * state, batch))
        >>> print(double(jnp.ones(()), None)[0])
        2.0
    """
    check_callable("jit", "step", step)
    return jax.jit(step, donate_argnums=0)


def pmap(step: Step, *, axis_name: str = "batch") -> Step:
    """Run a step on all local devices, each with its part of the batch, through `jax.pmap`.

    `jax.pmap` is in maintenance mode; `sharded` is recommended. The state has no device axis, and is the same on every
    device. Batches have one: `[N, B / N, ...]`, as from `split_batch`, with N the number of this process's devices.

    Args:
        step: from `make_train_step(..., axis_name=axis_name)`, or a wrapper made with `functools.wraps`. Your own step
            function must sum over `axis_name`, else each device trains only on its own part of the batch.
        axis_name: default "batch".

    Returns:
        `step(state, batch) -> (state, metrics)`; the state is consumed.

    Raises:
        ValueError: a step made for another axis or without one; from the function, a batch leaf whose leading axis is
            not N.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> n = jax.local_device_count()
        >>> summed = pmap(lambda state, batch: (state + jax.lax.psum(batch.sum(), "batch"), ()))
        >>> float(summed(jnp.zeros(()), jnp.ones((n, 2)))[0]) == 2 * n
        True
    """
    check_callable("pmap", "step", step)
    expect(isinstance(axis_name, str), "pmap", "axis_name", "a string", axis_name, TypeError)
    made_for = attribute(step, "axis_names")
    if made_for is not None and axis_name not in made_for:
        raise ValueError(
            f"pmap: step must be made with make_train_step(..., axis_name={axis_name!r}), else each device trains only "
            f"on its own part of the batch, found {made_for or 'none'}"
        )
    mapped = jax.pmap(step, axis_name=axis_name, in_axes=(None, 0), out_axes=None, donate_argnums=0)

    @functools.wraps(mapped)  # `fit` traces `mapped` to identify the run
    def run(state: TrainState, batch: PyTree) -> tuple[TrainState, Any]:
        devices = jax.local_device_count()
        for path, leaf in jax.tree_util.tree_flatten_with_path(batch)[0]:
            if jnp.shape(leaf)[:1] != (devices,):
                raise ValueError(
                    f"pmap: leaf {jax.tree_util.keystr(path)} of the batch must be [{devices}, B / {devices}, ...], as "
                    f"split_batch(batch, {devices}) makes it, found shape {jnp.shape(leaf)}"
                )
        return mapped(state, batch)

    run.__wrapped__ = mapped  # so that `fit` can trace it
    return run


def split_batch(batch: PyTree, num_devices: int) -> PyTree:
    """`[B, ...] -> [N, B / N, ...]` for `pmap`.

    Raises:
        TypeError: `num_devices` is not an integer.
        ValueError: `num_devices` is below 1; B is not a multiple of N, or a leaf has no axis; the message names the
            leaf.

    Example:
        >>> import jax.numpy as jnp
        >>> split_batch(jnp.zeros((8, 3)), 2).shape
        (2, 4, 3)
    """
    check_count("split_batch", "num_devices", num_devices)

    def leaf(path: Any, array: Any) -> Any:
        if not jnp.ndim(array) or array.shape[0] % num_devices:
            raise ValueError(
                f"split_batch: leaf {jax.tree_util.keystr(path)} of the batch must be [B, ...] with B a multiple of "
                f"{num_devices} devices, found shape {jnp.shape(array)}"
            )
        return array.reshape(num_devices, array.shape[0] // num_devices, *array.shape[1:])

    return jax.tree_util.tree_map_with_path(leaf, batch)


def sharded(step: Step, mesh: Mesh, *, spec: PartitionSpec | None = None) -> Step:
    """Run a step on a device mesh: the batch is split, the state is replicated, and the compiler distributes the work.

    The step is the one-device step (without `axis_name`), on the whole batch. So gradients, masks and batch statistics
    equal those of one device up to rounding.

    Args:
        step: from `make_train_step` without `axis_name`.
        mesh: with axes of type Auto, for example
            `jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))`.
        spec: partition of a batch leaf `[B, ...]`; None (default) splits its first axis over all axes of the mesh.

    Returns:
        `step(state, batch) -> (state, metrics)`; the state is consumed. B must be a multiple of the number of devices.

    Raises:
        TypeError: `mesh` is not a mesh.
        ValueError: a mesh axis that is not of type Auto.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        >>> float(sharded(lambda state, batch: (state + batch.sum(), ()), mesh)(jnp.zeros(()), jnp.ones(4))[0])
        4.0
    """
    check_callable("sharded", "step", step)
    expect(isinstance(mesh, Mesh), "sharded", "mesh", "a jax.sharding.Mesh", mesh, TypeError)
    wrong = [
        name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind != jax.sharding.AxisType.Auto
    ]
    if wrong:
        raise ValueError(
            f"sharded: mesh must have axes of type Auto, found another for mesh axis '{wrong[0]}'; make the mesh with "
            "axis_types=(jax.sharding.AxisType.Auto,) * number of axes"
        )
    everywhere = NamedSharding(mesh, PartitionSpec())
    spread = NamedSharding(mesh, PartitionSpec(mesh.axis_names) if spec is None else spec)
    return jax.jit(step, in_shardings=(everywhere, spread), out_shardings=everywhere, donate_argnums=0)

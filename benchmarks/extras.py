"""Sides that ask one question each: what soft sharing's penalty, several devices' forms and vmapped seeds cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

import mtljax
from benchmarks import nets, ours
from benchmarks.nets import Problem
from mtljax.types import Method

SEEDS = 16


def _carry(program: Any, state: Any, batch: Any) -> Callable[[], Any]:
    now = [state, None]

    def step() -> Any:
        now[:] = program(now[0], batch)
        return now

    return step


def soft_sharing(problem: Problem) -> dict[str, Callable[[], Any]]:
    """A step of T tied copies, with the penalty and without."""
    network = nets.soft_model(problem, 1e-3)
    sides = {}
    for name, model in {"soft, no penalty": network._replace(penalty=None), "soft, l2_to_mean": network}.items():
        init, step = mtljax.training.make_train_step(
            nets.losses_fn(problem, model), mtljax.methods.equal(), optax.sgd(nets.LEARNING_RATE)
        )
        sides[name] = _carry(mtljax.training.jit(step), ours.first_state(problem, init, network), problem.batch)
    return sides


def parallel_forms(problem: Problem, method: Method) -> dict[str, Callable[[], Any]]:
    """One device, three ways."""
    optimizer = optax.sgd(nets.LEARNING_RATE)
    init, step = mtljax.training.make_train_step(nets.losses_fn(problem), method, optimizer)
    _, mapped = mtljax.training.make_train_step(nets.losses_fn(problem), method, optimizer, axis_name="batch")
    devices = jax.devices()[:1]
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    spread = jax.device_put(problem.batch, jax.NamedSharding(mesh, jax.P("data")))
    split = mtljax.training.split_batch(problem.batch, 1)
    return {
        "jit": _carry(mtljax.training.jit(step), ours.first_state(problem, init), problem.batch),
        "pmap": _carry(mtljax.training.pmap(mapped), ours.first_state(problem, init), split),
        "sharded": _carry(mtljax.training.sharded(step, mesh), ours.first_state(problem, init), spread),
    }


def seeds(problem: Problem, method: Method) -> dict[str, Callable[[], Any]]:
    """One run, and `SEEDS` of them as one vmapped step on the same batch."""
    init, step = mtljax.training.make_train_step(nets.losses_fn(problem), method, optax.sgd(nets.LEARNING_RATE))
    params, model_state = nets.model(problem).init(jax.random.key(0), problem.batch.inputs)
    keys = jax.random.split(jax.random.key(1), SEEDS)
    states = jax.vmap(lambda key: init(params, model_state, key=key))(keys)
    many = jax.jit(jax.vmap(step, in_axes=(0, None)), donate_argnums=0)
    return {
        "1 seed": _carry(mtljax.training.jit(step), ours.first_state(problem, init), problem.batch),
        f"{SEEDS} seeds": _carry(many, states, problem.batch),
    }

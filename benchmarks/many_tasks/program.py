"""The program: a trunk of 100-256 with ReLU, T heads of 256-1, squared error on 1 label in 7, 64 examples, Adam.

`by_hand` is what one would write without a library: one dense layer with T outputs, a masked mean over the examples,
a sum. All sides start from the same numbers and see the same batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mtljax
from benchmarks import timing
from mtljax.sharing.frames.network import Network
from mtljax.types import Method

INPUTS, WIDTH, BATCH, PRESENT = 100, 256, 64, 1 / 7
LEARNING_RATE = 1e-3


class Problem(NamedTuple):
    """First parameters and a batch; all numpy.

    Attributes:
        shared: {"w": [100, 256], "b": [256]}.
        heads: {"w": [T, 256, 1], "b": [T, 1]}.
        inputs: `[B, 100]`.
        targets: `[B, T]`.
        present: bool `[B, T]`; every task has a label.
    """

    shared: dict[str, np.ndarray]
    heads: dict[str, np.ndarray]
    inputs: np.ndarray
    targets: np.ndarray
    present: np.ndarray

    @property
    def tasks(self) -> int:
        return self.targets.shape[1]


class Side(NamedTuple):
    """One way of running a step.

    Attributes:
        step: runs a step on the side's own state and returns its arrays.
        losses: the T losses that the last step saw; None where a side does not tell them.
        facts: seconds to trace and to compile, bytes of the compiled program; empty outside JAX.
    """

    step: Callable[[], Any]
    losses: Callable[[], np.ndarray] | None
    facts: dict[str, Any]


def make_problem(tasks: int, *, batch: int = BATCH) -> Problem:
    rng = np.random.default_rng([tasks, batch])

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    present = rng.random((batch, tasks)) < PRESENT
    present[0] = True
    return Problem(
        {"w": normal(INPUTS, WIDTH, scale=0.1), "b": np.zeros(WIDTH, np.float32)},
        {"w": normal(tasks, WIDTH, 1, scale=1 / 16), "b": np.zeros((tasks, 1), np.float32)},
        normal(batch, INPUTS),
        normal(batch, tasks),
        present,
    )


def methods(tasks: int) -> dict[str, Method]:
    """The methods that are timed; those after the first two read a Gramian."""
    m = mtljax.methods
    return {
        "equal": m.equal(),
        "uncertainty": m.uncertainty(optimizer=optax.adam(LEARNING_RATE)),
        "upgrad": m.upgrad(),
        "mgda": m.mgda(),
        "pcgrad": m.pcgrad(),
        "nash_mtl": m.nash_mtl(),
    }


def compiled(fun: Callable[..., Any], *args: Any, donate: tuple[int, ...] = ()) -> tuple[Any, dict[str, Any]]:
    """A function compiled for these arguments, and what that took."""
    program, trace_s, compile_s = timing.build(jax.jit(fun, donate_argnums=donate), *args)
    memory = program.memory_analysis()
    peak = None
    if memory is not None:
        temp, output, argument, alias = (
            int(getattr(memory, f"{kind}_size_in_bytes")) for kind in ("temp", "output", "argument", "alias")
        )
        # What is donated is argument and output in one.
        peak = temp + output + argument - alias
    return program, {"trace_s": round(trace_s, 3), "compile_s": round(compile_s, 3), "peak_bytes": peak}


def by_hand(problem: Problem, *, uncertainty: bool = False) -> Side:
    """Equal or uncertainty weighting without mtljax."""
    optimizer = optax.adam(LEARNING_RATE)

    def losses_of(params: Any, batch: Any) -> Any:
        inputs, targets, present = batch
        features = jax.nn.relu(inputs @ params["w"] + params["b"][None])
        outputs = features @ params["heads"] + params["biases"][None]
        return jnp.where(present, (outputs - targets) ** 2, 0).sum(0) / jnp.maximum(present.sum(0), 1)

    def total(params: Any, batch: Any) -> Any:
        losses = losses_of(params, batch)
        s = params.get("s")
        return losses.sum() if s is None else (0.5 * jnp.exp(-s) * losses + 0.5 * s).sum(), losses

    def step(state: Any, batch: Any) -> Any:
        params, moments = state
        (_, losses), grads = jax.value_and_grad(total, has_aux=True)(params, batch)
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), losses

    params = {**problem.shared, "heads": problem.heads["w"][:, :, 0].T, "biases": problem.heads["b"][:, 0]}
    if uncertainty:
        params["s"] = np.zeros(problem.tasks, np.float32)
    params = jax.tree.map(jnp.array, params)
    batch = jax.tree.map(jnp.asarray, (problem.inputs, problem.targets, problem.present))
    return _side(step, (params, optimizer.init(params)), batch, lambda losses: losses)


def by_mtljax(problem: Problem, method: Method, *, banked: bool = True) -> Side:
    """The whole training step, with the tasks as one bank, or as T single entries."""
    loss = mtljax.Task(lambda outputs, targets: (outputs[:, 0] - targets) ** 2)
    names = tuple(f"task{k:03d}" for k in range(problem.tasks))
    if banked:
        heads: Any = {"bank": mtljax.sharing.Bank(_network(problem.heads, _dense), names)}
        own = {"bank": problem.heads}
        tasks, targets, present = {"bank": loss}, {"bank": problem.targets}, {"bank": problem.present}
    else:
        own = {name: {k: leaf[i] for k, leaf in problem.heads.items()} for i, name in enumerate(names)}
        heads, tasks = {name: _network(own[name], _dense) for name in names}, dict.fromkeys(names, loss)
        targets = {name: problem.targets[:, i] for i, name in enumerate(names)}
        present = {name: problem.present[:, i] for i, name in enumerate(names)}
    trunk = _network(problem.shared, lambda own, inputs: jax.nn.relu(_dense(own, inputs)))
    model = mtljax.sharing.hard(trunk, heads)
    losses_fn = mtljax.make_losses_fn(model, tasks)
    init, step = mtljax.training.make_train_step(losses_fn, method, optax.adam(LEARNING_RATE))
    batch = mtljax.Batch(*jax.tree.map(jnp.asarray, (problem.inputs, targets, present)))
    # Not `model.init`: a bank starts each task from values of its own, and here every side starts from the same.
    params = jax.tree.map(jnp.array, mtljax.Params(problem.shared, own))
    _, model_state = jax.eval_shape(model.init, jax.random.key(0), batch.inputs)
    model_state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), model_state)
    state = init(params, model_state, key=jax.random.key(1))
    return _side(step, state, batch, lambda metrics: metrics["losses"].array)


def gramian_by_hand(problem: Problem) -> jax.Array:
    """The Gramian `[T, T]` of the shared gradients at the first parameters, from outer products of layer gradients."""
    inputs, shared = jnp.asarray(problem.inputs), problem.shared
    features = jax.nn.relu(inputs @ shared["w"] + shared["b"][None])
    errors = features @ problem.heads["w"][:, :, 0].T + problem.heads["b"][None, :, 0] - problem.targets
    seeds = jnp.where(problem.present, 2 * errors, 0) / problem.present.sum(0)[None]
    cotangents = jnp.einsum("bt,td->tbd", seeds, problem.heads["w"][:, :, 0]) * (features > 0)[None]
    mixed = jnp.einsum("bc,tcd->tbd", inputs @ inputs.T + 1, cotangents)
    return jnp.einsum("ibd,jbd->ij", cotangents, mixed)


def solver(problem: Problem, method: Method) -> Side:
    """The method alone on the first Gramian."""
    key = jax.random.key(2)

    def solve(state: Any, gram: Any) -> Any:
        weights, state = method.update(gram, state, key=key)
        return state, weights

    side = _side(solve, method.init(problem.tasks), gramian_by_hand(problem), lambda weights: weights)
    return side._replace(losses=None)


def _dense(own: Any, inputs: Any) -> Any:
    return inputs @ own["w"] + own["b"][None]


def _network(values: Any, apply: Any) -> Network:
    return Network(
        init=lambda key, inputs: (jax.tree.map(jnp.array, values), ()),
        apply=lambda params, state, inputs, *, key=None, train=False: (apply(params, inputs), state),
    )


def _side(step: Callable[..., Any], state: Any, batch: Any, losses: Callable[[Any], Any]) -> Side:
    program, facts = compiled(step, state, batch, donate=(0,))
    now = [state, None]

    def run() -> Any:
        now[:] = program(now[0], batch)
        return now

    return Side(run, lambda: np.asarray(losses(now[1])), facts)

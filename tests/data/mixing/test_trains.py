"""Images for one task, text for another, vectors for a third: one body learns from all, in one trace."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax.data.mixing.draws import round_robin, systematic
from mtljax.data.mixing.rates import loss_driven, proportional
from mtljax.data.mixing.stream import mix
from mtljax.sharing import Network, encoders
from mtljax.training import fit, make_train_step
from mtljax.types import Batch, Task, TaskInputs
from tests.training.problem import assert_same_bits

WIDTH = 8
TASKS = {
    "digit": Task(mtljax.losses.softmax_cross_entropy, {"accuracy": mtljax.metrics.accuracy}),
    "torque": Task(mtljax.losses.squared_error),
    "word": Task(mtljax.losses.softmax_cross_entropy),
}


def network(weights, forward):
    """One array of parameters, and a function of it and the inputs."""
    return Network(
        lambda key, inputs: (weights(key), ()),
        lambda own, state, inputs, *, key=None, train=False: (forward(own, inputs), state),
    )


def normal(*shape):
    return lambda key: jax.random.normal(key, shape) / 2


def encoders_and_body():
    """Images [B, 4, 4], token numbers [B, 5], and vectors [B, 3] in a dict, each with an encoder of its own."""
    own = {
        "digit": network(normal(16, WIDTH), lambda w, x: jnp.tanh(x.reshape(x.shape[0], -1) @ w)),
        "word": network(normal(20, WIDTH), lambda w, x: jnp.tanh(w[x].mean(1))),
        "torque": network(normal(3, WIDTH), lambda w, x: jnp.tanh(x["angles"] @ w)),
    }
    heads = {
        "digit": network(lambda key: jnp.zeros((WIDTH, 3)), lambda w, x: x @ w),
        "word": network(lambda key: jnp.zeros((WIDTH, 2)), lambda w, x: x @ w),
        "torque": network(lambda key: jnp.zeros((WIDTH, 1)), lambda w, x: (x @ w)[:, 0]),
    }
    return encoders(own, network(normal(WIDTH, WIDTH), lambda w, x: jnp.tanh(x @ w)), heads)


def data():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(90, 4, 4)).astype(np.float32)
    tokens = rng.integers(0, 20, (40, 5)).astype(np.int32)
    angles = rng.normal(size=(150, 3)).astype(np.float32)
    return {
        "digit": Batch(images, {"digit": images.sum(1)[:, :3].argmax(1).astype(np.int32)}),
        "torque": Batch({"angles": angles}, {"torque": np.tanh(angles[:, 0] - angles[:, 1])}),
        "word": Batch(tokens, {"word": (tokens.mean(1) > 9.5).astype(np.int32)}),
    }


DATA = data()
SIZES = {name: len(batch.targets[name]) for name, batch in DATA.items()}


@functools.cache
def training():
    """The start, and a jitted step that may be traced once."""
    model = encoders_and_body()
    example = TaskInputs({name: batch.inputs for name, batch in DATA.items()})
    init, step = make_train_step(mtljax.make_losses_fn(model, TASKS), mtljax.methods.equal(), optax.sgd(0.3))

    start = init(*jax.jit(model.init)(jax.random.key(0), example), key=jax.random.key(1))
    return start, jax.jit(chex.assert_max_traces(step, 1))


@pytest.mark.slow
@pytest.mark.parametrize("draw", [round_robin, systematic])
def test_all_tasks_learn_and_one_trace_serves(draw):
    start, step = training()
    stream = mix(DATA, proportional(SIZES, temperature=2), batch_size=12, seed=0, draw=draw)
    history = []
    fit(step, start, stream, num_steps=450, log_every=1, log=history.append, progress=False)
    for name in TASKS:
        losses = [entry["train"]["losses"][name] for entry in history if entry["train"]["active"][name]]
        assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:5]), name


def test_what_is_absent_stays_as_it_is_and_one_trace_serves():
    state, step = training()
    stream = mix(DATA, proportional(SIZES), batch_size=12, seed=0, draw=round_robin)
    for present in sorted(TASKS):
        before = state.params
        state, metrics = step(state, next(stream))
        for name in TASKS:
            assert bool(metrics["active"][name]) == (name == present)
            head, was = state.params.tasks[name]["head"], before.tasks[name]["head"]
            assert np.array_equal(head, was) == (name != present)


@pytest.mark.slow
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_run_driven_by_its_losses_resumes_to_the_bit(by_hand, tmp_path):
    """Whether `fit` tells the mixture of them or the step does, and never twice."""
    start, step, _ = training()

    def run(directory, steps, by_hand=by_hand):
        stream = mix(DATA, loss_driven(TASKS, decay=0.5), batch_size=12, seed=0)

        def observed(state, batch):
            state, metrics = step(state, batch)
            if by_hand:
                stream.observe(metrics["losses"], metrics["active"])
            return state, metrics

        result = fit(observed, start, stream, num_steps=steps, checkpoint_dir=directory, progress=False)
        return result.state, stream.get_state()

    expected, place = run(tmp_path / "once", 15, by_hand=True)
    run(tmp_path / "twice", 6)
    found, again = run(tmp_path / "twice", 15)
    assert_same_bits(found, expected)
    assert again == place and set(place["driven"]["first"]) == set(TASKS)

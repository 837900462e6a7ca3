"""Every architecture trains the real digits, in float32 and bfloat16, its Gramian built by the method's own engine."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import training
from mtljax.data import load_multi_digits
from mtljax.sharing import Network
from tests.sharing.blocks import dense
from tests.sharing.table import CASES, TWO_ALIKE, Blocks

SHAPES = {"left": (10,), "right": (10,), "sum": (), "reconstruct": (12, 16, 1)}
TASKS = {
    "left": mtljax.Task(mtljax.losses.softmax_cross_entropy),
    "right": mtljax.Task(mtljax.losses.softmax_cross_entropy),
    "sum": mtljax.Task(mtljax.losses.squared_error),
    "reconstruct": mtljax.Task(mtljax.losses.squared_error),
}
STEPS, BATCH, WIDTH = 240, 64, 16
LONGER = {"ltb": 5}
"""How many times as long some train: branches are drawn at random until it is learned which are good."""


def scaled(network):
    """The same network started small, as trained networks are."""

    def init(key, x):
        params, state = network.init(key, x)
        return params | {"w": params["w"] / math.sqrt(x.shape[-1])}, state

    return network._replace(init=init)


def head(shape):
    inner = scaled(dense(math.prod(shape), rate=0.0, bias=True))

    def apply(params, state, x, *, key=None, train=False):
        y, state = inner.apply(params, state, x, key=key, train=train)
        return y.reshape(x.shape[0], *shape), state

    return Network(inner.init, apply)


BLOCKS = Blocks(
    lambda: scaled(dense(WIDTH, rate=0.1, bias=True, activation=jax.nn.relu)),
    WIDTH,
    {task: head(shape) for task, shape in SHAPES.items()},
)


def flat(data):
    targets = data.targets | {"sum": (data.targets["sum"] - 9.0) / 4.0}
    return data._replace(inputs=data.inputs.reshape(len(data.inputs), -1), targets=targets)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Batches to train on, and all validation examples: so many that what is learnt stands out of the noise."""
    splits = load_multi_digits(tmp_path_factory.getbasetemp().parent / "multi_digits")
    stream = mtljax.data.batches(flat(splits["train"]), batch_size=BATCH, seed=0)
    return [next(stream) for _ in range(STEPS * max(LONGER.values()))], flat(splits["validation"])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", sorted(set(CASES) - TWO_ALIKE))
def test_it_learns(name, dtype, digits):
    model = CASES[name](BLOCKS)
    losses_fn = mtljax.make_losses_fn(model, TASKS)
    init, step = training.make_train_step(losses_fn, mtljax.methods.dualproj(), optax.adam(5e-3))
    batches, held_out = [
        jax.tree.map(lambda batch: batch._replace(inputs=jnp.asarray(batch.inputs, dtype)), part, is_leaf=_is_batch)
        for part in digits
    ]
    params, model_state = model.init(jax.random.key(0), batches[0].inputs)
    state, step = init(params, model_state, key=jax.random.key(1)), training.jit(step)
    held_out_losses = jax.jit(lambda state: losses_fn(state.params, state.model_state, held_out, None, False)[0])
    before = held_out_losses(state)
    for batch in batches[: STEPS * LONGER.get(name, 1)]:
        state, metrics = step(state, batch)
        assert all(np.isfinite(float(loss)) for loss in metrics["losses"].values())
    after = held_out_losses(state)
    # Sums are hardly learnt in so few steps; the classes a little, the missing pixels well.
    falls = {task: float(after[task] / before[task]) for task in TASKS}
    bounds = {"left": 0.97, "right": 0.97, "sum": 0.97, "reconstruct": 0.5}
    assert all(falls[task] < bounds[task] for task in TASKS), falls
    assert all(np.all(np.isfinite(np.asarray(leaf, np.float32))) for leaf in jax.tree.leaves(state.params))


def _is_batch(node):
    return isinstance(node, mtljax.Batch)

"""A linen `TrainState` that adds two losses."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

TX = optax.adam(1e-2)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(8, name="trunk")(x))
        return nn.Dense(1, name="depth")(x), nn.Dense(1, name="edges")(x)


def loss_fn(params, x, depth, edges):
    outputs = Network().apply({"params": params}, x)
    depth_loss, edges_loss = jnp.mean((outputs[0] - depth) ** 2), jnp.mean((outputs[1] - edges) ** 2)
    return depth_loss + edges_loss


@jax.jit
def step(state, *data):
    loss, grads = jax.value_and_grad(loss_fn)(state.params, *data)
    state = state.apply_gradients(grads=grads)
    return state, loss


def train(steps, *data):
    params = Network().init(jax.random.key(0), data[0])["params"]
    state = TrainState.create(apply_fn=Network().apply, params=params, tx=TX)
    for _ in range(steps):
        state, loss = step(state, *data)
    return state.params, loss

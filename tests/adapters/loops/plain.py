"""A dict of parameters and an optax optimizer, with two losses added."""

import jax
import jax.numpy as jnp
import optax

TX = optax.adam(1e-2)


def loss_fn(params, x, depth, edges):
    hidden = jax.nn.relu(x @ params["trunk"])
    depth_loss = jnp.mean((hidden @ params["depth"] - depth) ** 2)
    edges_loss = jnp.mean((hidden @ params["edges"] - edges) ** 2)
    return depth_loss + edges_loss


@jax.jit
def step(params, opt_state, *data):
    loss, grads = jax.value_and_grad(loss_fn)(params, *data)
    updates, opt_state = TX.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    return params, opt_state, loss


def train(steps, *data):
    shapes = {"trunk": (4, 8), "depth": (8, 1), "edges": (8, 1)}
    params = {name: jax.random.normal(jax.random.key(n), shapes[name]) for n, name in enumerate(shapes)}
    opt_state = TX.init(params)
    for _ in range(steps):
        params, opt_state, loss = step(params, opt_state, *data)
    return params, loss

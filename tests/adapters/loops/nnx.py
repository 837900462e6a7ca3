"""An NNX module and optimizer that add two losses."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

TX = optax.adam(1e-2)


class Network(nnx.Module):
    def __init__(self, rngs):
        self.trunk, self.norm = nnx.Linear(4, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)
        self.depth, self.edges = nnx.Linear(8, 1, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)


def loss_fn(net, x, depth, edges):
    hidden = jax.nn.relu(net.norm(net.trunk(x)))
    depth_loss = jnp.mean((net.depth(hidden) - depth) ** 2)
    edges_loss = jnp.mean((net.edges(hidden) - edges) ** 2)
    return depth_loss + edges_loss


@nnx.jit
def step(net, optimizer, *data):
    loss, grads = nnx.value_and_grad(loss_fn)(net, *data)
    optimizer.update(net, grads)
    return loss


def train(steps, *data):
    net = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(net, TX, wrt=nnx.Param)
    for _ in range(steps):
        loss = step(net, optimizer, *data)
    return net, loss

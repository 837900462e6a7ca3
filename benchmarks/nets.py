"""One network and one batch, the same numbers for every side: mtljax, JAX by hand, torch.

`mlp`: 784-512-512-512. `conv`: the LeNet of MultiMNIST (two 5 x 5 convolutions of 10 and 20 channels, each with a
2 x 2 maximum, and 50 features). Both with T linear heads of 10 classes, cross-entropy, plain SGD. `small`: 64-64-64.
Inputs and labels are random, so tasks conflict; only speed is measured on them.
"""

from __future__ import annotations

import itertools
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import mtljax
from mtljax.sharing.frames.network import Network

CLASSES = 10
LEARNING_RATE = 1e-3
WIDTHS = {"mlp": (784, 512, 512, 512), "small": (64, 64, 64)}


class Problem(NamedTuple):
    """A network at its first parameters, and a batch; all numpy.

    Attributes:
        kind: "mlp", "conv" or "small".
        shared: dict of arrays by name; dense weights are `[in, out]`, convolutions `[5, 5, in, out]`.
        tasks: dict by task of {"w": [width, 10], "b": [10]}.
        inputs: `[B, in]`, or `[B, 28, 28, 1]`.
        targets: dict by task of int `[B]`.
    """

    kind: str
    shared: dict[str, np.ndarray]
    tasks: dict[str, dict[str, np.ndarray]]
    inputs: np.ndarray
    targets: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        return f"{self.kind} T={len(self.tasks)} B={len(self.inputs)}"

    @property
    def params(self) -> mtljax.Params:
        """A fresh copy on the device, so that a step may consume it."""
        return jax.tree.map(jnp.array, mtljax.Params(self.shared, self.tasks))

    @property
    def batch(self) -> mtljax.Batch:
        return jax.tree.map(jnp.asarray, mtljax.Batch(self.inputs, self.targets))

    @property
    def num_shared(self) -> int:
        return sum(leaf.size for leaf in self.shared.values())


def make_problem(kind: str, num_tasks: int, batch: int, *, seed: int = 0) -> Problem:
    rng = np.random.default_rng([seed, num_tasks, batch, zlib.crc32(kind.encode())])

    def weight(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[:-1]))).astype(np.float32)

    shared: dict[str, np.ndarray] = {}
    if kind == "conv":
        shared |= {"w0": weight(5, 5, 1, 10), "w1": weight(5, 5, 10, 20), "w2": weight(320, 50)}
        inputs = rng.standard_normal((batch, 28, 28, 1)).astype(np.float32)
    else:
        widths = WIDTHS[kind]
        shared |= {f"w{i}": weight(*shape) for i, shape in enumerate(itertools.pairwise(widths))}
        inputs = rng.standard_normal((batch, widths[0])).astype(np.float32)
    shared |= {f"b{name[1:]}": np.zeros(w.shape[-1], np.float32) for name, w in list(shared.items())}
    width = list(shared.values())[len(shared) // 2 - 1].shape[-1]
    names = [f"task{k:02d}" for k in range(num_tasks)]
    tasks = {name: {"w": weight(width, CLASSES), "b": np.zeros(CLASSES, np.float32)} for name in names}
    targets = {name: rng.integers(0, CLASSES, batch).astype(np.int32) for name in names}
    return Problem(kind, shared, tasks, inputs, targets)


def _dense(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    return x @ w + b[None, :]


def _conv(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
    y = lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = jax.nn.relu(y + b[None, None, None, :])
    # As a reshape, since the derivative of reduce_window makes the whole step two to three times slower on XLA:CPU.
    return y.reshape(y.shape[0], y.shape[1] // 2, 2, y.shape[2] // 2, 2, y.shape[3]).max((2, 4))


def trunk(shared: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Shared features `[B, width]`."""
    layers = len(shared) // 2
    for i in range(layers):
        w, b = shared[f"w{i}"], shared[f"b{i}"]
        x = _conv(x, w, b) if w.ndim == 4 else jax.nn.relu(_dense(x.reshape(x.shape[0], -1), w, b))
    return x


def head(own: dict[str, jax.Array], features: jax.Array) -> jax.Array:
    return _dense(features, own["w"], own["b"])


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    picked = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)


def losses_by_hand(params: mtljax.Params, batch: mtljax.Batch) -> dict[str, jax.Array]:
    """The T losses without mtljax (the two tuples serve as plain containers)."""
    features = trunk(params.shared, batch.inputs)
    return {k: cross_entropy(head(own, features), batch.targets[k]) for k, own in params.tasks.items()}


def model(problem: Problem) -> mtljax.Model:
    """The network through `mtljax.sharing.hard`."""
    body, heads = _networks(problem)
    return mtljax.sharing.hard(body, heads)


def soft_model(problem: Problem, strength: float) -> mtljax.Model:
    """A copy of the trunk for each task, tied to their mean."""
    body, heads = _networks(problem)
    return mtljax.sharing.soft(body, heads, mtljax.penalties.l2_to_mean(strength))


def losses_fn(problem: Problem, network: mtljax.Model | None = None) -> Any:
    tasks = dict.fromkeys(problem.tasks, mtljax.Task(mtljax.losses.softmax_cross_entropy))
    return mtljax.make_losses_fn(model(problem) if network is None else network, tasks)


def _networks(problem: Problem) -> tuple[Network, dict[str, Network]]:
    def at(values: Any, apply: Any) -> Network:
        return Network(
            init=lambda key, inputs: (jax.tree.map(jnp.array, values), ()),
            apply=lambda params, state, inputs, *, key=None, train=False: (apply(params, inputs), state),
        )

    return at(problem.shared, trunk), {name: at(own, head) for name, own in problem.tasks.items()}

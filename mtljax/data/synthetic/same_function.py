"""One function for all tasks, observed with independent noise per task."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_count, check_number
from mtljax.data.synthetic.common import drawn, task_and_example_keys, task_names
from mtljax.types import Batch, Key, Numeric

_WAVES = 4  # number of sines in the function, at most the number of features
_PITCH = 2.0  # frequency of the sines


def same_function(
    key: Key,
    num_tasks: int,
    *,
    noise: Numeric,
    num_examples: int,
    num_features: int = 10,
    example_key: Key | None = None,
) -> Batch:
    """Tasks whose labels are the same function of the input, with independent noise.

        y_k = sqrt(1 - noise) f(x) + sqrt(noise) e_k,   x ~ N(0, I),   e_k ~ N(0, 1)

    f has mean 0 and variance 1 over x exactly, for every key. So labels have variance 1, and the labels of two tasks
    have correlation `1 - noise`: tasks are identical at noise 0, unrelated and without signal at noise 1. Sharing gives
    T draws of noise per input instead of one. f is a sum of four sines along orthonormal directions,

        f(x) = sum_i (sin(2 v_i' x + b_i) - mean_i) / sqrt(4 variance_i),   b_i uniform on the circle

    with the moments of a sine of a normal number of variance 4: `mean = exp(-2) sin b`,
    `variance = (1 - exp(-8) cos 2b) / 2 - mean^2`.

    Args:
        key: typed PRNG key `[]` that the function is drawn from.
        num_tasks: T.
        noise: share of the labels' variance that is noise, from 0 to 1; may be traced.
        num_examples: N.
        num_features: d; with d below four, f is a sum of d sines.
        example_key: typed PRNG key `[]` that inputs and noise are drawn from; None derives it from `key`. Another key
            gives other examples of the same function.

    Returns:
        `Batch` with inputs `[N, d]` and targets `task_0`, `task_1`, ... `[N]`, of JAX's default floating type.

    Raises:
        TypeError: a key that is not typed.
        ValueError: counts below 1, noise outside 0 to 1, several keys.

    The problem is not from one paper. It is the limiting case of theories of multi-task learning: tasks that differ
    only in their samples.

    Example:
        >>> batch = jax.eval_shape(lambda key: same_function(key, 3, noise=0.5, num_examples=8), jax.random.key(0))
        >>> batch.inputs.shape, {task: label.shape for task, label in batch.targets.items()}
        ((8, 10), {'task_0': (8,), 'task_1': (8,), 'task_2': (8,)})
    """
    name = "same_function"
    counts = {"num_tasks": num_tasks, "num_examples": num_examples, "num_features": num_features}
    for argument, count in counts.items():
        check_count(name, argument, count)
    check_number(name, "noise", noise, least=0, most=1)
    task_key, draw_key = task_and_example_keys(name, key, example_key)
    waves = min(_WAVES, num_features)
    matrix, points = drawn(jax.random.normal, task_key, (num_features, waves), (2, waves))
    inputs, own = drawn(jax.random.normal, draw_key, (num_examples, num_features), (num_tasks, num_examples))
    directions = jnp.linalg.qr(matrix)[0]
    phases = jnp.arctan2(points[0], points[1])
    means = jnp.exp(-(_PITCH**2) / 2) * jnp.sin(phases)
    variances = (1 - jnp.exp(-2 * _PITCH**2) * jnp.cos(2 * phases)) / 2 - means**2
    along = jnp.matmul(inputs, directions, precision=lax.Precision.HIGHEST)
    sines = (jnp.sin(_PITCH * along + phases[None]) - means[None]) / jnp.sqrt(waves * variances)[None]
    noise = jnp.asarray(noise, float)
    labels = jnp.sqrt(1 - noise) * jnp.sum(sines, axis=1)[None] + jnp.sqrt(noise) * own
    return Batch(inputs, dict(zip(task_names(num_tasks), labels, strict=True)))

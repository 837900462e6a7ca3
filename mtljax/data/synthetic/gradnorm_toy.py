"""The toy problem of GradNorm: similar regressions whose labels differ in scale."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_count, check_number
from mtljax.data.synthetic.common import drawn, task_and_example_keys, task_names
from mtljax.types import Batch, Key, Numeric

_SCALE = 50.0  # standard deviation of the normal numbers whose absolute values are the scales of tasks


def gradnorm_toy(
    key: Key,
    num_tasks: int,
    *,
    num_examples: int,
    scales: Numeric | Sequence[Numeric] | None = None,
    shared_variance: Numeric = 10.0,
    task_variance: Numeric = 3.5,
    num_features: int = 250,
    num_outputs: int = 100,
    example_key: Key | None = None,
) -> Batch:
    """Regressions that share a matrix, with one label scale per task.

        y_k = sigma_k tanh((B + e_k) x),   B_ij ~ N(0, shared_variance),   (e_k)_ij ~ N(0, task_variance)

    with x uniform on the unit sphere. Every entry of `(B + e_k) x` is normal; its variance is the sum of the two
    variances. The correlation between two tasks is `shared_variance / (shared_variance + task_variance)`, 0.74 in the
    paper. It sets the relatedness, from unrelated (`shared_variance=0`) to equal up to scale (`task_variance=0`).

    Args:
        key: typed PRNG key `[]` that the tasks are drawn from.
        num_tasks: T.
        num_examples: N.
        scales: positive sigma `[T]`; the paper's two-task problem has (1, 100). None (default) draws `|N(0, 50^2)|`.
        shared_variance: variance of the entries of B, at least 0; may be traced.
        task_variance: variance of the entries of e_k, at least 0; may be traced.
        num_features: d, the length of x.
        num_outputs: o, the length of every y_k.
        example_key: typed PRNG key `[]` that the inputs are drawn from; None derives it from `key`. Another key gives
            other examples of the same tasks: new batches, a test set.

    Returns:
        `Batch` with inputs `[N, d]` and targets `task_0`, `task_1`, ... `[N, o]`, of JAX's default floating type,
        without noise.

    Raises:
        TypeError: a key that is not typed.
        ValueError: counts below 1, a negative variance, scales that are not `[T]` or not positive, several keys.

    Z. Chen, V. Badrinarayanan, C.-Y. Lee, A. Rabinovich (2018), "GradNorm: gradient normalization for adaptive loss
    balancing in deep multitask networks", ICML, arXiv 1711.02257, section 4.

    Departures: the paper states neither the distribution of x nor that of sigma, nor whether 10 and 3.5 are variances
    or standard deviations; here they are variances. With unit x the hyperbolic tangent leaves its linear part, but is
    not saturated everywhere.

    The paper's measure is the mean over tasks of a test loss divided by its first value. It depends strongly on the
    initial weights: 0.56 with He's, 0.65 with LeCun's and 0.81 with PyTorch's for linear layers, after 10,000 steps of
    Adam at 1e-3 with equal weights, batches of 100 new examples, ten tasks and the paper's trunk (one seed).

    Example:
        >>> draw = lambda key: gradnorm_toy(key, 2, num_examples=8, scales=[1.0, 100.0])
        >>> batch = jax.eval_shape(draw, jax.random.key(0))
        >>> batch.inputs.shape, batch.targets["task_1"].shape
        ((8, 250), (8, 100))
    """
    name = "gradnorm_toy"
    counts = {
        "num_tasks": num_tasks,
        "num_examples": num_examples,
        "num_features": num_features,
        "num_outputs": num_outputs,
    }
    for argument, count in counts.items():
        check_count(name, argument, count)
    check_number(name, "shared_variance", shared_variance, least=0)
    check_number(name, "task_variance", task_variance, least=0)
    if scales is not None:
        scales = jnp.asarray(check_number(name, "scales", scales, above=0, shape=(num_tasks,)), float)
    task_key, input_key = task_and_example_keys(name, key, example_key)
    shape = (num_outputs, num_features)
    sizes, shared, own = drawn(jax.random.normal, task_key, (num_tasks,), shape, (num_tasks, *shape))
    scales = _SCALE * jnp.abs(sizes) if scales is None else scales
    shared = jnp.sqrt(jnp.asarray(shared_variance, float)) * shared
    own = jnp.sqrt(jnp.asarray(task_variance, float)) * own
    inputs = jax.random.normal(input_key, (num_examples, num_features))
    inputs = inputs / jnp.linalg.norm(inputs, axis=1, keepdims=True)
    before = jnp.einsum("nd,kod->kno", inputs, shared[None] + own, precision=lax.Precision.HIGHEST)
    targets = scales[:, None, None] * jnp.tanh(before)
    return Batch(inputs, dict(zip(task_names(num_tasks), targets, strict=True)))

"""Linear tasks in clusters: weights scatter about the centre of their cluster, and centres about zero."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_count, check_number
from mtljax.data.synthetic.common import drawn, task_and_example_keys, task_names
from mtljax.types import Array, Batch, Key, Numeric


class ClusteredLinear(NamedTuple):
    """Linear tasks with their true weights and clusters: T tasks, n rows per task, d features.

    Attributes:
        batches: dict of `Batch` by task name, each with its own inputs `[n, d]` and one target `[n]`.
        weights: `[T, d]`, the true weights, in the order of names.
        clusters: int32 `[T]`, the cluster of each task.
    """

    batches: dict[str, Batch]
    weights: Array
    clusters: Array


def clustered_linear(
    key: Key,
    *,
    num_clusters: int,
    tasks_per_cluster: int,
    num_examples: int,
    within: Numeric,
    between: Numeric = 1.0,
    noise: Numeric = 0.01,
    num_features: int = 30,
    example_key: Key | None = None,
) -> ClusteredLinear:
    """Linear regressions whose weights lie in clusters.

        m_c ~ N(0, between I),   w_t ~ N(m_{c(t)}, within I),   y = w_t' x + N(0, noise),   x ~ N(0, I)

    `within` sets the relatedness: at 0 all tasks of a cluster are identical; the larger it is, the less related they
    are. Weights of one cluster have correlation `between / (between + within)`, weights of different clusters 0. Every
    task has its own rows. Tasks 0 to `tasks_per_cluster - 1` are cluster 0, and so on.

    Args:
        key: typed PRNG key `[]` that centres and weights are drawn from.
        num_clusters: C.
        tasks_per_cluster: number of tasks per cluster; T is C times this number.
        num_examples: n, rows per task.
        within: variance of weights about their centre, at least 0; may be traced.
        between: variance of centres, at least 0; may be traced.
        noise: variance of the labels' noise, at least 0; may be traced.
        num_features: d.
        example_key: typed PRNG key `[]` that inputs and noise are drawn from; None derives it from `key`. Another key
            gives other rows of the same tasks.

    Returns:
        `ClusteredLinear` of JAX's default floating type. `mtljax.convex.pad` turns `batches` into rows for linear
        models.

    Raises:
        TypeError: a key that is not typed.
        ValueError: counts below 1, a negative variance, several keys.

    L. Jacob, F. Bach, J.-P. Vert (2008), "Clustered multi-task learning: a convex formulation", NIPS; J. Zhou, J. Chen,
    J. Ye (2011), "Clustered multi-task learning via alternating structure optimization", NIPS. Their penalties
    distinguish the same two variances.

    Departures: the centres of their data are orthogonal, each zero outside its own features. Here centres are drawn
    independently, so that `within` and `between` alone set the relatedness.

    Example:
        >>> draw = lambda key: clustered_linear(
        ...     key, num_clusters=2, tasks_per_cluster=3, num_examples=4, within=0.1)
        >>> made = jax.eval_shape(draw, jax.random.key(0))
        >>> made.weights.shape, made.batches["task_5"].inputs.shape
        ((6, 30), (4, 30))
    """
    name = "clustered_linear"
    counts = {
        "num_clusters": num_clusters,
        "tasks_per_cluster": tasks_per_cluster,
        "num_examples": num_examples,
        "num_features": num_features,
    }
    for argument, count in counts.items():
        check_count(name, argument, count)
    for argument, variance in {"within": within, "between": between, "noise": noise}.items():
        check_number(name, argument, variance, least=0)
    task_key, draw_key = task_and_example_keys(name, key, example_key)
    num_tasks = num_clusters * tasks_per_cluster
    clusters = jnp.repeat(jnp.arange(num_clusters, dtype=jnp.int32), tasks_per_cluster)
    rows = (num_tasks, num_examples)
    centers, offsets = drawn(jax.random.normal, task_key, (num_clusters, num_features), (num_tasks, num_features))
    inputs, noises = drawn(jax.random.normal, draw_key, (*rows, num_features), rows)
    deviations = (jnp.sqrt(jnp.asarray(variance, float)) for variance in (between, within, noise))
    between_deviation, within_deviation, noise_deviation = deviations
    weights = between_deviation * centers[clusters] + within_deviation * offsets
    labels = jnp.einsum("tnd,td->tn", inputs, weights, precision=lax.Precision.HIGHEST)
    labels = labels + noise_deviation * noises
    batches = {task: Batch(x, {task: y}) for task, x, y in zip(task_names(num_tasks), inputs, labels, strict=True)}
    return ClusteredLinear(batches, weights, clusters)

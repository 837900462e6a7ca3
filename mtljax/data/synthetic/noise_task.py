"""A distractor: one more task, whose labels do not depend on the inputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mtljax.checks import check_count, check_key, expect
from mtljax.types import Batch, Key


def noise_task(
    batch: Batch, key: Key, *, task: str = "noise", shape: tuple[int, ...] = (), num_classes: int | None = None
) -> Batch:
    """Add a task to a batch, with labels that are pure noise.

        y ~ N(0, 1), or uniform on the classes 0 to C - 1

    Labels are independent of inputs, of other labels and of each other. No function of the input predicts them better
    than their mean (squared error 1, cross-entropy `log C`). So the task cannot help other tasks: if it harms them,
    the method has negative transfer. A network can memorize the labels of a finite training set.

    Args:
        batch: `Batch` of arrays `[B, ...]`.
        key: typed PRNG key `[]`.
        task: name of the new task.
        shape: shape of one label; `()` (default) is one number per example.
        num_classes: C, for integer class labels; None (default) for normal numbers.

    Returns:
        `Batch` with `targets[task]` `[B, *shape]`, of JAX's default floating type or int32, else unchanged.

    Raises:
        TypeError: `batch` is not a `Batch`, or the key is not typed.
        ValueError: the batch has a task of that name, inputs of unequal lengths, several keys, or fewer than 2 classes.

    Example:
        >>> batch = Batch(jnp.zeros((4, 2)), {"a": jnp.zeros(4)})
        >>> labels = noise_task(batch, jax.random.key(0), num_classes=3).targets["noise"]
        >>> labels.shape, labels.dtype
        ((4,), dtype('int32'))
    """
    expect(isinstance(batch, Batch), "noise_task", "batch", "a Batch", batch, TypeError)
    expect(isinstance(task, str), "noise_task", "task", "a string", task, TypeError)
    expect(isinstance(shape, tuple), "noise_task", "shape", "a tuple of integers", shape, TypeError)
    for size in shape:
        check_count("noise_task", "shape", size, least=0)
    check_key("noise_task", "key", key)
    if task in batch.targets:
        raise ValueError(f"noise_task: task must be a new name, found '{task}', which the batch has already")
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch.inputs)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"noise_task: inputs must be arrays [B, ...] of one length, found lengths {sorted(lengths)}")
    shape = (*lengths.pop(), *shape)
    if num_classes is None:
        labels = jax.random.normal(key, shape)
    else:
        check_count("noise_task", "num_classes", num_classes, least=2)
        labels = jax.random.randint(key, shape, 0, num_classes, jnp.int32)
    return batch._replace(targets={**batch.targets, task: labels})

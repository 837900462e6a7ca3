"""Contrastive losses, which distinguish the other view of an example, or a word's neighbour, from negatives.

`info_nce` and `nt_xent` return one value per example, `[B]`, but compare the examples of a batch with one another.
Under `pmap` and `shard_map` the batch is that of one device; under `mtljax.training.sharded` it is the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mtljax.checks import check_number, check_outputs, check_values
from mtljax.trees import accumulator
from mtljax.types import Array


def info_nce(*, temperature: float = 0.1, normalize: bool = True) -> Callable[[Any, Any], Array]:
    r"""The InfoNCE loss: recognize z'_i, the second view of example i, among the second views of all examples.

    `loss_i = -log( exp(s(z_i, z'_i) / t) / sum_j exp(s(z_i, z'_j) / t) )`, s the cosine, or the dot product.

    The first view is the query, and second views are the candidates. `log B - loss` is a lower bound of the mutual
    information of the two views.

    Van den Oord, Li and Vinyals, "Representation learning with contrastive predictive coding", arXiv:1807.03748, 2018.

    Departures: their score is `z^T W z'`; here W is part of the task's head.

    Args:
        temperature: t, positive.
        normalize: whether the score is the cosine (default) or, False, the dot product. The cosine with a zero vector
            is 0.

    Returns:
        Loss `((first [B, D], second [B, D]), targets bool [B]) -> [B]` in nats, float32 at least. The outputs may be a
        `mtljax.data.views.Pair`. `targets` is True for examples that take part. The other examples are not negatives.
        Their own loss, over their positive and the examples that take part, must be masked: `mtljax.make_losses_fn`
        does so.

    Raises:
        TypeError: (by the loss) outputs that are not a pair of floating arrays, targets that are not bool.
        ValueError: a temperature that is not positive; from the loss, shapes that do not match, or fewer than two
            examples.

    Example:
        >>> z = jnp.eye(2)
        >>> [f"{value:.3f}" for value in info_nce(temperature=1.0)((z, z), jnp.array([True, True]))]
        ['0.313', '0.313']
    """
    _check_temperature("info_nce", temperature)

    def loss(outputs: Any, targets: Any) -> Array:
        first, second, present = _pair("info_nce", outputs, targets)
        if normalize:
            first, second = _unit(first), _unit(second)
        scores = _products(first, second) / temperature
        own = jnp.eye(len(present), dtype=bool)
        return _cross_entropy(scores, own, present[None, :] & ~own)

    return loss


def nt_xent(*, temperature: float = 0.1) -> Callable[[Any, Any], Array]:
    r"""The normalized temperature-scaled cross-entropy of SimCLR: recognize the other view among all other views.

    With the 2B views u = (z_1, ..., z_B, z'_1, ..., z'_B), p(i) the other view of the same example and s the cosine:

        l_i = -log( exp(s(u_i, u_p(i)) / t) / sum_{j != i} exp(s(u_i, u_j) / t) )

    and `loss_i = (l_i + l_p(i)) / 2`, whose mean over examples is the paper's loss.

    Chen, Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual representations", ICML
    2020.

    Args:
        temperature: t, positive.

    Returns:
        Loss with the signature of `info_nce`'s, symmetric in the two views.

    Raises:
        TypeError, ValueError: as `info_nce`.

    Example:
        >>> z = jnp.eye(2)
        >>> [f"{value:.3f}" for value in nt_xent(temperature=1.0)((z, z), jnp.array([True, True]))]
        ['0.551', '0.551']
    """
    _check_temperature("nt_xent", temperature)

    def loss(outputs: Any, targets: Any) -> Array:
        first, second, present = _pair("nt_xent", outputs, targets)
        views = _unit(jnp.concatenate([first, second]))
        size = len(present)
        scores = _products(views, views) / temperature
        partner = jnp.roll(jnp.eye(2 * size, dtype=bool), size, axis=1)
        others = jnp.tile(present, 2)[None, :] & ~jnp.eye(2 * size, dtype=bool)
        both = _cross_entropy(scores, partner, others & ~partner)
        return (both[:size] + both[size:]) / 2

    return loss


def negative_sampling(outputs: Array, targets: Array) -> tuple[Array, Array]:
    r"""The loss of negative sampling: binary classification of every candidate.

    For a pair with scores z_0 (the true candidate) and z_1, ..., z_K (the negatives)

        l = -log sigmoid(z_0) - sum_k log sigmoid(-z_k)

    The mean is over the pairs that have a true candidate.

    Mikolov, Sutskever, Chen, Corrado and Dean, "Distributed representations of words and phrases and their
    compositionality", NeurIPS 2013.

    Args:
        outputs: scores `[B, P, 1 + K]`, floating.
        targets: int `[B, P, 1 + K]`: 1 for a true candidate, 0 for a negative, -1 for a candidate that does not count,
            as from `mtljax.data.views.skip_gram`.

    Returns:
        `(elements, weights)`: losses of pairs `[B, P]` in nats, float32 at least, NaN for a pair with another traced
        target; and bool `[B, P]`, whether the pair has a true candidate.

    Raises:
        TypeError: scores that are not floating, targets that are not integers.
        ValueError: shapes that differ, or are not `[B, P, 1 + K]`; a concrete target that is not -1, 0 or 1.

    Example:
        >>> targets = jnp.array([[[1, 0, -1], [-1, -1, -1]]])
        >>> elements, weights = negative_sampling(jnp.zeros((1, 2, 3)), targets)
        >>> [f"{value:.3f}" for value in elements[0]], weights[0].tolist()
        (['1.386', '0.000'], [True, False])
    """
    known, outputs, targets = targets, check_outputs("negative_sampling", outputs), jnp.asarray(targets)
    if not jnp.issubdtype(targets.dtype, jnp.signedinteger):
        raise TypeError(f"negative_sampling: targets must be signed integers, found {targets.dtype}")
    if outputs.ndim != 3 or outputs.shape != targets.shape:
        raise ValueError(
            f"negative_sampling: outputs and targets must both be [B, P, 1 + K], "
            f"found outputs {list(outputs.shape)} and targets {list(targets.shape)}"
        )
    known = check_values("negative_sampling", known, lambda y: (y >= -1) & (y <= 1), "-1, 0 or 1")
    # Replaced before the loss, since the derivative at a NaN score that does not count is NaN.
    scores = jnp.where(targets < 0, 0, outputs)
    each = optax.losses.sigmoid_binary_cross_entropy(scores, (targets == 1).astype(outputs.dtype))
    counted = jnp.where(targets >= 0, each, 0)
    return jnp.sum(jnp.where(known, counted, jnp.nan), axis=2), (targets == 1).any(-1) | ~known.all(-1)


def _check_temperature(name: str, temperature: float) -> None:
    check_number(name, "temperature", temperature, above=0)


def _pair(name: str, outputs: Any, targets: Any) -> tuple[Array, Array, Array]:
    if not isinstance(outputs, (tuple, list)) or len(outputs) != 2:
        raise TypeError(f"{name}: outputs must be a pair of arrays [B, D], found {type(outputs).__name__}")
    first, second, present = (jnp.asarray(each) for each in (*outputs, targets))
    if not all(jnp.issubdtype(each.dtype, jnp.floating) for each in (first, second)):
        raise TypeError(f"{name}: outputs must be floating, found {first.dtype} and {second.dtype}")
    if present.dtype != jnp.bool_:
        raise TypeError(f"{name}: targets must be bool, True for examples that take part, found {present.dtype}")
    if first.ndim != 2 or first.shape != second.shape or present.shape != first.shape[:1]:
        raise ValueError(
            f"{name}: outputs must both be [B, D] and targets [B], found {list(first.shape)}, {list(second.shape)} "
            f"and {list(present.shape)}"
        )
    if len(first) < 2:
        raise ValueError(f"{name}: outputs must hold at least two examples, found {len(first)}")
    dtype = accumulator(jnp.promote_types(first.dtype, second.dtype))
    return first.astype(dtype), second.astype(dtype), present


def _unit(rows: Array) -> Array:
    """Rows scaled to length 1; a zero row stays zero, with derivative zero."""
    # Divided by the largest entry first, so that no square under- or overflows. The result does not depend on it.
    size = lax.stop_gradient(jnp.max(jnp.abs(rows), axis=1, keepdims=True))
    zero = size == 0
    rows = jnp.where(zero, 0.0, rows) / jnp.where(zero, 1.0, size)
    squared = jnp.sum(jnp.square(rows), axis=1, keepdims=True)
    return rows / jnp.sqrt(jnp.where(zero, 1.0, squared))


def _products(rows: Array, columns: Array) -> Array:
    return jnp.matmul(rows, columns.T, precision=lax.Precision.HIGHEST)


def _cross_entropy(scores: Array, right: Array, others: Array) -> Array:
    """Cross-entropy per row over its right answer and the others: `log(1 + sum_others exp(s - s_right))`."""
    answer = jnp.sum(jnp.where(right, scores, 0), axis=1, keepdims=True)
    # This form keeps the digits of a small loss; a difference of two large numbers would lose them.
    return jax.nn.softplus(jax.nn.logsumexp(jnp.where(others, scores - answer, -jnp.inf), axis=1))

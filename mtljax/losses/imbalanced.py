"""Losses for classes of unequal size, in the form that `Task.loss` takes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtljax.checks import check_callable, check_labels, check_number, check_outputs, check_values
from mtljax.losses.class_weights import checked_counts
from mtljax.losses.per_example import Loss, class_cross_entropy, yes_or_no
from mtljax.types import Array


def class_weighted(loss: Loss, weights: Any) -> Loss:
    """A loss in which each element has the weight of its class: `w[y] loss(z, y)`.

    The mean over a batch divides by the number of labelled elements, not by the sum of their class weights. So a batch
    with more elements of a heavy class has a larger loss, and the expectation over batches is the weighted mean.

    Args:
        loss: `(outputs, targets) -> elements [B, ...]` of the shape of the targets, or `(elements, weights)`.
        weights: `[C]`, finite, not negative; for binary targets C is 2.

    Returns:
        Loss for targets `[B, ...]`: integer or bool classes, or whole numbers in a floating type (not soft targets such
        as 0.5). A traced target that is not a class gives NaN.

    Raises:
        TypeError: a loss that is not a function, weights that are not numbers.
        ValueError: weights that are not `[C]`, not finite or negative; from the loss, elements that do not have the
            shape of the targets, or a concrete target that is not a class.

    Example:
        >>> from mtljax.losses import binary_cross_entropy
        >>> heavy = class_weighted(binary_cross_entropy, [1.0, 10.0])
        >>> heavy(jnp.zeros(2), jnp.array([0.0, 1.0]))
        Array([0.6931..., 6.931...], dtype=float32)
    """
    check_callable("class_weighted", "loss", loss)
    table = jnp.asarray(check_number("class_weighted", "weights", weights, least=0, shape=("C",)), jnp.float32)
    size = len(table)

    def weighted(outputs: Any, targets: Any) -> Any:
        classes = jnp.asarray(targets)
        if classes.ndim < 1:
            raise ValueError(f"class_weighted: targets must be [B, ...], found {list(classes.shape)}")
        if jnp.issubdtype(classes.dtype, jnp.complexfloating):
            raise TypeError(f"class_weighted: targets must be real numbers, found {classes.dtype}")
        known = check_values(
            "class_weighted", targets, lambda y: (y >= 0) & (y < size) & (y == y // 1), f"classes from 0 to {size - 1}"
        )
        found = loss(outputs, targets)
        values, *own = found if type(found) is tuple else (found,)
        if jnp.shape(values) != classes.shape:
            raise ValueError(
                f"class_weighted: the loss must be {list(classes.shape)}, as the targets are, "
                f"found {list(jnp.shape(values))}"
            )
        values = jnp.where(known, table[jnp.where(known, classes, 0).astype(jnp.int32)] * values, jnp.nan)
        return (values, *own) if own else values

    return weighted


def sigmoid_focal(*, gamma: float = 2.0, alpha: float | None = None) -> Loss:
    """Make the focal loss of independent binary labels, from logits.

    `loss = -a_y (1 - p_y)^gamma log p_y` with p_y the probability of the right label,
    `a_1 = alpha` and `a_0 = 1 - alpha` (both 1 if alpha is None); gamma = 0 is the cross-entropy. For a soft target y
    between 0 and 1, a_y is `y a_1 + (1 - y) a_0`, the p_y of the power is `y p_1 + (1 - y) p_0`, and `-log p_y` is the
    cross-entropy. The loss is `optax.losses.sigmoid_focal_loss`.

    T.-Y. Lin, P. Goyal, R. Girshick, K. He and P. Dollar, "Focal Loss for Dense Object Detection", ICCV 2017.

    Args:
        gamma: at least 0, finite; the paper's best is 2.
        alpha: weight of the positive class, from 0 to 1, or None (default); the paper's best, with gamma 2, is .25.

    Returns:
        Loss for logits `[B, ...]` and targets of the same shape, bool or numbers from 0 to 1; elements like the
        targets, float32 at least.

    Raises:
        ValueError: gamma or alpha outside its range; from the loss, shapes that differ.
        TypeError: from the loss, logits that are not floating.

    Example:
        >>> sigmoid_focal(gamma=2.0)(jnp.array([0.0]), jnp.array([1.0]))  # a quarter of log 2
        Array([0.17328...], dtype=float32)
    """
    _check_gamma("sigmoid_focal", gamma)
    if alpha is not None:
        check_number("sigmoid_focal", "alpha", alpha, least=0, most=1)

    def loss(outputs: Any, targets: Any) -> Array:
        def focal(outputs: Array, targets: Array) -> Array:
            return optax.losses.sigmoid_focal_loss(outputs, targets, alpha=alpha, gamma=gamma)

        return yes_or_no("sigmoid_focal", focal, outputs, targets)

    return loss


def softmax_focal(*, gamma: float = 2.0) -> Loss:
    """Make the focal loss of one class among several: `-(1 - p_y)^gamma log p_y`.

    For class weights, the paper's alpha, wrap it in `class_weighted`. Both factors are computed from the log-odds
    against the right class, which keeps their digits for p_y near 1.

    T.-Y. Lin and others, ICCV 2017, as for `sigmoid_focal`, with softmax probabilities.

    Args:
        gamma: at least 0, finite; 0 is the cross-entropy.

    Returns:
        Loss for logits `[B, ..., C]` and integer targets `[B, ...]`; elements like the targets, float32 at least.

    Raises:
        ValueError: gamma outside its range; from the loss, shapes that do not match, or fewer than 2 classes.
        TypeError: from the loss, logits that are not floating or labels that are not integers.

    Example:
        >>> softmax_focal(gamma=2.0)(jnp.zeros([1, 2]), jnp.array([1]))
        Array([0.17328...], dtype=float32)
    """
    _check_gamma("softmax_focal", gamma)

    def loss(outputs: Any, targets: Any) -> Array:
        outputs, targets, known = check_labels("softmax_focal", outputs, targets)
        if outputs.shape[-1] < 2:
            raise ValueError(f"softmax_focal: outputs must have at least 2 classes, found {list(outputs.shape)}")
        right = jax.nn.one_hot(targets, outputs.shape[-1], dtype=bool)
        own = jnp.sum(jnp.where(right, outputs, 0), axis=-1)
        # Clipped, since the logarithm of a sum has no gradient if all other logits are -inf.
        others = jnp.where(right, -jnp.inf, jnp.maximum(outputs, jnp.finfo(outputs.dtype).min / 2))
        odds = jax.nn.logsumexp(others, axis=-1) - own  # log of (1 - p_y) / p_y
        values = jnp.exp(-gamma * jax.nn.softplus(-odds)) * jax.nn.softplus(odds)
        return jnp.where(known, values, jnp.nan)

    return loss


def logit_adjusted(counts: Any, *, tau: float = 1.0) -> Loss:
    """Make the logit-adjusted softmax cross-entropy: that of `z_c + tau log pi_c`, with `pi_c = n_c / N`.

    With tau = 1, `argmax z` of the minimizer has the smallest balanced error, the mean over classes of the error per
    class. Only the loss adds the adjustment: predict from the outputs z as they are.

    A. K. Menon, S. Jayasumana, A. S. Rawat, H. Jain, A. Veit and S. Kumar, "Long-tail learning via logit adjustment",
    ICLR 2021.

    Args:
        counts: number of examples per class `[C]`, all positive, since the logarithm of a prior of 0 is infinite.
        tau: at least 0, finite; 0 is the cross-entropy.

    Returns:
        Loss for logits `[B, ..., C]` and integer targets `[B, ...]`; elements like the targets, float32 at least.

    Raises:
        ValueError: counts that are not `[C]`, finite and all positive, tau outside its range; from the loss, shapes
            that do not fit.
        TypeError: as `losses.softmax_cross_entropy`.

    Example:
        >>> logit_adjusted([3, 1])(jnp.zeros([2, 2]), jnp.array([0, 1]))  # -log of 3/4 and of 1/4
        Array([0.28768..., 1.38629...], dtype=float32)
    """
    shift = _shifts("logit_adjusted", counts, tau)

    def loss(outputs: Any, targets: Any) -> Array:
        outputs = check_outputs("logit_adjusted", outputs)
        if outputs.shape[-1:] != shift.shape:
            raise ValueError(f"logit_adjusted: outputs must be [B, ..., {len(shift)}], found {list(outputs.shape)}")
        lifted = jnp.asarray(shift, outputs.dtype).reshape((1,) * (outputs.ndim - 1) + (-1,))
        return class_cross_entropy("logit_adjusted", outputs + lifted, targets)

    return loss


def sigmoid_logit_adjusted(counts: Any, *, tau: float = 1.0) -> Loss:
    """Make the logit-adjusted cross-entropy of a binary label: that of `z + tau log(n_1 / n_0)`.

    It is the two-class case of `logit_adjusted`, with one logit `z = z_1 - z_0`.

    Args:
        counts: numbers of negative and of positive examples `[2]`, both above 0.
        tau: at least 0, finite; 0 is the cross-entropy.

    Returns:
        Loss for logits and targets `[B, ...]` as in `losses.binary_cross_entropy`; elements like the targets.

    Raises:
        ValueError, TypeError: as `logit_adjusted` and `losses.binary_cross_entropy`.

    Example:
        >>> sigmoid_logit_adjusted([3, 1])(jnp.zeros(2), jnp.array([0.0, 1.0]))  # -log of 3/4 and of 1/4
        Array([0.28768..., 1.38629...], dtype=float32)
    """
    shift = _shifts("sigmoid_logit_adjusted", counts, tau)
    if shift.shape != (2,):
        raise ValueError(f"sigmoid_logit_adjusted: counts must be [2], negative and positive, found {counts}")
    lift = float(shift[1] - shift[0])

    def loss(outputs: Any, targets: Any) -> Array:
        outputs = check_outputs("sigmoid_logit_adjusted", outputs) + lift
        return yes_or_no("sigmoid_logit_adjusted", optax.losses.sigmoid_binary_cross_entropy, outputs, targets)

    return loss


def _shifts(caller: str, counts: Any, tau: float) -> np.ndarray:
    """`tau log pi`, `[C]`."""
    counts = checked_counts(caller, counts)
    if not (counts > 0).all():
        raise ValueError(f"{caller}: counts must be above 0, found {counts.tolist()}")
    return check_number(caller, "tau", tau, least=0) * np.log(counts / counts.sum())


def _check_gamma(caller: str, gamma: float) -> None:
    check_number(caller, "gamma", gamma, least=0)

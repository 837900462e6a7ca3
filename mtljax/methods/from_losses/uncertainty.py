"""Uncertainty weighting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtljax.checks import check_number, check_optimizer, expect, found
from mtljax.methods.common import PULL
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.methods.learning import learn, learner_state
from mtljax.types import Array, Key, Method

Form = Callable[[Array], tuple[Array, Array]]


class UncertaintyState(NamedTuple):
    """State of uncertainty weighting.

    Attributes:
        log_variance: float32 `[T]`, `s_k`; what it is the logarithm of depends on the task's form.
        optimizer: state of the optimiser that learns it, leaves `[T, ...]`.
    """

    log_variance: Array
    optimizer: Any


def gaussian(s: Array) -> tuple[Array, Array]:
    """Form of a task with squared errors: `1/2 exp(-s) L + 1/2 s`, where `s = log sigma^2`.

    Args:
        s: float32, any shape.

    Returns:
        The weight of the loss, and the regularizer, both of the shape of s.

    Example:
        >>> gaussian(jnp.zeros(2))[0]
        Array([0.5, 0.5], dtype=float32)
    """
    return 0.5 * jnp.exp(-s), 0.5 * s


def laplace(s: Array) -> tuple[Array, Array]:
    """Form of a task with absolute errors: `exp(-s) L + s`, where `s = log b`, b the scale of the Laplace distribution.

    Args:
        s: float32, any shape.

    Returns:
        The weight of the loss, and the regularizer, both of the shape of s.
    """
    return jnp.exp(-s), s


def softmax(s: Array) -> tuple[Array, Array]:
    """Form of a task with cross-entropies: `exp(-s) L + 1/2 s`, where `s = log sigma^2` and sigma^2 is a temperature.

    Args:
        s: float32, any shape.

    Returns:
        The weight of the loss, and the regularizer, both of the shape of s.
    """
    return jnp.exp(-s), 0.5 * s


def uncertainty(
    *,
    forms: Form | Sequence[Form] = gaussian,
    optimizer: optax.GradientTransformation | None = None,
    log_variance: float = 0.0,
) -> Method:
    """Homoscedastic uncertainty weighting: each task's noise is learned with the network.

    The form of a task is its likelihood: the loss is the negative logarithm of it. The objective is the sum over tasks
    of

        gaussian  1/2 exp(-s_k) L_k + 1/2 s_k   squared error
        laplace       exp(-s_k) L_k +     s_k   absolute error
        softmax       exp(-s_k) L_k + 1/2 s_k   cross-entropy

    and the weight is the factor of the loss. s follows its own gradient; for `gaussian` that is
    `(1 - exp(-s_k) L_k) / 2`. At the optimum `exp(s_k)` is `L_k`, `L_k` and `2 L_k`, respectively. A gradient of s
    beyond 64 counts as 64, so that no single loss moves s out of range for ever. A loss of exactly 0 leaves s
    unchanged, because its logarithm is not finite.

    Args:
        forms: `gaussian` (default), `laplace`, `softmax` of this module or a function of the same kind, for all tasks;
            or a sequence of T of them, in sorted order of task names. A form maps s to the weight of the loss and the
            regularizer, entry by entry.
        optimizer: for s; None (default) for `optax.adam(1e-3)`.
        log_variance: first value of every s_k, default 0, at which weights are 1/2 (`gaussian`) or 1.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Losses must not
        be negative: s would diverge. Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        A. Kendall, Y. Gal, R. Cipolla (2018), "Multi-task learning using uncertainty to weigh losses for scene
        geometry and semantics", CVPR, arXiv 1705.07115 (`laplace`: its section 4 uses absolute errors).
        Departures: the paper trains s in the network's own optimiser; here s is the method's state and has an
        optimiser of its own for each task, so weight decay never reaches it and nothing of an inactive task moves.
        The gradient for s takes the losses of this step.
        LibMTL: `log_variance=-0.5`; TorchJD and nash-mtl: the defaults, nash-mtl with
        `optimizer=optax.adam(0.025)`. All three know `gaussian` alone.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> method = mtljax.methods.uncertainty()
        >>> weights, state = method.update(jnp.array([1.0, 4.0]), method.init(2))
        >>> print(weights, state.inner.log_variance.round(4))
        [0.5 0.5] [0.    0.001]

        A task with squared errors beside a classification:

        >>> method = mtljax.methods.uncertainty(forms=[gaussian, softmax])
        >>> print(method.update(jnp.array([1.0, 4.0]), method.init(2))[0])
        [0.5 1. ]
    """
    learner = optax.adam(1e-3) if optimizer is None else check_optimizer("uncertainty", "optimizer", optimizer)
    check_number("uncertainty", "log_variance", log_variance)
    if not callable(forms) and not isinstance(forms, Sequence):
        expect(False, "uncertainty", "forms", "a function or a sequence of functions", forms, TypeError)
    table = None if callable(forms) else list(forms)
    for form in [forms] if table is None else table:
        if not callable(form):
            raise TypeError(f"uncertainty: forms must be a function or a sequence of functions, found {found(form)}")

    def inner(num_tasks: int) -> UncertaintyState:
        start = jnp.full((num_tasks,), log_variance, jnp.float32)
        return UncertaintyState(start, learner_state(learner, start))

    def weigh(s: Array) -> tuple[Array, Array]:
        if table is None:
            return _of_form(forms, s)
        weights, regularizer = jnp.zeros_like(s), jnp.zeros_like(s)
        # Each form runs once, on all of s, however many tasks have it.
        for form in dict.fromkeys(table):
            own = np.array([other is form for other in table])
            values = _of_form(form, s)
            weights, regularizer = jnp.where(own, values[0], weights), jnp.where(own, values[1], regularizer)
        return weights, regularizer

    def rule(
        losses: Array, active: Array, inner: UncertaintyState, *, key: Key | None, **extra: object
    ) -> tuple[Array, UncertaintyState]:
        def objective(s: Array) -> tuple[Array, Array]:
            weights, regularizer = weigh(s)
            return jnp.sum(weights * losses + regularizer), weights

        gradient, weights = jax.grad(objective, has_aux=True)(inner.log_variance)
        counted = active & (losses != 0)
        moved = learn(learner, jnp.clip(gradient, -PULL, PULL), inner.optimizer, inner.log_variance, counted)
        return weights, UncertaintyState(*moved)

    return method_of_losses("uncertainty", rule, inner=inner, per_task={"forms": table}, least_loss=0.0)


def _of_form(form: Any, s: Array) -> tuple[Array, Array]:
    answer = form(s)
    pair = isinstance(answer, tuple) and len(answer) == 2
    expect(pair, "uncertainty", "what forms returned", "a pair (weights, regularizer)", answer, TypeError)
    for value in answer:
        check_number("uncertainty", "what forms returned", value, shape=s.shape)
    return answer

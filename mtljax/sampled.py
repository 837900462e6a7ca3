"""Gramians of independent batches, for methods that want an unbiased one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax import participation, ranges, trees
from mtljax.checks import check_callable, check_flag, check_method
from mtljax.engines.checks import with_aux
from mtljax.gradients import value_and_task_grads
from mtljax.methods.apply import begun, ended, weigh
from mtljax.methods.common import check_active
from mtljax.types import Array, Key, Method, MethodState, Params, Unobserved


def value_and_grad_of_samples(
    losses_fn: Callable[..., Any], method: Method, *, has_aux: bool = False
) -> Callable[..., Any]:
    """As `mtljax.value_and_grad`, with the Gramian taken across independent batches.

    With task gradients `J_1`, `J_2`, ... of several batches, the method reads `J_1 J_2'`, an unbiased estimate of the
    Gramian of the expected gradients where `J J'` of one batch is too large by their covariance. It is neither
    symmetric nor positive semi-definite, so it is for methods that say that they take it: `methods.modo` and
    `methods.sdmgrad` with its steps. The update is `J_n' w` with the last batch: give three for the independence that
    the papers ask for (weights and update share no batch), two for less work.

    Args:
        losses_fn: `losses_fn(params, *args)` returning losses (dict of scalars by task, or array `[T]` in sorted order
            of names), or `(losses, aux)` with `has_aux`.
        method: reads "gramian".
        has_aux: see `losses_fn`.

    Returns:
        `f(params, method_state, samples, *, key=None, active=None, **extra) -> (losses, grads, method_state)`, or
        `((losses, aux), grads, method_state)` with `has_aux`.
        State and extra arrays are as in `mtljax.value_and_grad`. `samples` is a sequence of two or more tuples, each
        the `args` of one batch. Losses and task-specific gradients are means over the samples, as `losses_fn` returned
        them; aux is the tuple of theirs. A task whose loss or gradient is not finite in one of
        the samples is inactive for that step. T backward passes a sample.

    Raises:
        ValueError: the method does not read the Gramian; from f, at trace time, fewer than two samples, or whatever
            `mtljax.value_and_grad` raises.

    L. Chen, H. Fernando, Y. Ying, T. Chen (2023), "Three-way trade-off in multi-objective learning: optimization,
    generalization and conflict-avoidance", NeurIPS, arXiv 2305.20057.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params, x: {k: jnp.sum((params.shared - params.tasks[k] - x) ** 2) for k in "ab"}
        >>> params = mtljax.Params(jnp.zeros(2), {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.0, 1.0])})
        >>> method = mtljax.methods.modo()
        >>> f = mtljax.value_and_grad_of_samples(losses_fn, method)
        >>> losses, grads, state = f(params, method.init(2), [(0.1,), (-0.1,)])
        >>> [f"{x:.2f}" for x in grads.shared]
        ['-0.80', '-0.80']
    """
    check_callable("value_and_grad_of_samples", "losses_fn", losses_fn)
    check_method("value_and_grad_of_samples", "method", method)
    check_flag("value_and_grad_of_samples", "has_aux", has_aux)
    if method.reads != "gramian":
        raise ValueError(f"value_and_grad_of_samples: {method.name} reads {method.reads}, expected the Gramian")
    task_grads = value_and_task_grads(losses_fn, has_aux=has_aux)

    def f(
        params: Params,
        method_state: MethodState | Unobserved,
        samples: Sequence[tuple[Any, ...]],
        *,
        key: Key | None = None,
        active: Array | None = None,
        **extra: Array,
    ) -> tuple[Any, Params, MethodState | Unobserved]:
        begin = begun("value_and_grad_of_samples", method, method_state)
        if len(samples) < 2:
            raise ValueError(f"value_and_grad_of_samples: found {len(samples)} samples, expected two or more")
        names = sorted(params.tasks)
        check_active(method.name, active, len(names))
        found = [task_grads(params, *args) for args in samples]
        values = [value if has_aux else (value, None) for value, _ in found]
        mean_losses = jnp.stack([_vector(losses, names) for losses, _ in values]).mean(axis=0)
        who = participation.present(mean_losses, active=active, method=method)
        present = who.active
        for _, grads in found:
            own_sound = participation.sound([grads.tasks[name] for name in names])
            present = present & participation.sound_rows(grads.shared, len(names)) & own_sound

        first, second, last = (participation.rows_of(present, found[k][1].shared) for k in (0, 1, -1))
        gram = ranges.cross_gramian(first, second, num_tasks=len(names))
        told = {"losses": who.clean, "active": present, "key": key, "scale": gram.scale, **extra}
        weights, state = weigh(method, gram.gramian, begin, **told)
        own = jax.tree.map(lambda *leaves: sum(leaves) / len(samples), *(grads.tasks for _, grads in found))
        own = participation.own_gradients(own, present, weights if method.weigh_tasks else None)
        shared = participation.guarded(trees.weighted_sum(weights, last), present.any())
        losses = jax.tree.map(lambda *each: sum(each) / len(samples), *(losses for losses, _ in values))
        mean = with_aux(losses, tuple(aux for _, aux in values), has_aux)
        return mean, Params(shared, own), ended(method, participation.unless_void(state, begin, present))

    return f


def _vector(losses: Any, names: list[str]) -> Array:
    array = jnp.stack([losses[name] for name in names]) if isinstance(losses, dict) else losses
    return array.astype(jnp.float32)

"""Task-wise sharpness-aware minimisation: parameters where every task's loss is low and flat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import participation, trees
from mtljax.checks import check_callable, check_flag, check_method, check_number
from mtljax.engines.checks import as_scalars, split_aux, with_aux
from mtljax.methods.apply import begun, ended, reconcile
from mtljax.methods.common import check_active
from mtljax.types import Array, Key, Method, MethodState, Params, PyTree, Unobserved


class FlatState(NamedTuple):
    """The state of a method that reconciles two kinds of gradients.

    Attributes:
        loss: the method's state for the gradients of the losses.
        flat: its state for the gradients of their sharpness.
    """

    loss: MethodState | Unobserved
    flat: MethodState | Unobserved


def fs_mtl(
    losses_fn: Callable[..., Any],
    method: Method,
    *,
    rho: float = 0.05,
    rho_tasks: float | None = None,
    adaptive: bool = False,
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Losses, and the gradient that a method makes of task-wise sharpness-aware gradients.

    With `theta` the shared parameters, `phi_k` those of task k, and g_k, h_k its gradients by the two,

        theta_k = theta + rho g_k / |g_k|,    phi'_k = phi_k + rho_tasks h_k / |h_k|,
        s_k = grad_theta L_k(theta_k, phi'_k) - g_k,
        shared update = A(g_1 .. g_T) + A(s_1 .. s_T),    update of phi_k = grad_phi L_k(theta_k, phi'_k),

    where A is the method. `g_k + s_k` is the gradient that sharpness-aware minimisation takes for task k alone: g_k
    leads to lower loss, s_k to where the loss rises less around. Conflicts are resolved among the former and among the
    latter, which a method cannot do on the sums.

    Args:
        losses_fn: `losses_fn(params, *args)` returning losses (dict of scalars by task, or array `[T]` in sorted order
            of names), or `(losses, aux)` with `has_aux`.
        method: A, any but one that reads one task's gradient a step.
        rho: length of the step into each task's ascent direction, at least 0; default 0.05.
        rho_tasks: the same for task-specific parameters; None (default) for `rho`.
        adaptive: whether that length is measured relative to the parameters, as in ASAM: with w the parameters, the
            step is `rho w^2 g / |w g|`.
        has_aux: see `losses_fn`.

    Returns:
        `f(params, state, *args, key=None, active=None, **extra) -> (losses, grads: Params, state)`, or
        `((losses, aux), grads, state)` with `has_aux`, as that
        of `mtljax.value_and_grad`, at the parameters themselves. The state is
        `FlatState(method.init(T, params.shared), method.init(T, params.shared))`; `mtljax.observe` takes it as a whole.
        Task-specific gradients are multiplied by the weights of `state.loss` where `method.weigh_tasks`. A task is
        inactive for the step where its loss, at the parameters or at the perturbed ones, is not finite. Costs: the T
        gradients at the parameters, and T forward and backward passes at T perturbed ones; memory 2 T x P. Written out
        task by task: compile it.

    Raises:
        TypeError: the state is no `FlatState`; `active` is not boolean.
        ValueError: rho or rho_tasks negative or not finite; a method that reads one task's gradient; from f, at trace
            time, where losses, params, active and state do not go together.

    H. Phan, L. Tran, Q. Tran, N. Tran, T. Truong, Q. Lei, N. Ho, D. Phung, T. Le (2025), "Beyond losses reweighting:
    empowering multi-task learning via the generalization perspective", ICCV, arXiv 2211.13723 (first named "Improving
    multi-task learning via seeking task-based flat regions"). Departures: a gradient of zero perturbs nothing. The
    authors' code: `rho=2, adaptive=True` in its defaults, with updates of MGDA times T.

    Example:
        >>> import mtljax
        >>> losses_fn = lambda params: {k: jnp.sum((params.shared - params.tasks[k]) ** 2) for k in "ab"}
        >>> params = mtljax.Params(jnp.zeros(2), {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.0, 1.0])})
        >>> method = mtljax.methods.mgda()
        >>> state = FlatState(method.init(2), method.init(2))
        >>> f = fs_mtl(losses_fn, method, rho=0.5, rho_tasks=0.0)
        >>> losses, grads, state = f(params, state)
        >>> print(grads.shared)
        [-1.5 -1.5]
    """
    check_callable("fs_mtl", "losses_fn", losses_fn)
    check_method("fs_mtl", "method", method)
    check_number("fs_mtl", "rho", rho, least=0)
    rho_own = rho if rho_tasks is None else check_number("fs_mtl", "rho_tasks", rho_tasks, least=0)
    check_flag("fs_mtl", "adaptive", adaptive)
    check_flag("fs_mtl", "has_aux", has_aux)
    if method.pick is not None:
        raise ValueError(f"fs_mtl: {method.name} reads one task's gradient a step, but fs_mtl has those of all")

    def f(
        params: Params,
        state: FlatState,
        *args: Any,
        key: Key | None = None,
        active: Array | None = None,
        **extra: Array,
    ) -> tuple[Any, Params, FlatState]:
        if not isinstance(state, FlatState):
            raise TypeError(f"fs_mtl: the state must be a FlatState, found {type(state).__name__}")
        names = sorted(params.tasks)
        before_low, before_flat = (begun("fs_mtl", method, each) for each in state)
        for each in state:
            if each.weights.shape != (len(names),):
                raise ValueError(
                    f"fs_mtl: {method.name} was initialised for {each.weights.shape[0]} tasks but params.tasks has "
                    f"{names}"
                )
        check_active("fs_mtl", active, len(names))

        def loss(k: int, shared: PyTree, own: PyTree) -> tuple[Array, tuple[Any, Any]]:
            found = losses_fn(Params(shared, {**params.tasks, names[k]: own}), *args)
            losses, aux = split_aux(found, has_aux)
            return as_scalars(losses, names)[k], (losses, aux)

        # Losses one by one, not the derivative of all: zero times another task's NaN would be NaN. What forward passes
        # have in common, the compiler runs once.
        grad = jax.value_and_grad(loss, argnums=(1, 2), has_aux=True)
        found = [grad(k, params.shared, params.tasks[name]) for k, name in enumerate(names)]
        sharp = [
            grad(
                k,
                perturbed(params.shared, shared, rho, adaptive),
                perturbed(params.tasks[name], own, rho_own, adaptive),
            )
            for (k, name), (_, (shared, own)) in zip(enumerate(names), found, strict=True)
        ]
        losses = jnp.stack([value.astype(jnp.float32) for (value, _), _ in found])
        who = participation.present(losses, active=active, method=method)
        perturbed_losses = jnp.stack([value for (value, _), _ in sharp])
        gradients = [(low, flat) for (_, low), (_, flat) in zip(found, sharp, strict=True)]
        present = who.active & jnp.isfinite(perturbed_losses) & participation.sound(gradients)

        def stacked(rows: list[PyTree]) -> PyTree:
            return participation.rows_of(present, trees.stack(rows))

        low = stacked([shared for _, (shared, _) in found])
        flat = jax.tree.map(jnp.subtract, stacked([shared for _, (shared, _) in sharp]), low)
        first, second = (None, None) if key is None else jax.random.split(key)
        told: dict[str, Any] = {"losses": who.clean, "active": present, **extra}
        towards_low, low_state, _ = reconcile(method, before_low, low, key=first, **told)
        towards_flat, flat_state, _ = reconcile(method, before_flat, flat, key=second, **told)
        own = {name: sharp[k][1][1] for k, name in enumerate(names)}
        own = participation.own_gradients(own, present, low_state.weights if method.weigh_tasks else None)
        shared = participation.guarded(jax.tree.map(jnp.add, towards_low, towards_flat), present.any())
        new = participation.unless_void((low_state, flat_state), (before_low, before_flat), present)
        (_, (values, aux)), _ = found[0]
        return with_aux(values, aux, has_aux), Params(shared, own), FlatState(*(ended(method, each) for each in new))

    return f


def perturbed(params: PyTree, gradient: PyTree, rho: Array | float, adaptive: bool) -> PyTree:
    """The parameters, moved by rho along the gradient.

    Example:
        >>> perturbed(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), 5.0, False).tolist()
        [4.0, 6.0]
    """

    def wide(leaf: Array) -> Array:
        return leaf.astype(trees.accumulator(leaf.dtype))

    def weighted(params: Array, gradient: Array) -> Array:
        return jnp.abs(wide(params)) * wide(gradient) if adaptive else wide(gradient)

    steps = jax.tree.map(weighted, params, gradient)
    squares = [jnp.sum(jnp.square(leaf)).astype(jnp.float32) for leaf in jax.tree.leaves(steps)]
    norm = jnp.sqrt(sum(squares, jnp.zeros((), jnp.float32)))
    length = jnp.where(norm > 0, rho / jnp.where(norm > 0, norm, 1.0), 0.0)

    def move(params: Array, step: Array) -> Array:
        step = jnp.abs(wide(params)) * step if adaptive else step
        return (wide(params) + length.astype(step.dtype) * step).astype(params.dtype)

    return jax.tree.map(move, params, steps)

"""Task-wise sharpness-aware minimisation: parameters where every task's loss is low and flat."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax import participation, trees
from mtljax.checks import check_flag, check_method, check_number
from mtljax.methods.apply import reconcile
from mtljax.methods.checked import checked
from mtljax.types import Array, Batches, Key, Method, MethodState, Params, PyTree, Update


def fs_mtl(
    method: Method,
    *,
    rho: float = 0.05,
    rho_tasks: float | None = None,
    adaptive: bool = False,
) -> Method:
    """A method on task-wise sharpness-aware gradients.

    With `theta` the shared parameters, `phi_k` those of task k, and g_k, h_k its gradients by the two,

        theta_k = theta + rho g_k / |g_k|,    phi'_k = phi_k + rho_tasks h_k / |h_k|,
        s_k = grad_theta L_k(theta_k, phi'_k) - g_k,
        shared update = A(g_1 .. g_T) + A(s_1 .. s_T),    update of phi_k = grad_phi L_k(theta_k, phi'_k),

    where A is the method. `g_k + s_k` is the gradient that sharpness-aware minimisation takes for task k alone: g_k
    leads to a lower loss, s_k to a flatter one. Conflicts are resolved among the g_k and among the s_k separately,
    which a method cannot do on the sums.

    Args:
        method: A, any but one that reads one task's gradient per step, or batches.
        rho: length of the step into each task's ascent direction, at least 0; default 0.05.
        rho_tasks: the same for task-specific parameters; None (default) for `rho`.
        adaptive: whether that length is measured relative to the parameters, as in ASAM: with w the parameters, the
            step is `rho w^2 g / |w g|`.

    Returns:
        `Method` that reads one batch. `state.weights` and `state.residual` are those of A on the g_k, and `state.inner`
        is the pair of A's states, on the g_k and on the s_k. Task-specific gradients are multiplied by the weights
        where `method.weigh_tasks`. A task is inactive for the step where its loss, at the parameters or at the
        perturbed ones, is not finite. Costs: the T gradients at the parameters, and T forward and backward passes at T
        perturbed ones; memory 2 T x P. Written out task by task: compile it.

    Raises:
        ValueError: the method reads batches, or one task's gradient per step.

    References:
        H. Phan, L. Tran, Q. Tran, N. Tran, T. Truong, Q. Lei, N. Ho, D. Phung, T. Le (2025), "Beyond losses
        reweighting: empowering multi-task learning via the generalization perspective", ICCV, arXiv 2211.13723
        (first named "Improving multi-task learning via seeking task-based flat regions"). Departures: a gradient of
        zero perturbs nothing. The authors' code: `rho=2, adaptive=True` in its defaults, with updates of MGDA times
        T.

    Example:
        >>> import mtljax
        >>> losses_fn = lambda params: {k: jnp.sum((params.shared - params.tasks[k]) ** 2) for k in "ab"}
        >>> params = mtljax.Params(jnp.zeros(2), {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.0, 1.0])})
        >>> method = mtljax.methods.fs_mtl(mtljax.methods.mgda(), rho=0.5, rho_tasks=0.0)
        >>> losses, grads, state = mtljax.value_and_grad(losses_fn, method)(params, method.init(2))
        >>> print(grads.shared)
        [-1.5 -1.5]
    """
    check_method("fs_mtl", "method", method)
    check_number("fs_mtl", "rho", rho, least=0)
    rho_own = rho if rho_tasks is None else check_number("fs_mtl", "rho_tasks", rho_tasks, least=0)
    check_flag("fs_mtl", "adaptive", adaptive)
    if method.pick is not None or method.reads == "batches":
        reads = "batches" if method.pick is None else "one task's gradient per step"
        raise ValueError(f"fs_mtl: method must read the losses or gradients of all tasks, found {method.name}, {reads}")

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        low, flat = method.init(num_tasks, shared), method.init(num_tasks, shared)
        return MethodState(low.weights + 0.0, low.residual + 0.0, (low, flat))

    def update(
        batches: Batches, state: MethodState, *, losses: Array, key: Key | None = None, **extra: Any
    ) -> tuple[Update, MethodState]:
        params, before = batches.params, state.inner
        names = sorted(params.tasks)
        if losses.shape != (len(names),):
            raise ValueError(
                f"fs_mtl: the tasks must be entries of their own, found {losses.shape[0]} tasks in the entries "
                f"{names}, some of which are banks"
            )

        def loss(name: str, shared: PyTree, own: PyTree) -> Array:
            return batches.losses_fn(Params(shared, {**params.tasks, name: own}), 0)[name]

        # Losses one by one, not the derivative of all: zero times another task's NaN would be NaN. The compiler runs
        # the common part of the forward passes once.
        grad = jax.value_and_grad(loss, argnums=(1, 2))
        found = [grad(name, params.shared, params.tasks[name])[1] for name in names]
        sharp = [
            grad(
                name,
                perturbed(params.shared, shared, rho, adaptive),
                perturbed(params.tasks[name], own, rho_own, adaptive),
            )
            for name, (shared, own) in zip(names, found, strict=True)
        ]
        finite = jnp.isfinite(jnp.stack([value for value, _ in sharp]))
        gradients = [(low, flat) for low, (_, flat) in zip(found, sharp, strict=True)]
        present = batches.active[0] & finite & participation.sound(gradients)

        def stacked(rows: list[PyTree]) -> PyTree:
            return participation.rows_of(present, trees.stack(rows))

        low = stacked([shared for shared, _ in found])
        flat = jax.tree.map(jnp.subtract, stacked([shared for _, (shared, _) in sharp]), low)
        keys = (None, None) if key is None else jax.random.split(key)
        told: dict[str, Any] = {"losses": losses, "active": present, **extra}
        towards_low, low_state, _ = reconcile(method, before[0], low, key=keys[0], **told)
        towards_flat, flat_state, _ = reconcile(method, before[1], flat, key=keys[1], **told)
        own = {name: slopes[1] for name, (_, slopes) in zip(names, sharp, strict=True)}
        own = participation.own_gradients(own, present, low_state.weights if method.weigh_tasks else None)
        grads = Params(jax.tree.map(jnp.add, towards_low, towards_flat), own)
        state = MethodState(low_state.weights, low_state.residual, (low_state, flat_state))
        return Update(grads, present), state

    def observe(losses: Array, state: MethodState) -> MethodState:
        assert method.observe is not None
        return state._replace(inner=tuple(method.observe(losses, each) for each in state.inner))

    made = Method("batches", init, update, name=f"fs_mtl({method.name})", weigh_tasks=method.weigh_tasks)
    observes = None if method.observe is None else observe
    return checked(made._replace(observe=observes, least_loss=method.least_loss))


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

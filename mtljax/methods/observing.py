"""Methods that learn from the losses after a step, in steps made by hand: `observe` and its bookkeeping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.banks import in_order
from mtljax.types import Array, Method, MethodState, PyTree, Unobserved


def observe(method: Method, losses: Array | Mapping[str, Array], state: PyTree) -> PyTree:
    """Give a method the losses after the step, on the batch of the step; methods such as FAMO learn from them.

    For steps made by hand, with any method; `training.make_train_step` does it by itself:

        losses, grads, method_state = mtljax.value_and_grad(losses_fn, method)(params, method_state, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        method_state = mtljax.observe(method, losses_fn(params, batch), method_state)

    Args:
        method: any method. One without `observe` learns nothing here.
        losses: at the new parameters, `[T]` in sorted order of names or a dict of scalars by task.
        state: what `mtljax.value_and_grad` returned, or any pytree that holds it: the state of an optax chain with
            `mtljax.carry` or `mtljax.as_optax`, a Flax `TrainState`.

    Returns:
        The state for the next step. Without `observe` it is the given one.

    Raises:
        ValueError: losses are not `[T]`; the state is of another method, or has received its losses already.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params: {k: jnp.sum((params.shared - params.tasks[k]) ** 2) for k in "ab"}
        >>> params = mtljax.Params(jnp.zeros(2), {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.0, 2.0])})
        >>> method = mtljax.methods.famo()
        >>> _, grads, state = mtljax.value_and_grad(losses_fn, method)(params, method.init(2))
        >>> params = params._replace(shared=params.shared - 0.1 * grads.shared)
        >>> state = mtljax.observe(method, losses_fn(params), state)
        >>> type(state).__name__
        'MethodState'
    """
    if method.observe is None:
        return state
    told = method.observe
    nodes = [node for node in jax.tree.leaves(state, is_leaf=_waits) if _waits(node)]
    if not nodes:
        raise ValueError(
            f"observe: state must be what value_and_grad or as_optax returned for {method.name} after a step, found a "
            f"{type(state).__name__} that waits for no losses"
        )
    vector = in_order(losses)
    if jnp.shape(vector) != nodes[0].weights.shape:
        raise ValueError(f"observe: losses must be of shape {nodes[0].weights.shape}, found shape {jnp.shape(vector)}")
    return jax.tree.map(lambda node: told(vector, MethodState(*node)) if _waits(node) else node, state, is_leaf=_waits)


def _waits(node: Any) -> bool:
    return isinstance(node, Unobserved)


def begun(where: str, method: Method, state: Any) -> MethodState:
    """A method's state at the start of a step made by hand, after checking that it does not wait for losses.

    Args:
        where: the public function asking, which opens the message.
        method: the method.
        state: its state, or a pytree that holds it: the state of an optax chain, a `TrainState`.

    Raises:
        ValueError: the state waits for losses; or there is more than one state.

    Example:
        >>> import mtljax
        >>> method = mtljax.methods.famo()
        >>> begun("value_and_grad", method, Unobserved(*method.init(2)))
        Traceback (most recent call last):
        ...
        ValueError: value_and_grad: state must be what mtljax.observe(method, losses, state) returned for the losses at
        the new parameters, since famo learns from them, found the state before that call
    """
    nodes = [node for node in jax.tree.leaves(state, is_leaf=_is_state) if _is_state(node)]
    if len(nodes) > 1:
        raise ValueError(f"{where}: state must hold the state of one method, {method.name}, found {len(nodes)} states")
    # A pytree without a method state raises later, where the state is read.
    state = nodes[0] if nodes else state
    if _waits(state):
        raise ValueError(
            f"{where}: state must be what mtljax.observe(method, losses, state) returned for the losses at the new "
            f"parameters, since {method.name} learns from them, found the state before that call"
        )
    return state


def replaced(holder: PyTree, new: PyTree) -> PyTree:
    """A pytree that holds a method's state with the new one in its place.

    Example:
        >>> import mtljax
        >>> state = mtljax.methods.equal().init(2)
        >>> replaced((1, {"here": state}), "new")
        (1, {'here': 'new'})
    """
    return jax.tree.map(lambda node: new if _is_state(node) else node, holder, is_leaf=_is_state)


def _is_state(node: Any) -> bool:
    return isinstance(node, MethodState | Unobserved)


def ended(method: Method, state: MethodState) -> MethodState | Unobserved:
    """A method's state after a step made by hand. With `observe`, the state waits for the losses after the step.

    Example:
        >>> import mtljax
        >>> type(ended(mtljax.methods.equal(), mtljax.methods.equal().init(2))).__name__
        'MethodState'
    """
    return state if method.observe is None else Unobserved(*state)

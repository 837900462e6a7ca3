"""Checks of the inputs of every method and wrapper, at trace time."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.banks import in_order
from mtljax.checks import check_count, check_flag, check_key, check_least_loss, expect
from mtljax.methods.common import check_active, check_evidence
from mtljax.types import Array, Batches, Key, Method, MethodState, PyTree, Unobserved


def checked(method: Method) -> Method:
    """The same method with checks of the arguments of `init`, `update` and `observe`; they cost nothing when jitted.

    Args:
        method: a method whose functions need not check evidence, state, `losses`, `active` and `key`.

    Example:
        >>> import mtljax
        >>> method = mtljax.methods.mgda()
        >>> method.update(jnp.eye(3), method.init(2))
        Traceback (most recent call last):
        ...
        ValueError: mgda: gramian must be of shape (2, 2), for the method was initialised for 2 tasks, found shape
        (3, 3)
    """
    name = method.name
    check_flag(name, "weigh_tasks", method.weigh_tasks)

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        # Every leaf gets a buffer of its own, because a buffer cannot be donated twice.
        return jax.tree.map(jnp.copy, method.init(check_count(name, "num_tasks", num_tasks), shared))

    @functools.lru_cache(maxsize=8)
    def expected(num_tasks: int, structure: Any, shapes: tuple[Any, ...]) -> Any:
        leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
        shared = jax.tree.unflatten(structure, leaves)
        return jax.eval_shape(lambda: method.init(num_tasks, shared)).inner

    def check_state(state: MethodState, shared: PyTree) -> int:
        if not isinstance(state, MethodState):
            raise TypeError(f"{name}: state must be a mtljax.MethodState, found a {type(state).__name__}")
        num_tasks = jnp.shape(state.weights)[0]
        leaves, structure = jax.tree.flatten(shared)
        wanted = expected(num_tasks, structure, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves))
        if _form(state.inner) != _form(wanted):
            raise ValueError(
                f"{name}: state must be what {name}'s init makes for {num_tasks} tasks, which holds {_words(wanted)}, "
                f"found that of another method or of other parameters, which holds {_words(state.inner)}"
            )
        return num_tasks

    def update(
        evidence: Any,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        key: Key | None = None,
        **extra: Any,
    ) -> tuple[Any, MethodState]:
        shared = None
        if method.reads == "batches":
            expect(isinstance(evidence, Batches), name, "evidence", "mtljax.Batches", evidence, TypeError)
            shared = evidence.params.shared
        elif method.reads == "task_grads":
            shared = evidence if method.pick is not None else _one_row(name, evidence, state)
        num_tasks = check_state(state, shared)
        check_active(name, active, num_tasks)
        if method.reads == "losses":
            check_evidence(name, "losses", evidence, (num_tasks,))
        if method.reads == "gramian":
            check_evidence(name, "gramian", evidence, (num_tasks, num_tasks))
        if losses is not None:
            check_evidence(name, "losses", losses, (num_tasks,))
        if method.least_loss is not None:
            known = evidence if method.reads == "losses" else losses
            if known is not None:
                check_least_loss(name, known, active, method.least_loss)
        if key is not None:
            check_key(name, "key", key)
        return method.update(evidence, state, losses=losses, active=active, key=key, **extra)

    def observe(losses_after: Array | Mapping[str, Array], state: MethodState | Unobserved) -> MethodState:
        assert method.observe is not None
        losses_after = in_order(losses_after)
        check_evidence(name, "losses_after", losses_after, jnp.shape(state.weights))
        return method.observe(losses_after, MethodState(*state))

    return method._replace(init=init, update=update, observe=None if method.observe is None else observe)


def _one_row(name: str, evidence: PyTree, state: MethodState) -> PyTree:
    """Shapes of one task's gradient, after checking that every leaf of the task gradients has a row for each task."""
    num_tasks = jnp.shape(state.weights)[0] if isinstance(state, MethodState) else 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(evidence)[0]:
        where = jax.tree_util.keystr(path)
        check_evidence(name, f"task gradients{where}", leaf, (num_tasks, *jnp.shape(leaf)[1:]))
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), evidence)


def _form(tree: PyTree) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [jnp.shape(leaf) for leaf in leaves]


def _words(inner: PyTree) -> str:
    if not jax.tree.leaves(inner):
        return "nothing"
    shapes = sorted({jnp.shape(leaf) for leaf in jax.tree.leaves(inner)})
    return f"a {type(inner).__name__} with leaves of shapes {', '.join(map(str, shapes[:4]))}"

"""Per_group: tasks reconciled separately in each group of shared parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.checks import check_method_of_evidence, expect
from mtljax.methods.apply import reconcile
from mtljax.methods.checked import checked
from mtljax.methods.common import initial_state, largest_bound, weights_of
from mtljax.methods.wrappers.common import refuse_pick
from mtljax.types import Array, Key, Method, MethodState, PyTree


def by_leaf(path: str) -> str:
    """Every leaf is a group of its own.

    Example:
        >>> by_leaf("encoder/dense_0/kernel")
        'encoder/dense_0/kernel'
    """
    return path


def by_layer(path: str) -> str:
    """The leaves of one parent are a group: a layer's kernel and bias.

    Example:
        >>> by_layer("encoder/dense_0/kernel")
        'encoder/dense_0'
    """
    return path.rpartition("/")[0]


def per_group(
    methods: Method | Mapping[str, Method], groups: Callable[[str], str] | PyTree, *, weigh_tasks: bool = False
) -> Method:
    """Reconcile tasks separately in each group of shared parameters, by one method for all groups or one per group.

    In each group, the method reads the group's columns of the Jacobian and decides their update. The whole update is
    not a combination `J^T w` with one w. A guarantee of the method, such as no conflict, holds within each group.

    Args:
        methods: a method for all groups, each with a state of its own; or a dict of methods by group name.
        groups: a function from a leaf's path, for example `"encoder/dense_0/kernel"`, to its group's name, such as
            `by_leaf`, `by_layer` or `lambda path: path.split("/")[0]`; or a pytree of names of the shared parameters'
            form.
        weigh_tasks: whether the gradients of heads, which belong to no group, are multiplied by the mean of the groups'
            weights; default False.

    Returns:
        `Method` that reads task gradients: T backward passes, and T rows stored, whatever its methods read.
        `state.weights` is the mean of the groups' weights, `state.residual` their largest residual, `state.inner` a
        dict of `MethodState` by group name.

    Raises:
        ValueError: a method reads one task's gradient per step; from `init`, `shared` is None, the names do not have
            the structure of `shared`, or the methods are not for the groups.

    References:
        Z. Wang, Y. Tsvetkov, O. Firat, Y. Cao (2021), "Gradient vaccine: investigating and improving multi-task
        optimization in massively multilingual models", ICLR, arXiv 2010.05874: layer-wise and leaf-wise groups.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> jacobian = {"a": jnp.array([[1.0, 0.0], [0.0, 1.0]]), "b": jnp.array([[2.0], [-1.0]])}
        >>> method = per_group({"a": mtljax.methods.equal(), "b": mtljax.methods.mgda()}, by_leaf)
        >>> update = mtljax.aggregate(method, jacobian, losses=jnp.ones(2))
        >>> print(update["a"], abs(update["b"]).round(4))
        [1. 1.] [0.]
    """
    if not isinstance(methods, Mapping):
        check_method_of_evidence("per_group", "methods", methods)
    if isinstance(groups, str):
        expect(False, "per_group", "groups", "a function of a path, or names like shared", groups, TypeError)
    table = None if isinstance(methods, Method) else dict(methods)
    chosen = [methods] if isinstance(methods, Method) else list(methods.values())
    if not chosen:
        raise ValueError("per_group: methods must hold one method per group, found none")
    for method in chosen:
        check_method_of_evidence("per_group", "methods", method)
        refuse_pick("per_group", method, "since groups might pick different tasks")

    bounds = [method.least_loss for method in chosen if method.least_loss is not None]

    def members(tree: PyTree) -> dict[str, list[int]]:
        """Positions of leaves by group, groups in sorted order."""
        paths, structure = jax.tree_util.tree_flatten_with_path(tree)
        if callable(groups):
            names = [groups(jax.tree_util.keystr(path, simple=True, separator="/")) for path, _ in paths]
        else:
            names, given = jax.tree.flatten(groups)
            if given != structure:
                raise ValueError(f"per_group: groups must have the parameters' structure {structure}, found {given}")
        found: dict[str, list[int]] = {}
        for position, name in enumerate(names):
            expect(isinstance(name, str), "per_group", "groups", "a string for each leaf", name, TypeError)
            found.setdefault(str(name), []).append(position)
        if table is not None and set(found) != set(table):
            raise ValueError(f"per_group: methods must be for the groups {sorted(found)}, found {sorted(table)}")
        return dict(sorted(found.items()))

    def method_of(name: str) -> Method:
        return chosen[0] if table is None else table[name]

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        if shared is None:
            raise ValueError("per_group: shared must be the shared parameters or their shapes, found None")
        leaves = jax.tree.leaves(shared)
        own = {
            name: method_of(name).init(num_tasks, [leaves[position] for position in positions])
            for name, positions in members(shared).items()
        }
        return initial_state(num_tasks, own)

    def update(
        evidence: PyTree, state: MethodState, *, active: Array | None = None, key: Key | None = None, **rest: Any
    ) -> tuple[PyTree, MethodState]:
        leaves, structure = jax.tree.flatten(evidence)
        out: list[Any] = list(leaves)
        own: dict[str, MethodState] = {}
        for index, (name, positions) in enumerate(members(evidence).items()):
            columns = [leaves[position] for position in positions]
            drawn = None if key is None else jax.random.fold_in(key, index)
            part, own[name], _ = reconcile(
                method_of(name), state.inner[name], columns, active=active, key=drawn, **rest
            )
            for position, leaf in zip(positions, part, strict=True):
                out[position] = leaf
        if own:
            weights = jnp.mean(jnp.stack([each.weights for each in own.values()]), axis=0)
            residual = jnp.max(jnp.stack([each.residual for each in own.values()]))
        else:
            weights, residual = weights_of(state.weights, active), state.residual
        return jax.tree.unflatten(structure, out), MethodState(weights, residual, own)

    def observe(losses_after: Array, state: MethodState) -> MethodState:
        own = dict(state.inner)
        for name, each in own.items():
            watch = method_of(name).observe
            own[name] = each if watch is None else watch(losses_after, each)
        return state._replace(inner=own)

    return checked(
        Method(
            reads="task_grads",
            init=init,
            update=update,
            observe=observe if any(method.observe is not None for method in chosen) else None,
            weigh_tasks=weigh_tasks,
            least_loss=largest_bound(*bounds) if bounds else None,
            name=f"per_group({', '.join(dict.fromkeys(method.name for method in chosen))})",
        )
    )

"""Low-rank differences: each task runs the trunk with the shared weights plus a low-rank matrix of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import check_callable, check_count, check_flag, check_number
from mtljax.sharing.frames.bank import Bank, Keyed, heads_of, run_entries, start_entries
from mtljax.sharing.frames.inputs import input_of
from mtljax.sharing.frames.model import checked_model
from mtljax.sharing.frames.network import Network, check_network, key_for, selected
from mtljax.types import Array, Key, Model, Params, PyTree


def low_rank(
    trunk: Network,
    heads: Mapping[str, Network | Bank],
    rank: int,
    *,
    alpha: Array | float | None = None,
    select: Callable[[str, Any], bool] | None = None,
    frozen: bool = False,
) -> Model:
    r"""One shared trunk; each task adds a product of two thin matrices to the selected weights of the trunk.

        outputs_k = head_k(trunk(inputs; W_k)),   W_k = W + alpha / rank A_k B_k,   A_k [in, rank], B_k [rank, out]

    The last axis of W is `out`, and all axes before it together are `in`. So a convolution's kernel
    `[height, width, C_in, C_out]` gets `A_k [height, width, C_in, rank]` and `B_k [rank, C_out]`. `A_k` starts from a
    normal distribution of variance `1 / in`, and `B_k` from zeros. So with the same key the model starts exactly as
    `hard(trunk, heads)`, dropout included. `Params.shared` are the trunk's parameters. `Params.tasks[k]` is
    `{"low_rank": {path: {"a": A_k, "b": B_k}}, "head": ...}`, where `path` is the path of the leaf as
    `jax.tree_util.keystr` writes it.

    The product is added to the weights before the trunk runs, so the trunk may be any network. This costs
    `O(in rank out)` per leaf and task, independent of the batch size. The sum is formed in float32 at least and rounded
    to the leaf's dtype, so in bfloat16 a difference below about 1/256 of a weight is lost.

    The trunk runs once per requested task, and no features are common to all tasks. Each task has its own batch
    statistics of the trunk: the state is `{"tasks": {k: {"trunk": ..., "head": ...}}}`. Dropout drops the same units of
    the trunk for all tasks.

    Args:
        trunk: network from inputs `[B, ...]` to features, any pytree.
        heads: network from those features to outputs, by task name; a `Bank` stands for many tasks of one form, each
            with differences of its own.
        rank: of each difference, positive.
        alpha: scale of the differences; None (default) for `rank`, so that the factor is 1.
        select: `select(path, leaf) -> bool`, whether a leaf of the trunk's parameters gets a difference; `path` as
            above, `leaf` an array or its shape and dtype. None (default) for floating leaves of exactly two axes. To
            include convolutions: `lambda path, leaf: leaf.ndim in (2, 4)`.
        frozen: whether gradients stop at the trunk's parameters, so that a compiled step computes none for leaves
            without a difference. The gradient of `Params.shared` is then zero; exclude it from the optimiser's weight
            decay too. Batch statistics still change in training. Default False.

    Returns:
        `Model`; `encode`, `decode` and `penalty` are None. `A_k` and `B_k` have the leaf's dtype at `init`.

    Raises:
        ValueError: from `init`, `select` chooses no leaf, or a leaf with fewer than two axes; from `apply`, the trunk
            lacks a leaf that has a difference.

    References:
        Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang and Chen, "LoRA: Low-Rank Adaptation of Large Language Models", ICLR
        2022, which writes it for column vectors as `W + alpha / rank B A`.
        Agiza, Neseem and Reda, "MTLoRA: A Low-Rank Adaptation Approach for Efficient Multi-Task Learning", CVPR 2024,
        for one difference per task. Departures: the paper also has a task-agnostic difference; here that is the trunk
        itself, if it is not frozen.

    Example:
        >>> def dense(size):
        ...     def init(key, x):
        ...         return {"w": jax.random.normal(key, (x.shape[-1], size))}, ()
        ...     return Network(init, lambda p, state, x, *, key=None, train=False: (x @ p["w"], state))
        >>> model = low_rank(dense(8), {"depth": dense(1), "label": dense(10)}, 2)
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> jax.tree.map(jnp.shape, params.tasks["depth"]["low_rank"])
        {"['w']": {'a': (3, 2), 'b': (2, 8)}}
    """
    names, networks, banks = heads_of("low_rank", heads)
    check_network("low_rank", "trunk", trunk)
    check_count("low_rank", "rank", rank)
    if alpha is not None:
        check_number("low_rank", "alpha", alpha, above=0)
    if select is not None:
        check_callable("low_rank", "select", select)
    check_flag("low_rank", "frozen", frozen)
    factor = 1.0 if alpha is None else alpha / rank
    select = _two_axes if select is None else select

    def init(key: Key, inputs: PyTree) -> tuple[Params, PyTree]:
        x = input_of(inputs, names[0])
        shared, trunk_state = trunk.init(key_for(key, "trunk"), x)
        features, _ = trunk.apply(shared, trunk_state, x)
        chosen = _chosen(select, shared)

        def start(name: str, keyed: Keyed, features: PyTree) -> tuple[PyTree, PyTree]:
            own = {path: _thin(keyed("task", f"/low_rank/{path}"), leaf, rank) for path, leaf in chosen}
            head, head_state = networks[name].init(keyed("task"), features)
            # Copies, because a step that donates its state must not get one buffer twice.
            return {"low_rank": own, "head": head}, {"trunk": jax.tree.map(jnp.copy, trunk_state), "head": head_state}

        tasks, states = start_entries(start, key, names, banks, features)
        return Params(shared=shared, tasks=tasks), {"tasks": states}

    def apply(
        params: Params,
        state: PyTree,
        inputs: PyTree,
        *,
        tasks: Sequence[str] | None = None,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, Any], PyTree]:
        shared = lax.stop_gradient(params.shared) if frozen else params.shared

        def one(name: str, own: PyTree, before: PyTree, keyed: Keyed, read: PyTree) -> tuple[Any, PyTree]:
            weights, x = _changed(read[0], own["low_rank"], factor), read[1]
            features, trunk_state = trunk.apply(weights, before["trunk"], x, key=key_for(key, "trunk"), train=train)
            outputs, head_state = networks[name].apply(
                own["head"], before["head"], features, key=keyed("task"), train=train
            )
            return outputs, {"trunk": trunk_state, "head": head_state}

        def read(name: str) -> PyTree:
            return (shared, input_of(inputs, name))

        outputs, states = run_entries(one, selected(names, tasks), params.tasks, state["tasks"], key, banks, read)
        return outputs, {"tasks": states}

    return checked_model(names, init, apply, banks=banks)


def _two_axes(path: str, leaf: Any) -> bool:
    return len(leaf.shape) == 2 and jnp.issubdtype(leaf.dtype, jnp.floating)


def _chosen(select: Callable[[str, Any], bool], shared: PyTree) -> list[tuple[str, Any]]:
    """Path and leaf of each of the trunk's parameters that gets a difference."""
    leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(shared)[0]]
    chosen = [(path, leaf) for path, leaf in leaves if select(path, leaf)]
    if not chosen:
        found = {path: tuple(leaf.shape) for path, leaf in leaves}
        raise ValueError(f"low_rank: select must choose at least one of the trunk's parameters {found}, found none")
    for path, leaf in chosen:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"low_rank: leaf {path} must be of a floating-point type, found {leaf.dtype.name}")
        if len(leaf.shape) < 2:
            raise ValueError(f"low_rank: leaf {path} must have at least two axes, found shape {tuple(leaf.shape)}")
    return chosen


def _thin(key: Key, leaf: Any, rank: int) -> dict[str, Array]:
    *merged, out = leaf.shape
    a = jax.random.normal(key, (*merged, rank), leaf.dtype) / max(1, math.prod(merged)) ** 0.5
    return {"a": a, "b": jnp.zeros((rank, out), leaf.dtype)}


def _changed(shared: PyTree, own: Mapping[str, Mapping[str, Array]], factor: Array | float) -> PyTree:
    """The trunk's parameters with one task's differences added."""
    known = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(shared)[0]]
    for path in own:
        if path not in known:
            raise ValueError(f"low_rank: differences must be for leaves of the trunk {known}, found {path}")

    def leaf(path: Any, w: Any) -> Any:
        thin = own.get(jax.tree_util.keystr(path))
        if thin is None:
            return w
        wide = trees.accumulator(w.dtype)
        a, b = thin["a"].astype(wide), thin["b"].astype(wide)
        # A keeps its axes: merging those before the last would gather a sharded kernel.
        product = lax.dot_general(a, b, (((a.ndim - 1,), (0,)), ((), ())), precision=lax.Precision.HIGHEST)
        return (w.astype(wide) + factor * product).astype(w.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shared)

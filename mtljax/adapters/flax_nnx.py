"""Flax NNX modules as networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from mtljax.adapters.train_flags import flag_values, train_flags
from mtljax.checks import check_callable, expect
from mtljax.sharing.frames.network import Network, key_for
from mtljax.types import Key, PyTree


def from_nnx(
    make_module: Callable[[nnx.Rngs], nnx.Module],
    *,
    call_kwargs: Callable[[bool], dict[str, Any]] | None = None,
) -> Network:
    """An NNX module as a `Network`: a trunk or a head for `mtljax.sharing`.

    The parameters are the module's `nnx.Param` and the state its other variables (batch statistics), each a nested
    dict of plain arrays by attribute name; nothing mutable enters or leaves. Random streams are no state: each starts
    anew from `key` and its own place in the module, so the same key gives the same dropout mask, and two dropout
    layers draw apart. Every `apply` builds the module afresh inside the trace that calls it (variables that live
    outside would raise `TraceContextError`), sets it by `module.train()` or `module.eval()`, and calls it with one
    argument, the inputs, and with those of the keyword arguments `train`, `training`, `is_training`,
    `deterministic` and `use_running_average` that its `__call__` names. The state moves in training only. Values
    that are sown are dropped.

    In a trunk that tasks share, one running average of batch statistics serves all of them. If the tasks' inputs
    differ, that average fits none: see `mtljax.sharing.statistics_by_task`.

    Args:
        make_module: `make_module(rngs) -> module`, pure: it is called once on shapes here and once in every `init`.
        call_kwargs: `call_kwargs(train) -> dict` of keyword arguments of the call, where the names above do not fit.

    Returns:
        `Network` that works under `jit`, `grad` and `vmap`.

    Raises:
        TypeError: `make_module` is a module itself, or does not return one.
        ValueError: (by `apply`) the module draws random numbers in training and `key` is None. In evaluation the
            streams then start from key 0.

    Example:
        >>> class Trunk(nnx.Module):
        ...     def __init__(self, rngs):
        ...         self.linear = nnx.Linear(3, 4, rngs=rngs)
        ...         self.norm = nnx.BatchNorm(4, rngs=rngs)
        ...         self.dropout = nnx.Dropout(0.5, rngs=rngs)
        ...
        ...     def __call__(self, x):
        ...         return self.dropout(self.norm(self.linear(x)))
        >>> network = from_nnx(Trunk)
        >>> params, state = network.init(jax.random.key(0), jnp.ones((8, 3)))
        >>> sorted(params), sorted(state["norm"])
        (['linear', 'norm'], ['mean', 'var'])
        >>> outputs, state = network.apply(params, state, jnp.ones((8, 3)), key=jax.random.key(1), train=True)
        >>> outputs.shape
        (8, 4)
    """
    expected = "a function of nnx.Rngs that returns an nnx.Module"
    check_callable("from_nnx", "make_module", make_module, expected=expected)
    expect(
        not isinstance(make_module, nnx.Module | linen.Module),
        "from_nnx",
        "make_module",
        expected,
        make_module,
        TypeError,
    )
    if call_kwargs is not None:
        check_callable("from_nnx", "call_kwargs", call_kwargs)

    def made() -> nnx.Module:
        module = make_module(nnx.Rngs(0))
        expect(
            isinstance(module, nnx.Module), "from_nnx", "what make_module returns", "an nnx.Module", module, TypeError
        )
        return module

    abstract = nnx.eval_shape(made)
    graph, _, streams, _ = _split(abstract)
    name = type(abstract).__name__
    flags = train_flags(type(abstract).__call__)

    def kwargs(train: bool) -> dict[str, Any]:
        return flag_values(flags, train) if call_kwargs is None else call_kwargs(train)

    def init(key: Key, inputs: PyTree) -> tuple[PyTree, PyTree]:
        del inputs  # an NNX module knows its sizes
        _, params, _, state = _split(make_module(nnx.Rngs(key)))
        return params, state

    def apply(
        params: PyTree, state: PyTree, inputs: PyTree, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, PyTree]:
        fresh = _seeded(streams, jax.random.key(0) if key is None else key)
        module = nnx.merge(graph, params, fresh, state)
        module.train() if train else module.eval()
        outputs = module(inputs, **kwargs(train))
        nnx.pop(module, nnx.Intermediate)
        _, _, drawn, after = _split(module)
        if train and key is None and _counts(drawn) != _counts(fresh):
            raise ValueError(f"from_nnx: {name} draws random numbers, but key is None")
        return outputs, after if train else state

    return Network(init=init, apply=apply)


def _split(module: nnx.Module) -> tuple[nnx.GraphDef, PyTree, PyTree, PyTree]:
    """Graph, parameters, random streams and other variables; all but the graph as nested dicts of arrays."""
    graph, params, streams, state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(streams), nnx.to_pure_dict(state)


def _seeded(streams: PyTree, key: Key) -> PyTree:
    """The streams with a key each, from `key` and their path, and their counters at 0."""

    def seed(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)
        own = key_for(key, jax.tree_util.keystr(path))
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    return jax.tree_util.tree_map_with_path(seed, streams)


def _counts(streams: PyTree) -> list[int]:
    """Identities of the streams' arrays: a draw puts a new counter in the old one's place."""
    return [id(leaf) for leaf in jax.tree.leaves(streams)]

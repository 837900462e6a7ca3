"""Flax NNX modules as networks, and methods in loops with an `nnx.Optimizer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from mtljax import gradients
from mtljax.adapters.train_flags import flag_values, train_flags
from mtljax.checks import check_callable, check_method, expect
from mtljax.engines.checks import split_aux, with_aux
from mtljax.engines.types import Engine
from mtljax.methods import observing
from mtljax.partition import Own
from mtljax.sharing.frames.network import Network, key_for
from mtljax.types import Array, Key, Method, PyTree


def from_nnx(
    make_module: Callable[[nnx.Rngs], nnx.Module],
    *,
    call_kwargs: Callable[[bool], dict[str, Any]] | None = None,
) -> Network:
    """An NNX module as a `Network`: a trunk or a head for `mtljax.sharing`.

    The parameters are the module's `nnx.Param`. The state holds its other variables (batch statistics). Both are nested
    dicts of plain arrays by attribute name; nothing mutable enters or leaves. Random streams do not belong to the
    state: each `apply` seeds each stream from `key` and from the stream's place in the module. So the same key gives
    the same dropout mask, and two dropout layers draw different masks. Each `apply` builds the module inside the trace
    that calls it, because variables from outside raise `TraceContextError`. It calls `module.train()` or
    `module.eval()`, then the module with one argument, the inputs, and with those keyword arguments of `train`,
    `training`, `is_training`, `deterministic` and `use_running_average` that its `__call__` names. Training changes the
    state; evaluation does not. Sown values are dropped.

    In a trunk that tasks share, one running average of batch statistics serves all of them. If the tasks' inputs
    differ, that average fits none: see `mtljax.sharing.statistics_by_task`.

    Args:
        make_module: `make_module(rngs) -> module`, pure: it is called once on shapes here and once in every `init`.
        call_kwargs: `call_kwargs(train) -> dict` of keyword arguments of the call, where the names above do not fit.

    Returns:
        `Network` that works under `jit`, `grad` and `vmap`.

    Raises:
        TypeError: `make_module` is a module, or does not return a module.
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
            raise ValueError(f"from_nnx: key must be a random key, since {name} draws in training, found None")
        return outputs, after if train else state

    return Network(init=init, apply=apply)


def _split(module: nnx.Module) -> tuple[nnx.GraphDef, PyTree, PyTree, PyTree]:
    """The graph, and the parameters, random streams and other variables as nested dicts of arrays."""
    graph, params, streams, state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(streams), nnx.to_pure_dict(state)


def _seeded(streams: PyTree, key: Key) -> PyTree:
    """The streams with new keys and counters at 0. Each key is made from `key` and the stream's path."""

    def seed(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)
        own = key_for(key, jax.tree_util.keystr(path))
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    return jax.tree_util.tree_map_with_path(seed, streams)


def _counts(streams: PyTree) -> list[int]:
    """Identities of the streams' arrays. A draw replaces a counter by a new array."""
    return [id(leaf) for leaf in jax.tree.leaves(streams)]


def value_and_grad(
    losses_fn: Callable[..., Any],
    method: Method,
    *,
    has_aux: bool = False,
    engine: Engine | None = None,
    wrt: Any = nnx.Param,
    names: Sequence[str] | None = None,
    own: Own | None = None,
) -> Callable[..., Any]:
    """`mtljax.value_and_grad` for an NNX module, with the interface of `nnx.value_and_grad`.

        optimizer = nnx.Optimizer(module, optax.chain(mtljax.carry(method, 2), optax.adam(1e-3)), wrt=nnx.Param)
        losses, grads, _ = value_and_grad(losses_fn, method)(module, optimizer, batch)
        optimizer.update(module, grads)

    The module's variables other than parameters (batch statistics, counters of random streams) change in place. So does
    the method's state in an `nnx.Optimizer`.

    Args:
        losses_fn: `losses_fn(module, *args)` returning losses (dict of scalars by task, or array `[T]`), or
            `(losses, aux)` with `has_aux`.
        method: how tasks are reconciled.
        has_aux: see `losses_fn`.
        engine: as in `mtljax.value_and_grad`.
        wrt: filter of the variables that are parameters; the same as the optimizer's `wrt`.
        names: as in `mtljax.value_and_grad`.
        own: as in `mtljax.value_and_grad`; a path begins with the module's attribute, such as "depth/kernel".

    Returns:
        `f(module, method_state, *args, key=None, active=None, **extra) -> (losses, grads, method_state)`, or
        `((losses, aux), grads, method_state)` with `has_aux`. `method_state` is as in `mtljax.value_and_grad`, or an
        `nnx.Optimizer` whose chain holds it; f then returns that optimizer. For a method with `observe` (`famo`), call
        `observe` of this module after the update.

    Raises:
        TypeError: from f, `module` is not an `nnx.Module`.
        ValueError: from f, as `mtljax.value_and_grad`.

    Example:
        >>> import optax
        >>> import mtljax
        >>> class Net(nnx.Module):
        ...     def __init__(self, rngs):
        ...         self.trunk, self.a, self.b = (nnx.Linear(2, 2, rngs=rngs) for _ in "tab")
        >>> losses_fn = lambda net, x: {k: jnp.mean(getattr(net, k)(net.trunk(x)) ** 2) for k in "ab"}
        >>> method, net = mtljax.methods.mgda(), Net(nnx.Rngs(0))
        >>> optimizer = nnx.Optimizer(net, optax.chain(mtljax.carry(method, 2), optax.sgd(0.1)), wrt=nnx.Param)
        >>> losses, grads, _ = value_and_grad(losses_fn, method)(net, optimizer, jnp.ones((1, 2)))
        >>> _ = optimizer.update(net, grads)
        >>> sorted(losses), sorted(grads)
        (['a', 'b'], ['a', 'b', 'trunk'])
    """
    check_callable("value_and_grad", "losses_fn", losses_fn)
    check_method("value_and_grad", "method", method)

    def f(
        module: nnx.Module,
        method_state: Any,
        *args: Any,
        key: Key | None = None,
        active: Array | None = None,
        **extra: Array,
    ) -> tuple[Any, PyTree, Any]:
        expect(isinstance(module, nnx.Module), "value_and_grad", "module", "an nnx.Module", module, TypeError)
        graph, params, rest = nnx.split(module, wrt, ...)

        def of_params(params: PyTree, *args: Any) -> tuple[Any, Any]:
            fresh = nnx.merge(graph, params, rest, copy=True)
            losses, aux = split_aux(losses_fn(fresh, *args), has_aux)
            return losses, (aux, nnx.split(fresh, wrt, ...)[2])

        optimizer = method_state if isinstance(method_state, nnx.Optimizer) else None
        holder = method_state if optimizer is None else nnx.as_pure(optimizer.opt_state)
        differentiated = gradients.value_and_grad(of_params, method, has_aux=True, engine=engine, names=names, own=own)
        (losses, (aux, after)), grads, state = differentiated(params, holder, *args, key=key, active=active, **extra)
        nnx.update(module, after)
        if optimizer is not None:
            _put(optimizer, state)
            state = optimizer
        return with_aux(losses, aux, has_aux), grads, state

    return f


def observe(method: Method, losses: Array | Mapping[str, Array], optimizer: nnx.Optimizer) -> None:
    """`mtljax.observe` for a method whose state is in an `nnx.Optimizer`. The state changes in place.

    Args:
        method: any method. For a method without `observe` nothing changes.
        losses: the losses at the new parameters, `[T]` in task order or a dict of scalars by task.
        optimizer: the optimizer after its update.

    Raises:
        TypeError: `optimizer` is not an `nnx.Optimizer`.
        ValueError: as `mtljax.observe`.
    """
    expect(isinstance(optimizer, nnx.Optimizer), "observe", "optimizer", "an nnx.Optimizer", optimizer, TypeError)
    _put(optimizer, observing.observe(method, losses, nnx.as_pure(optimizer.opt_state)))


def _put(optimizer: nnx.Optimizer, state: PyTree) -> None:
    """Writes an optax state into the optimizer's variables, which may stand in a tree with other kinds of nodes."""
    values, structure = jax.tree.flatten(state)
    variables = jax.tree.leaves(optimizer.opt_state, is_leaf=lambda node: isinstance(node, nnx.Variable))
    for variable, value in zip(variables, values, strict=True):
        variable.set_value(value)
    optimizer.opt_state = nnx.data(jax.tree.unflatten(structure, variables))

"""Sluice networks: columns mixed by subspaces, and heads that read a mixture of layers."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import check_callable, check_count, check_nonnegative, check_number, expect
from mtljax.sharing.frames.columns import Unit, check_alike, column_model
from mtljax.sharing.frames.mixing import mix, near_identity, wide_dtype
from mtljax.sharing.frames.network import Network, check_heads, check_network, check_networks, is_sequence, key_for
from mtljax.types import Array, Key, Model, Params, PyTree


def _kernels(params: PyTree) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(params) if jnp.ndim(leaf) >= 2]


def sluice(
    stages: Sequence[Network],
    heads: Mapping[str, Network],
    *,
    subspaces: int = 2,
    after: Sequence[int] | None = None,
    same: Array | float = 0.9,
    last: Array | float = 0.9,
    projections: Sequence[Network | None] | None = None,
    orthogonality: Array | float | None = None,
    kernels: Callable[[PyTree], Sequence[Array]] = _kernels,
) -> Model:
    r"""A column of stages for each task; parts of layers are mixed between columns, and layers within a column.

        h_i^l = stage_l(x_i^(l-1); w_i^l) = [h_i1^l, ..., h_iS^l]     S equal slices of the channels, the last axis
        x_is^l = sum_{j,u} alpha^l_isju h_ju^l                        over all tasks j and subspaces u
        outputs_i = head_i(sum_l beta_i[l] P_l(x_i^l))
        penalty = orthogonality * sum_i sum_l sum_{s<u} |G_is^l^T G_iu^l|_F^2

    `G_is^l` `[..., C/S]` are the columns of layer l's kernels that produce subspace s, their leading axes taken as one.

    **Parameters.** `Params.shared` is `{"columns": {k: (w_k^1, ..., w_k^L)}, "units": (alpha^1, ..., alpha^L)}`, with
    `alpha^l` of shape `[T, S, T, S]` in sorted order of names, `()` after a stage without a unit. `Params.tasks[k]` is
    `{"layers": beta_k [L], "projections": one entry a stage, "head": ...}`: no other task's loss reaches them. All
    weights are free: nothing keeps them convex while they train. The state is
    `{"columns": ..., "units": ..., "tasks": {k: {"projections": ..., "head": ...}}}`.

    **Shapes.** Features (an array or any pytree of floating arrays) must agree in shape and dtype between the columns
    where a unit stands, with a last axis that S divides; and, once projected, between the stages of one column, since
    a head reads their sum.

    **Start.** A subspace starts from `same` of itself and the rest shared evenly among all others, a head from `last`
    of the last layer. The paper too biases alpha to one source and beta to the last layer. Its code
    (sebastianruder/sluice-networks) has these numbers for beta and, with one subspace, for alpha; with two it takes
    0.95 of one subspace of every task and 0.05 of the other, so that rows sum to T. Columns that read the same inputs
    start equal and drop the same units (see `cross_stitch`); the paper's start at random. With `same=1.0, last=1.0` the
    columns start as T single-task networks.

    **What runs.** All columns up to the last unit, whichever tasks are asked for; beyond it, and everywhere with
    `after=()`, the columns, projections and heads of the tasks asked for alone. With `TaskInputs` column k reads its
    own inputs; other inputs are read by all columns.

    Ruder, Bingel, Augenstein and Søgaard, "Latent Multi-task Architecture Learning", AAAI 2019 (arXiv 1705.08142). The
    paper has two subspaces and recurrent layers of one shape, so that it needs no projections; beta mixes what the
    units return, not what enters them. The authors' penalty reads two matrices of each LSTM, those from hidden and
    cell state to the input gate, and multiplies along their outputs; here products run along the inputs, so that units
    of different subspaces come to read orthogonal directions.

    Args:
        stages: networks, each reading what the one before returns; the first reads the inputs `[B, ...]`.
        heads: by task name, network from the mixed layers to the task's outputs.
        subspaces: S, at least 1; 1 mixes whole layers.
        after: positions (0 is the first) of the stages that a unit follows; None (default) for all.
        same: what `alpha_isis` starts from, in [0, 1]; a single task's single subspace starts from 1.
        last: what `beta_i[L]` starts from, in [0, 1], the rest shared evenly; a single stage starts from 1.
        projections: `P_l`, a `Network` for each stage, or None for a stage whose features stay as they are; each task
            has parameters of its own. None (default) for no projections at all.
        orthogonality: non-negative strength of the penalty, may be traced; None (default) for no penalty.
        kernels: function of one stage's parameters, to the kernels `[..., C]` of its layers that produce the stage's
            channels, which the penalty splits. By default every leaf with two or more axes: right where a stage is one
            dense, convolutional or recurrent layer with output channels last, as in Flax. A stage of several layers
            wants a function that returns the last one's.

    Returns:
        `Model` with `encode` and `decode` None; `penalty(params)` is a scalar, float32 at least, or None without
        `orthogonality`.

    Raises:
        TypeError: a stage that is not a `Network`; `heads` that are not a dict, or names that are not strings; `after`
            that is not a sequence of integers; (by `init` and `apply`) features that are not floating.
        ValueError: no stages, no heads; an argument out of range; `orthogonality` with one subspace; not one projection
            a stage; (by `init` and `apply`) columns, or layers, that differ in shape or dtype, or channels that S does
            not divide; (by `apply`) an unknown task; (by `penalty`) a kernel whose last axis S does not divide.

    Example:
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = sluice([dense(4), dense(4)], {"depth": dense(1), "label": dense(10)}, orthogonality=0.1)
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> [unit.shape for unit in params.shared["units"]], params.tasks["depth"]["layers"]
        ([(2, 2, 2, 2), (2, 2, 2, 2)], Array([0.1, 0.9], dtype=float32))
        >>> bool(model.penalty(params) > 0)
        True
    """
    names, stages = check_heads("sluice", heads), check_networks("sluice", "stages", stages)
    check_count("sluice", "subspaces", subspaces)
    check_callable("sluice", "kernels", kernels)
    for argument, number in (("same", same), ("last", last)):
        check_number("sluice", argument, number, least=0, most=1)
    if orthogonality is not None:
        check_nonnegative("sluice", "orthogonality", orthogonality)
        if subspaces == 1:
            raise ValueError("sluice: orthogonality must be None where subspaces is 1, since it is between subspaces")

    def split(features: PyTree) -> list[PyTree]:
        return [
            jax.tree.map(lambda x, which=which: jnp.split(x, subspaces, axis=-1)[which], features)
            for which in range(subspaces)
        ]

    def check(x: Array) -> None:
        if jnp.ndim(x) < 2 or x.shape[-1] % subspaces:
            raise ValueError(
                f"sluice: expected features [B, ..., C] whose channels {subspaces} subspaces divide, found an array of "
                f"shape {jnp.shape(x)}"
            )

    def init(key: Key, columns: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
        features = columns[names[0]]
        for leaf in jax.tree.leaves(features):
            check(leaf)
        start = near_identity(len(names) * subspaces, same).astype(wide_dtype(features))
        return start.reshape(len(names), subspaces, len(names), subspaces), ()

    def apply(
        alpha: Array,
        state: PyTree,
        columns: dict[str, PyTree],
        wanted: Sequence[str],
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, PyTree], PyTree]:
        parts = [part for name in names for part in split(columns[name])]
        square = alpha.reshape(len(parts), len(parts))
        weights = jax.tree.map(lambda _: square, parts[0])
        rows = [names.index(name) * subspaces + which for name in wanted for which in range(subspaces)]
        mixed = mix(weights, parts, rows)
        fused = {}
        for position, name in enumerate(wanted):
            own = mixed[position * subspaces : (position + 1) * subspaces]
            fused[name] = jax.tree.map(lambda *xs: jnp.concatenate(xs, axis=-1), *own)
        return fused, state

    def penalty(params: Params) -> Array:
        assert orthogonality is not None
        found = [
            kernel for column in params.shared["columns"].values() for stage in column for kernel in kernels(stage)
        ]
        if not found:
            raise ValueError("sluice: orthogonality is between kernels, but kernels(...) finds none in any stage")
        return orthogonality * functools.reduce(operator.add, (_overlap(kernel, subspaces) for kernel in found))

    reading = layer_heads(
        "sluice",
        heads,
        len(stages),
        projections,
        start=lambda: near_identity(len(stages), last)[-1],
        weigh=lambda beta: beta,
    )
    return column_model(
        "sluice",
        stages,
        reading,
        Unit(init, apply),
        after=after,
        penalty=None if orthogonality is None else penalty,
    )


def _overlap(kernel: Array, subspaces: int) -> Array:
    """`sum_{s<u} |G_s^T G_u|_F^2` of the slices of a kernel's last axis."""
    if kernel.shape[-1] % subspaces:
        raise ValueError(
            f"sluice: expected kernels whose last axis {subspaces} subspaces divide, found shape {kernel.shape}; give "
            "kernels=..., a function that picks those which produce a stage's channels"
        )
    parts = jnp.split(kernel.astype(trees.accumulator(kernel.dtype)), subspaces, axis=-1)
    axes = tuple(range(kernel.ndim - 1))
    total = jnp.zeros((), parts[0].dtype)
    for part, other in itertools.combinations(parts, 2):
        gram = lax.dot_general(part, other, ((axes, axes), ((), ())), precision=lax.Precision.HIGHEST)
        total = total + jnp.sum(jnp.square(gram))
    return total


def layer_heads(
    where: str,
    heads: Mapping[str, Network],
    count: int,
    projections: Sequence[Network | None] | None,
    *,
    start: Callable[[], Array],
    weigh: Callable[[Array], Array],
) -> dict[str, Network]:
    """Heads of `column_model` that read a mixture of their column's layers, `head_k(sum_l w_kl P_l(x_k^l; v_kl))`.

    Their parameters are `{"layers": [L], "projections": one entry a stage, "head": ...}`, their state has the last two.
    A head's key is the one it gets where it reads one layer alone.

    Args:
        where: the public function asking, which opens the messages.
        heads: by task name, network from the mixture to the task's outputs.
        count: L, the number of stages.
        projections: `P_l` for each stage; None leaves that stage's, or all, features as they are.
        start: makes what `"layers"` starts from, `[L]`.
        weigh: from `"layers"`, in float32 at least, to the weights `w_k`, `[L]`.

    Raises:
        TypeError: a projection that is neither a `Network` nor None.
        ValueError: not one projection a stage.
    """
    if projections is None:
        projections = [None] * count
    expected = f"a sequence of Network or None, one for each of the {count} stages"
    expect(is_sequence(projections), where, "projections", expected, projections, TypeError)
    if len(projections) != count:
        raise ValueError(f"{where}: projections must be {expected}, found {len(projections)}")
    for position, projection in enumerate(projections):
        if projection is not None:
            check_network(where, f"projections[{position}]", projection)
    return {name: _layer_head(where, name, head, projections, start, weigh) for name, head in heads.items()}


def _layer_head(
    where: str,
    name: str,
    head: Network,
    projections: Sequence[Network | None],
    start: Callable[[], Array],
    weigh: Callable[[Array], Array],
) -> Network:
    def check(mixed: Sequence[PyTree]) -> None:
        check_alike(
            f"{where}: task {name!r} mixes layers that differ (projections bring them to one shape)",
            {f"after stage {position}": features for position, features in enumerate(mixed)},
        )

    def init(key: Key, layers: tuple[PyTree, ...]) -> tuple[PyTree, PyTree]:
        params, states, mixed = [], [], []
        for position, (projection, features) in enumerate(zip(projections, layers, strict=True)):
            own, state = (), ()
            if projection is not None:
                own, state = projection.init(key_for(key, f"projection/{position}"), features)
                features, _ = projection.apply(own, state, features)
            params.append(own)
            states.append(state)
            mixed.append(features)
        check(mixed)
        own, state = head.init(key, mixed[-1])
        weights = start().astype(wide_dtype(mixed[-1]))
        return (
            {"layers": weights, "projections": tuple(params), "head": own},
            {"projections": tuple(states), "head": state},
        )

    def apply(
        params: PyTree, state: PyTree, layers: tuple[PyTree, ...], *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, PyTree]:
        states, mixed = list(state["projections"]), list(layers)
        for position, projection in enumerate(projections):
            if projection is not None:
                mixed[position], states[position] = projection.apply(
                    params["projections"][position],
                    states[position],
                    layers[position],
                    key=key_for(key, f"projection/{position}"),
                    train=train,
                )
        check(mixed)
        weights = weigh(params["layers"].astype(wide_dtype(mixed[-1])))[None, :]
        (features,) = mix(jax.tree.map(lambda _: weights, mixed[-1]), mixed, rows=(0,))
        outputs, head_state = head.apply(params["head"], state["head"], features, key=key, train=train)
        return outputs, {"projections": tuple(states), "head": head_state}

    return Network(init, apply)

"""Sluice networks: one column per task, mixed between subspaces of channels; heads read a mixture of layers."""

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
    r"""One column of stages per task; subspaces of channels are mixed between columns, and layers within a column.

        h_i^l = stage_l(x_i^(l-1); w_i^l) = [h_i1^l, ..., h_iS^l]     S equal slices of the channels, the last axis
        x_is^l = sum_{j,u} alpha^l_isju h_ju^l                        over all tasks j and subspaces u
        outputs_i = head_i(sum_l beta_i[l] P_l(x_i^l))
        penalty = orthogonality * sum_i sum_l sum_{s<u} |G_is^l^T G_iu^l|_F^2

    `G_is^l` `[..., C/S]` are the columns of layer l's kernels that produce subspace s; their leading axes count as one.

    **Parameters.** `Params.shared` is `{"columns": {k: (w_k^1, ..., w_k^L)}, "units": (alpha^1, ..., alpha^L)}`.
    `alpha^l` has shape `[T, S, T, S]` in sorted order of task names; it is `()` after a stage without a unit.
    `Params.tasks[k]` is `{"layers": beta_k [L], "projections": one entry per stage, "head": ...}`, since no other
    task's loss reaches these. All weights are free: training does not keep them convex. The state is
    `{"columns": ..., "units": ..., "tasks": {k: {"projections": ..., "head": ...}}}`.

    **Shapes.** Features are an array or any pytree of floating arrays. They must have the same shape and dtype in all
    columns where a unit stands, and S must divide their last axis. The features of all stages of a column, after
    projection, must have the same shape and dtype too, since a head reads their sum.

    **Start.** A subspace starts with weight `same` on itself, and all others share the rest evenly. A head starts with
    weight `last` on the last layer, and the other layers share the rest evenly. Columns that read the same inputs start
    equal, and dropout drops the same units in them (see `cross_stitch`). With `same=1.0, last=1.0` the columns start as
    T single-task networks.

    **What runs.** Up to the last unit, all columns run. After the last unit, and everywhere with `after=()`, only the
    columns, projections and heads of the requested tasks run. With `TaskInputs` column k reads the inputs of task k;
    other inputs are read by all columns.

    Args:
        stages: networks, each of which reads the output of the one before; the first reads the inputs `[B, ...]`.
        heads: by task name, network from the mixture of layers to the task's outputs.
        subspaces: S, at least 1; 1 mixes whole layers.
        after: positions (0 is the first) of the stages that a unit follows; None (default) for all.
        same: initial value of `alpha_isis`, in [0, 1]; with one task and one subspace, it is 1.
        last: initial value of `beta_i[L]`, in [0, 1]; with one stage, it is 1.
        projections: `P_l`, one `Network` per stage, or None for a stage whose features stay unchanged; each task has
            its own parameters. None (default) for no projections at all.
        orthogonality: non-negative strength of the penalty, may be traced; None (default) for no penalty.
        kernels: function from one stage's parameters to the kernels `[..., C]` that produce the stage's channels, which
            the penalty splits. The default returns every leaf with two or more axes. This is right if a stage is one
            dense, convolutional or recurrent layer with output channels last, as in Flax. For a stage of several
            layers, give a function that returns the kernels of the last layer.

    Returns:
        `Model` with `encode` and `decode` None. Its `penalty(params)` is a scalar, float32 at least; without
        `orthogonality`, `penalty` is None.

    Raises:
        ValueError: `orthogonality` is given with one subspace; S does not divide the number of channels, or the last
            axis of a kernel.

    References:
        Ruder, Bingel, Augenstein and Søgaard, "Latent Multi-task Architecture Learning", AAAI 2019 (arXiv 1705.08142).
        The paper has two subspaces and recurrent layers of one shape, so it needs no projections. As here, beta mixes
        what the units return, not what they read; alpha starts biased to one source and beta to the last layer.
        Departures: the paper's columns start at random. The authors' code (sebastianruder/sluice-networks) has these
        initial numbers for beta and, with one subspace, for alpha. With two subspaces it takes 0.95 of one subspace of
        every task and 0.05 of the other, so that rows sum to T. The authors' penalty reads two matrices of each LSTM,
        those from hidden and cell state to the input gate, and multiplies along their outputs. Here products run along
        the inputs, so that units of different subspaces read orthogonal directions.

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
            raise ValueError(f"sluice: orthogonality must be None where subspaces is 1, found {orthogonality}")

    def split(features: PyTree) -> list[PyTree]:
        return [
            jax.tree.map(lambda x, which=which: jnp.split(x, subspaces, axis=-1)[which], features)
            for which in range(subspaces)
        ]

    def check(x: Array) -> None:
        if jnp.ndim(x) < 2 or x.shape[-1] % subspaces:
            raise ValueError(
                f"sluice: features must be [B, ..., C] with C a multiple of subspaces, {subspaces}, found an "
                f"array of shape {jnp.shape(x)}"
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
            raise ValueError("sluice: kernels must return an array for at least one stage, found none")
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
    """`sum_{s<u} |G_s^T G_u|_F^2` over the slices `G_s` of a kernel's last axis."""
    if kernel.shape[-1] % subspaces:
        raise ValueError(
            f"sluice: the last axis of kernels must be a multiple of subspaces, {subspaces}, "
            f"found shape {kernel.shape}; give kernels=, a function that returns the kernels of a stage's channels"
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

    Their parameters are `{"layers": [L], "projections": one entry per stage, "head": ...}`; their state has the last
    two entries. A head gets the same key as without layers, so its initial values do not depend on this choice.

    Args:
        where: the public function that calls this one; messages start with its name.
        heads: by task name, network from the mixture to the task's outputs.
        count: L, the number of stages.
        projections: `P_l`, one per stage; None leaves the features of a stage, or of all stages, unchanged.
        start: returns the initial value of `"layers"`, `[L]`.
        weigh: from `"layers"`, in float32 at least, to the weights `w_k`, `[L]`.
    """
    if projections is None:
        projections = [None] * count
    expected = f"a sequence of Network or None, one per stage, for {count} stages"
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
            f"{where}: task {name!r} mixes layers that differ (give projections that bring them to one shape)",
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

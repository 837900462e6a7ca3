"""NDDR: one column of stages per task; after a stage, each task reduces the concatenated channels of all columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import check_number
from mtljax.sharing.frames.columns import Unit, column_model, read_last
from mtljax.sharing.frames.mixing import near_identity, wide_dtype
from mtljax.sharing.frames.network import Network, check_heads, check_network, check_networks, key_for
from mtljax.types import Array, Key, Model, PyTree


def nddr(
    stages: Sequence[Network],
    heads: Mapping[str, Network],
    *,
    after: Sequence[int] | None = None,
    same: Array | float = 0.9,
    norm: Network | None = None,
) -> Model:
    r"""One column of stages per task; one 1x1 convolution per task reduces the concatenated channels of all columns.

        h_i^l = stage_l(x_i^(l-1); w_i^l),   x_i^l = norm([h_1^l, ..., h_T^l] W_i^l; v_i^l),   outputs_i = head_i(x_i^L)

    The brackets concatenate channels, the last axis, and `W_i^l` is `[T C, C]`: on `[B, C]` features it is a linear
    layer, on images `[B, H, W, C]` a 1x1 convolution. There is no bias. If the blocks of `W` are diagonal, this is
    `cross_stitch` with one unit per channel.

    **Parameters.** `Params.shared` is `{"columns": {k: (w_k^1, ..., w_k^L)}, "units": one entry per stage}`. An entry
    is `{"kernel": W^l [T, T C, C], "norm": {k: v_k^l}}`, with tasks in sorted order of names, or `()` after a stage
    without a unit. If features are a pytree, there is one kernel per leaf. `"norm"` is empty if there is no `norm`.
    `Params.tasks[k]` are the parameters of head k. The state is `{"columns": ..., "units": ..., "tasks": ...}`. In the
    paper, weight decay of the kernels is part of the method. To give the kernels their own weight decay or learning
    rate, select `params.shared["units"]` as in the example of `cross_stitch`.

    **Start.** `W_i` is diagonal: `same` on task i's own channels, and the rest shared evenly among the channels of the
    other tasks. In the paper these are alpha and beta with `alpha + (T-1) beta = 1`, which for its two tasks is
    `alpha + beta = 1`. Columns that read the same inputs start equal, and dropout drops the same units in them (see
    `cross_stitch`). With `same=1.0` and no `norm` the columns start as T single-task networks.

    **What runs.** Up to the last unit, all columns run. After the last unit, and everywhere with `after=()`, only the
    columns and heads of the requested tasks run. With `TaskInputs` column k reads the inputs of task k; other inputs
    are read by all columns.

    **Precision.** The product is computed like any layer of a network: in the features' dtype, at the precision of
    `jax.default_matmul_precision`, summed in float32 at least.

    Args:
        stages: networks, each of which reads the output of the one before; the first reads the inputs `[B, ...]`.
            Features `[B, ..., C]`, an array or any pytree of floating arrays, must have the same structure, shape and
            dtype in all columns where a unit stands.
        heads: by task name, network from the last stage's features to the task's outputs.
        after: positions (0 is the first) of the stages that a unit follows; None (default) for all, the last one too.
        same: initial value on the diagonal for a task's own channels, in [0, 1]; the paper's best is 0.9. With one
            task, it starts from 1.
        norm: network from the reduced features to features of the same shape, with its own parameters and state per
            task and unit. In the paper it is batch normalisation, with any activation after it. None (default) for no
            network.

    Returns:
        `Model` with `encode`, `decode` and `penalty` None: each head reads its own column.

    References:
        Gao, Ma, Zhao, Liu and Yuille, "NDDR-CNN: Layerwise Feature Fusing in Multi-Task CNNs by Neural Discriminative
        Dimensionality Reduction", CVPR 2019. Departures: the paper's columns start from trained single-task networks,
        and its variant with shortcuts from every unit to the head is not here. The authors' code (ethanygao/NDDR-CNN)
        has batch normalisation and a ReLU in place of `norm`, no bias, the same weight decay for all kernels, and 100
        times the network's learning rate for the units.

    Example:
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = nddr([dense(1), dense(8)], {"depth": dense(1), "label": dense(10)})
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> [unit["kernel"].shape for unit in params.shared["units"]]
        [(2, 2, 1), (2, 16, 8)]
        >>> params.shared["units"][0]["kernel"][:, :, 0]
        Array([[0.9, 0.1],
               [0.1, 0.9]], dtype=float32)
    """
    names, stages = check_heads("nddr", heads), check_networks("nddr", "stages", stages)
    check_number("nddr", "same", same, least=0, most=1)
    if norm is not None:
        check_network("nddr", "norm", norm)

    def kernel(x: Array) -> Array:
        if jnp.ndim(x) < 2:
            raise ValueError(
                f"nddr: features must be [B, ..., C] with channels last, found an array of shape {jnp.shape(x)}"
            )
        channels = x.shape[-1]
        blocks = near_identity(len(names), same)[:, :, None, None] * jnp.eye(channels)[None, None, :, :]
        return blocks.reshape(len(names), len(names) * channels, channels).astype(wide_dtype(x))

    def init(key: Key, columns: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
        params, states = {}, {}
        if norm is not None:
            for name in names:
                params[name], states[name] = norm.init(key_for(key, "norm"), columns[name])
        return {"kernel": jax.tree.map(kernel, columns[names[0]]), "norm": params}, states

    def apply(
        params: PyTree,
        state: PyTree,
        columns: dict[str, PyTree],
        wanted: Sequence[str],
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, PyTree], PyTree]:
        every = jax.tree.map(lambda *xs: jnp.concatenate(xs, axis=-1), *(columns[name] for name in names))
        fused, states = {}, dict(state)
        for name in wanted:
            row = names.index(name)
            fused[name] = jax.tree.map(lambda x, w, row=row: _reduce(x, w[row]), every, params["kernel"])
            if norm is not None:
                fused[name], states[name] = norm.apply(
                    params["norm"][name], states[name], fused[name], key=key_for(key, "norm"), train=train
                )
        return fused, states

    return column_model(
        "nddr", stages, {name: read_last(heads[name]) for name in names}, Unit(init, apply), after=after
    )


def _reduce(x: Array, kernel: Array) -> Array:
    """`[..., K]`, `[K, C]` -> `[..., C]` in the dtype of x."""
    axes = (((x.ndim - 1,), (0,)), ((), ()))
    wide = trees.accumulator(x.dtype)
    return lax.dot_general(x, kernel.astype(x.dtype), axes, preferred_element_type=wide).astype(x.dtype)

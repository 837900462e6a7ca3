"""Cross-stitch networks: one column of stages per task; after each stage, activations are mixed linearly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from mtljax.checks import check_flag, check_number
from mtljax.sharing.frames.columns import Unit, column_model, read_last
from mtljax.sharing.frames.mixing import mix, near_identity, wide_dtype
from mtljax.sharing.frames.network import Network, check_heads, check_networks
from mtljax.types import Array, Key, Model, PyTree


def cross_stitch(
    stages: Sequence[Network],
    heads: Mapping[str, Network],
    *,
    after: Sequence[int] | None = None,
    per_channel: bool = True,
    same: Array | float = 0.9,
) -> Model:
    r"""One column of stages per task; the next stage of each column reads a learned mixture of all columns.

        h_i^l = stage_l(x_i^(l-1); w_i^l),   x_i^l[..., c] = sum_j alpha^l_ij[c] h_j^l[..., c]
        outputs_i = head_i(x_i^L)

    **Parameters.** `Params.shared` is `{"columns": {k: (w_k^1, ..., w_k^L)}, "units": (alpha^1, ..., alpha^L)}`.
    `alpha^l` has shape `[T, T, C]` in sorted order of task names; it is `()` after a stage without a unit. If features
    are a pytree, a unit has one array per leaf. `Params.tasks[k]` are the parameters of head k. The weights are free:
    training does not keep rows convex. The state is `{"columns": ..., "units": ..., "tasks": ...}`.

    **Start.** `alpha_ii = same`, and the rest of a row is shared evenly, so that activations keep their scale for any
    number of tasks. Columns that read the same inputs start equal, as copies of one network do in the paper, and
    dropout drops the same units in them. So channel c is the same feature in all columns, and the model starts as the
    single-task network. To start from trained single-task networks, as the paper does, put their stages into
    `params.shared["columns"]`. With `same = 1/T` and a unit after the last stage, equal columns get equal gradients and
    stay equal. With `same=1.0` the T columns start as T independent single-task networks.

    **What runs.** Up to the last unit, all columns run, since each column reads the others. After the last unit, and
    everywhere with `after=()`, only the columns and heads of the requested tasks run. With `TaskInputs` column k reads
    the inputs of task k. Other inputs, such as those of a task's own `Batch`, are read by all columns. So a step on one
    `Batch` per task runs each column T times, and its batch statistics see the inputs of all tasks.

    Args:
        stages: networks, each of which reads the output of the one before; the first reads the inputs `[B, ...]`.
            Features `[B, ..., C]`, an array or any pytree of floating arrays, must have the same structure, shape and
            dtype in all columns where a unit stands.
        heads: by task name, network from the last stage's features to the task's outputs.
        after: positions (0 is the first) of the stages that a unit follows. None (default) for all stages including the
            last, as in the paper, where a unit stands between the last hidden layer and the classifiers.
        per_channel: whether weights are per channel (the last axis), as in the paper for segmentation and normals.
            False for one number per pair of tasks, `alpha^l` of shape `[T, T]`, as in the paper for detection and
            attributes, where weights per channel were unstable.
        same: initial value of `alpha_ii`, in [0, 1]; the paper's best is 0.9. May be traced. With one task, it starts
            from 1.

    Returns:
        `Model` with `encode`, `decode` and `penalty` None: each head reads its own column.

    References:
        Misra, Shrivastava, Gupta and Hebert, "Cross-Stitch Networks for Multi-task Learning", CVPR 2016, equation 1,
        for two tasks. The paper trains the units with a learning rate 100 to 1000 times that of the network; see the
        example.

    Example:
        >>> import mtljax, optax
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = cross_stitch([dense(4), dense(8)], {"depth": dense(1), "label": dense(10)})
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> [unit.shape for unit in params.shared["units"]]
        [(2, 2, 4), (2, 2, 8)]
        >>> params.shared["units"][0][:, :, 0]
        Array([[0.9, 0.1],
               [0.1, 0.9]], dtype=float32)

        A larger learning rate for the units:

        >>> which = mtljax.Params(shared={"columns": "rest", "units": "units"}, tasks="rest")
        >>> optimizer = optax.partition({"rest": optax.sgd(0.01), "units": optax.sgd(1.0)}, which)
        >>> updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params))
        >>> float(updates.shared["units"][0][0, 0, 0]), round(float(updates.tasks["depth"][0, 0]), 4)
        (-1.0, -0.01)
    """
    names, stages = check_heads("cross_stitch", heads), check_networks("cross_stitch", "stages", stages)
    check_flag("cross_stitch", "per_channel", per_channel)
    check_number("cross_stitch", "same", same, least=0, most=1)

    def init(key: Key, columns: dict[str, PyTree]) -> tuple[PyTree, PyTree]:
        features, start = columns[names[0]], near_identity(len(names), same)
        if not per_channel:
            return start.astype(wide_dtype(features)), ()

        def channels(x: Array) -> Array:
            if jnp.ndim(x) < 2:
                raise ValueError(
                    "cross_stitch: features must be [B, ..., C] with channels last where per_channel is True, found "
                    f"an array of shape {jnp.shape(x)}; per_channel=False mixes features of any shape"
                )
            return jnp.repeat(start.astype(wide_dtype(x))[:, :, None], x.shape[-1], axis=2)

        return jax.tree.map(channels, features), ()

    def apply(
        alpha: PyTree,
        state: PyTree,
        columns: dict[str, PyTree],
        wanted: Sequence[str],
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, PyTree], PyTree]:
        weights = alpha if per_channel else jax.tree.map(lambda _: alpha, columns[names[0]])
        mixed = mix(weights, [columns[name] for name in names], [names.index(name) for name in wanted])
        return dict(zip(wanted, mixed, strict=True)), state

    return column_model(
        "cross_stitch", stages, {name: read_last(heads[name]) for name in names}, Unit(init, apply), after=after
    )

"""Cross-stitch networks: a column for each task, whose activations are mixed linearly after every stage."""

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
    r"""A column of stages for each task; after a stage every column goes on from a learned mixture of all.

        h_i^l = stage_l(x_i^(l-1); w_i^l),   x_i^l[..., c] = sum_j alpha^l_ij[c] h_j^l[..., c]
        outputs_i = head_i(x_i^L)

    **Parameters.** `Params.shared` is `{"columns": {k: (w_k^1, ..., w_k^L)}, "units": (alpha^1, ..., alpha^L)}`, with
    `alpha^l` of shape `[T, T, C]` in sorted order of names, `()` after a stage without a unit; where features are a
    pytree, a unit has an array for each of its leaves. `Params.tasks[k]` are head k's. The weights are free: nothing
    keeps a row convex while it trains. The state is `{"columns": ..., "units": ..., "tasks": ...}`.

    **Start.** `alpha_ii = same` and the rest of a row is shared evenly, so that activations keep their scale at any
    number of tasks. Columns that read the same inputs start equal, as copies of one network do in the paper, and drop
    the same units: channel c then is the same feature in all columns, and the model starts as the single-task network.
    To start from trained single-task networks, as the paper does, put their stages into `params.shared["columns"]`.
    At `same = 1/T`, with a unit after the last stage, equal columns get equal gradients and never part. With `same=1.0`
    the T columns start as T single-task networks that do not see one another.

    **What runs.** All columns up to the last unit, whichever tasks are asked for, since each reads the others; beyond
    it, and everywhere with `after=()`, the columns and heads of the tasks asked for alone. With `TaskInputs` column k
    reads its own inputs. Other inputs, as those of one task's own `Batch`, are read by all columns: a step on a `Batch`
    for each task runs every column T times, and its batch statistics see all tasks' inputs.

    Misra, Shrivastava, Gupta and Hebert, "Cross-Stitch Networks for Multi-task Learning", CVPR 2016, equation 1, for
    two tasks. They train the units with a learning rate 100 to 1000 times that of the network; see the example.

    Args:
        stages: networks, each reading what the one before returns; the first reads the inputs `[B, ...]`. Features
            `[B, ..., C]`, an array or any pytree of floating arrays, must agree between columns where a unit stands.
        heads: by task name, network from the last stage's features to the task's outputs.
        after: positions (0 is the first) of the stages that a unit follows; None (default) for all, the last one too,
            as in the paper, where a unit stands between the last hidden layer and the classifiers.
        per_channel: a unit of its own for each channel, the last axis, as in the paper for segmentation and normals;
            False for one number a pair of tasks, `alpha^l` of shape `[T, T]`, as in the paper for detection and
            attributes, which one a channel made unstable.
        same: what `alpha_ii` starts from, in [0, 1]; the paper's best is 0.9. May be traced. One task alone starts
            from 1.

    Returns:
        `Model` with `encode`, `decode` and `penalty` None: each head reads a column of its own.

    Raises:
        TypeError: a stage that is not a `Network`; `heads` that are not a dict, or names that are not strings; `after`
            that is not a sequence of integers; (by `init` and `apply`) features that are not floating.
        ValueError: no stages, no heads; `after` or `same` out of range; (by `init` and `apply`) columns that differ in
            shape or dtype where a unit stands, features without a channel axis; (by `apply`) an unknown task.

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

        Units that learn faster than the rest:

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
                    "cross_stitch: per_channel needs features [B, ..., C] with channels last, found an array of shape "
                    f"{jnp.shape(x)}; per_channel=False mixes any"
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

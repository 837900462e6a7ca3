"""Deep fusion: any stack of stages, fused across tasks after every layer and across layers before every head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from mtljax.checks import check_flag, check_number
from mtljax.sharing.frames.columns import Unit, column_model, read_last
from mtljax.sharing.frames.mixing import mix, near_identity, wide_dtype
from mtljax.sharing.frames.network import Network, check_heads, check_networks
from mtljax.sharing.sluice import layer_heads
from mtljax.types import Array, Key, Model, PyTree


def deep_fusion(
    stages: Sequence[Network],
    heads: Mapping[str, Network],
    *,
    after: Sequence[int] | None = None,
    layers: bool = True,
    same: Array | float = 0.9,
    last: Array | float = 0.9,
    projections: Sequence[Network | None] | None = None,
) -> Model:
    r"""A column of stages for each task, fused by learned convex weights across tasks and across layers.

        h_i^l = stage_l(x_i^(l-1); w_i^l)
        x_i^l = sum_j A^l_ij h_j^l,                        A^l = softmax over j of learned logits [T, T]
        outputs_k = head_k(sum_l b_k[l] P_l(x_k^l)),       b_k = softmax over l of learned logits [L]

    It is what its relatives have in common, with weights that stay convex, so that features keep their scale and the
    weights can be read as shares:

    * `cross_stitch(per_channel=False)` is the fusion across tasks alone (`layers=False`), with free weights;
    * `sluice(subspaces=1)` is both, with free weights;
    * a scalar mix (Peters et al., "Deep Contextualized Word Representations", NAACL 2018, ELMo) is the fusion across
      layers alone (`after=()`), of a column for each task; its overall scale is left to the head;
    * `soft` without a penalty is neither (`after=(), layers=False`), though its copies belong to the tasks.

    **Parameters.** `Params.shared` is `{"columns": {k: (w_k^1, ..., w_k^L)}, "units": logits of A, one entry a stage}`,
    in sorted order of names, `()` after a stage without a unit. `Params.tasks[k]` is
    `{"layers": logits of b_k, "projections": one entry a stage, "head": ...}`, or head k's alone with `layers=False`.
    The state is `{"columns": ..., "units": ..., "tasks": ...}`. Softmax and sums are in float32 at least; features keep
    their dtype. Weight decay draws the logits to equal shares.

    **Start.** Logits start as the logarithms of the weights to start from: `A_ii = same` and the rest shared evenly
    among the other tasks, `b_k[L] = last` and the rest shared evenly among the other layers. Columns that read the same
    inputs start equal and drop the same units (see `cross_stitch`); at `same = 1/T`, with a unit after the last stage,
    they get equal gradients and never part. With `layers=False` the model then starts as the single-task network.

    **Shapes.** Features (an array or any pytree of floating arrays) must agree in shape and dtype between the columns
    where a unit stands; and, with `layers`, once projected, between the stages of one column.

    **What runs.** All columns up to the last unit, whichever tasks are asked for; beyond it, and everywhere with
    `after=()`, the columns, projections and heads of the tasks asked for alone. With `TaskInputs` column k reads its
    own inputs; other inputs are read by all columns.

    Args:
        stages: networks, each reading what the one before returns; the first reads the inputs `[B, ...]`.
        heads: by task name, network from the mixed layers, or the last one, to the task's outputs.
        after: positions (0 is the first) of the stages that a unit follows; None (default) for all, `()` for no fusion
            across tasks.
        layers: whether heads read a mixture of all layers; False for the last one alone.
        same: what `A_ii` starts from, strictly between 0 and 1; a single task's is 1.
        last: what `b_k[L]` starts from, strictly between 0 and 1; a single stage's is 1.
        projections: `P_l`, a `Network` for each stage, or None for a stage whose features stay as they are; each task
            has parameters of its own. None (default) for no projections at all.

    Returns:
        `Model` with `encode`, `decode` and `penalty` None: each head reads a column of its own.

    Raises:
        TypeError: a stage that is not a `Network`; `heads` that are not a dict, or names that are not strings; `after`
            that is not a sequence of integers; (by `init` and `apply`) features that are not floating.
        ValueError: no stages, no heads; an argument out of range; not one projection a stage, or any without `layers`;
            (by `init` and `apply`) columns, or layers, that differ in shape or dtype; (by `apply`) an unknown task.

    Example:
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> heads = {"depth": dense(1), "label": dense(10)}
        >>> model = deep_fusion([dense(4), dense(8)], heads, projections=[dense(8), None])
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> [round(float(share), 4) for share in jax.nn.softmax(params.shared["units"][0][0])]
        [0.9, 0.1]
        >>> [round(float(share), 4) for share in jax.nn.softmax(params.tasks["depth"]["layers"])]
        [0.1, 0.9]
    """
    names, stages = check_heads("deep_fusion", heads), check_networks("deep_fusion", "stages", stages)
    for argument, number in (("same", same), ("last", last)):
        # Strictly: the logits of 0 and 1 are infinite.
        check_number("deep_fusion", argument, number, above=0, below=1)
    check_flag("deep_fusion", "layers", layers)
    if projections is not None and not layers:
        raise ValueError("deep_fusion: projections must be None where layers is False, since they are for its mixture")

    def init(key: Key, columns: dict[str, PyTree]) -> tuple[Array, PyTree]:
        return jnp.log(near_identity(len(names), same)).astype(wide_dtype(columns[names[0]])), ()

    def apply(
        logits: Array,
        state: PyTree,
        columns: dict[str, PyTree],
        wanted: Sequence[str],
        *,
        key: Key | None = None,
        train: bool = False,
    ) -> tuple[dict[str, PyTree], PyTree]:
        features = columns[names[0]]
        shares = jax.nn.softmax(logits.astype(wide_dtype(features)), axis=1)
        weights = jax.tree.map(lambda _: shares, features)
        mixed = mix(weights, [columns[name] for name in names], [names.index(name) for name in wanted])
        return dict(zip(wanted, mixed, strict=True)), state

    if layers:
        reading = layer_heads(
            "deep_fusion",
            heads,
            len(stages),
            projections,
            start=lambda: jnp.log(near_identity(len(stages), last)[-1]),
            weigh=jax.nn.softmax,
        )
    else:
        reading = {name: read_last(heads[name]) for name in names}
    return column_model("deep_fusion", stages, reading, Unit(init, apply), after=after)

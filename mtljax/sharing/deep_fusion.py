"""Deep fusion: one column of stages per task, fused across tasks after each stage and across layers before heads."""

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
    r"""One column of stages per task, fused by learned convex weights across tasks and across layers.

        h_i^l = stage_l(x_i^(l-1); w_i^l)
        x_i^l = sum_j A^l_ij h_j^l,                        A^l = softmax over j of learned logits [T, T]
        outputs_k = head_k(sum_l b_k[l] P_l(x_k^l)),       b_k = softmax over l of learned logits [L]

    This is the common form of the architectures below. Here the weights stay convex, so features keep their scale, and
    the weights can be read as shares:

    * `cross_stitch(per_channel=False)` is the fusion across tasks alone (`layers=False`), with free weights;
    * `sluice(subspaces=1)` is both, with free weights;
    * a scalar mix (ELMo) is the fusion across layers alone (`after=()`), with one column per task; its overall scale is
      left to the head;
    * `soft` without a penalty has neither fusion (`after=(), layers=False`), but its copies are in `Params.tasks`.

    **Parameters.** `Params.shared` is
    `{"columns": {k: (w_k^1, ..., w_k^L)}, "units": (logits of A^1, ..., logits of A^L)}`, in sorted order of task
    names; an entry is `()` after a stage without a unit. `Params.tasks[k]` is
    `{"layers": logits of b_k, "projections": one entry per stage, "head": ...}`, or head k's parameters alone with
    `layers=False`. The state is `{"columns": ..., "units": ..., "tasks": ...}`. Softmax and sums are computed in
    float32 at least; features keep their dtype. Weight decay pulls the logits towards equal shares.

    **Start.** Logits start as the logarithms of the initial weights. `A_ii = same`, and the other tasks share the rest
    of a row evenly. `b_k[L] = last`, and the other layers share the rest evenly. Columns that read the same inputs
    start equal, and dropout drops the same units in them (see `cross_stitch`). With `same = 1/T` and a unit after the
    last stage, they get equal gradients and stay equal. With `layers=False` the model starts as the single-task
    network.

    **Shapes.** Features are an array or any pytree of floating arrays. They must have the same shape and dtype in all
    columns where a unit stands. With `layers`, the features of all stages of a column, after projection, must have the
    same shape and dtype too.

    **What runs.** Up to the last unit, all columns run. After the last unit, and everywhere with `after=()`, only the
    columns, projections and heads of the requested tasks run. With `TaskInputs` column k reads the inputs of task k;
    other inputs are read by all columns.

    Args:
        stages: networks, each of which reads the output of the one before; the first reads the inputs `[B, ...]`.
        heads: by task name, network from the mixture of layers, or from the last layer, to the task's outputs.
        after: positions (0 is the first) of the stages that a unit follows; None (default) for all, `()` for no fusion
            across tasks.
        layers: whether heads read a mixture of all layers; False for the last layer alone.
        same: initial value of `A_ii`, strictly between 0 and 1; with one task, it is 1.
        last: initial value of `b_k[L]`, strictly between 0 and 1; with one stage, it is 1.
        projections: `P_l`, one `Network` per stage, or None for a stage whose features stay unchanged; each task has
            its own parameters. None (default) for no projections at all.

    Returns:
        `Model` with `encode`, `decode` and `penalty` None: each head reads its own column.

    Raises:
        ValueError: `projections` are given where `layers` is False.

    References:
        Peters et al., "Deep Contextualized Word Representations", NAACL 2018, for the scalar mix. The others are cited
        by `cross_stitch`, `sluice` and `soft`.

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
        # Strictly between 0 and 1, since the logits of 0 and 1 are infinite.
        check_number("deep_fusion", argument, number, above=0, below=1)
    check_flag("deep_fusion", "layers", layers)
    if projections is not None and not layers:
        raise ValueError("deep_fusion: projections must be None where layers is False, found projections")

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

"""Feature-wise linear modulation by task: one trunk, and a scale and a shift of its own for each task and channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from mtljax import trees
from mtljax.sharing.frames.deltas import after_each_stage
from mtljax.sharing.frames.network import Network
from mtljax.types import Array, Key, Model, PyTree


def film(stages: Sequence[Network], heads: Mapping[str, Network], *, frozen: bool = False) -> Model:
    r"""One trunk; after each stage every task scales and shifts the channels by numbers of its own.

        h_k^j = (1 + s_k^j) * stage_j(h_k^{j-1}) + b_k^j,   outputs_k = head_k(h_k^J),   s, b in R^{C_j}

    Channels are the last axis. Scales and shifts start at zero: the model starts as hard sharing of the stages in a row
    and the heads. `Params.shared` is the list of the stages' parameters; `Params.tasks[k]` is
    `{"film": [{"scale": [C_j], "shift": [C_j]}, ...], "head": ...}`, so a task costs `2 sum_j C_j` parameters more.

    Once bent, features differ between tasks, so the trunk runs once for each task asked for, and no features are common
    to all. Its batch statistics are each task's own too: the state is `{"tasks": {k: {"stages": [...], "head": ...}}}`.
    All tasks drop the same units in the trunk.

    Perez, Strub, de Vries, Dumoulin and Courville, "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI
    2018. There a network computes scale and shift from a question; here the condition is the task alone, for which that
    network is a table. The paper too learns the scale's difference from one. It modulates between normalisation and
    nonlinearity inside a block; where a stage ends is the caller's choice here.

    Args:
        stages: the trunk's networks in order, each from features to features `[B, ..., C_j]`.
        heads: network from the last features to outputs, by task name.
        frozen: whether gradients stop at the trunk's parameters, so that a compiled step computes none for them.
            `Params.shared` gets zeros; leave it out of the optimiser's weight decay too. Batch statistics still move in
            training. Default False.

    Returns:
        `Model`; `encode`, `decode` and `penalty` are None. Scales and shifts have the features' dtype at `init`; they
        are applied in float32 at least, and the result has the features' dtype.

    Raises:
        TypeError: `stages` holds something else than networks; a task name that is not a string; a stage's output that
            is not one floating array.
        ValueError: no stages, no heads, a stage's output of fewer than two axes; `apply` asked for an unknown task.

    Example:
        >>> import jax
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = film([dense(8), dense(4)], {"depth": dense(1), "label": dense(10)})
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> [scale_and_shift["scale"].shape for scale_and_shift in params.tasks["depth"]["film"]]
        [(8,), (4,)]
    """
    return after_each_stage("film", "film", _MODULATION, stages, heads, frozen=frozen)


def _init(key: Key, features: Array) -> tuple[PyTree, PyTree]:
    shape, dtype = features.shape[-1:], features.dtype
    return {"scale": jnp.zeros(shape, dtype), "shift": jnp.zeros(shape, dtype)}, ()


def _apply(
    params: PyTree, state: PyTree, features: Array, *, key: Key | None = None, train: bool = False
) -> tuple[Array, PyTree]:
    wide = trees.accumulator(features.dtype)
    last = (1,) * (features.ndim - 1) + (-1,)
    scale, shift = (params[name].astype(wide).reshape(last) for name in ("scale", "shift"))
    return ((1.0 + scale) * features.astype(wide) + shift).astype(features.dtype), state


_MODULATION = Network(_init, _apply)

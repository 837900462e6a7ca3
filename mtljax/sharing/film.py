"""Feature-wise linear modulation: one shared trunk, and one scale and one shift per task and channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from mtljax import trees
from mtljax.sharing.frames.bank import Bank
from mtljax.sharing.frames.deltas import after_each_stage
from mtljax.sharing.frames.network import Network
from mtljax.types import Array, Key, Model, PyTree


def film(stages: Sequence[Network], heads: Mapping[str, Network | Bank], *, frozen: bool = False) -> Model:
    r"""One shared trunk; after each stage, each task scales and shifts the channels with its own numbers.

        h_k^j = (1 + s_k^j) * stage_j(h_k^{j-1}) + b_k^j,   outputs_k = head_k(h_k^J),   s, b in R^{C_j}

    Channels are the last axis. Scales and shifts start at zero, so the model starts as hard sharing of the stages in a
    row and the heads. `Params.shared` is the list of the stages' parameters. `Params.tasks[k]` is `{"film": [{"scale":
    [C_j], "shift": [C_j]}, ...], "head": ...}`, so one more task adds `2 sum_j C_j` parameters and a head.

    After the first modulation, features differ between tasks. So the trunk runs once per requested task, and no
    features are common to all tasks. Each task has its own batch statistics of the trunk: the state is
    `{"tasks": {k: {"stages": [...], "head": ...}}}`. Dropout drops the same units of the trunk for all tasks.

    Args:
        stages: the trunk's networks in order, each from features to features `[B, ..., C_j]`.
        heads: network from the last features to outputs, by task name; a `Bank` stands for many tasks of one form, each
            with scales and shifts of its own.
        frozen: whether gradients stop at the trunk's parameters, so that a compiled step computes none for them. The
            gradient of `Params.shared` is then zero; exclude it from the optimiser's weight decay too. Batch statistics
            still change in training. Default False.

    Returns:
        `Model`; `encode`, `decode` and `penalty` are None. Scales and shifts have the features' dtype at `init`; they
        are applied in float32 at least, and the result has the features' dtype.

    References:
        Perez, Strub, de Vries, Dumoulin and Courville, "FiLM: Visual Reasoning with a General Conditioning Layer", AAAI
        2018. As here, the paper learns the scale's difference from one. Departures: in the paper a network computes
        scale and shift from a question; here the condition is the task, and the network is a table. The paper modulates
        between normalisation and nonlinearity inside a block; here the caller chooses where a stage ends.

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

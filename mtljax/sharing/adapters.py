"""Residual adapters: one shared trunk, and one small bottleneck per task after each stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from mtljax.checks import check_callable, check_count
from mtljax.sharing.frames.bank import Bank
from mtljax.sharing.frames.deltas import after_each_stage
from mtljax.sharing.frames.network import Network, key_for
from mtljax.types import Array, Key, Model, PyTree


def adapters(
    stages: Sequence[Network],
    heads: Mapping[str, Network | Bank],
    size: int,
    *,
    activation: Callable[[Array], Array] = jax.nn.relu,
    frozen: bool = False,
) -> Model:
    r"""One shared trunk; after each stage, each task adds the output of its own bottleneck to the features.

        h = stage_j(h_k^{j-1}),   h_k^j = h + activation(h D_k^j + d_k^j) U_k^j + u_k^j,   outputs_k = head_k(h_k^J)

    D is `[C_j, size]` and U is `[size, C_j]`. Both act on the last axis (channels last), so on images the bottleneck is
    two 1x1 convolutions. D starts from a normal distribution of variance `1 / C_j`, everything else from zeros. So the
    model starts exactly as hard sharing of the stages in a row and the heads. `Params.shared` is the list of the
    stages' parameters. `Params.tasks[k]` is `{"adapters": [{"down": D, "down_bias": d, "up": U, "up_bias": u}, ...],
    "head": ...}`, which is the paper's `2 size C_j + C_j + size` parameters per stage.

    After the first bottleneck, features differ between tasks. So the trunk runs once per requested task, and no
    features are common to all tasks. Each task has its own batch statistics of the trunk: the state is
    `{"tasks": {k: {"stages": [...], "head": ...}}}`. Dropout drops the same units of the trunk for all tasks.

    Args:
        stages: the trunk's networks in order, each from features to features `[B, ..., C_j]`.
        heads: network from the last features to outputs, by task name; a `Bank` stands for many tasks of one form, each
            with bottlenecks of its own.
        size: channels of the bottleneck, positive.
        activation: function of the bottleneck's features, element by element; default ReLU.
        frozen: whether gradients stop at the trunk's parameters, so that a compiled step computes none for them. The
            gradient of `Params.shared` is then zero; exclude it from the optimiser's weight decay too. Batch statistics
            still change in training. Default False.

    Returns:
        `Model`; `encode`, `decode` and `penalty` are None. Adapters have the features' dtype at `init`; their sum with
        the features has the features' dtype.

    References:
        Houlsby, Giurgiu, Jastrzebski, Morrone, de Laroussilhe, Gesmundo, Attariyan and Gelly, "Parameter-Efficient
        Transfer Learning for NLP", ICML 2019. Departures: the paper starts both matrices near zero; here U starts at
        zero, which makes the identity exact. The paper's layer normalisation per task is left to the stages.
        Rebuffi, Bilen and Vedaldi, "Learning Multiple Visual Domains with Residual Adapters", NeurIPS 2017, have one
        full 1x1 convolution without activation in place of the bottleneck. Up to the factorisation, this is `size=C`
        and `activation=lambda x: x`.

    Example:
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = adapters([dense(8), dense(4)], {"depth": dense(1), "label": dense(10)}, 2)
        >>> params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
        >>> [adapter["down"].shape for adapter in params.tasks["depth"]["adapters"]]
        [(8, 2), (4, 2)]
    """
    check_count("adapters", "size", size)
    check_callable("adapters", "activation", activation)
    return after_each_stage("adapters", "adapters", _bottleneck(size, activation), stages, heads, frozen=frozen)


def _bottleneck(size: int, activation: Callable[[Array], Array]) -> Network:
    def init(key: Key, features: Array) -> tuple[PyTree, PyTree]:
        channels, dtype = features.shape[-1], features.dtype
        down = jax.random.normal(key_for(key, "down"), (channels, size), dtype) / channels**0.5
        zeros = {"down_bias": (size,), "up": (size, channels), "up_bias": (channels,)}
        return {"down": down} | {name: jnp.zeros(shape, dtype) for name, shape in zeros.items()}, ()

    def apply(
        params: PyTree, state: PyTree, features: Array, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, PyTree]:
        last = (1,) * (features.ndim - 1) + (-1,)
        hidden = activation(features @ params["down"] + params["down_bias"].reshape(last))
        added = hidden @ params["up"] + params["up_bias"].reshape(last)
        return (features + added).astype(features.dtype), state

    return Network(init, apply)

"""Entire space multi-task model: the conversion rate per impression is click rate times conversion rate per click."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.sharing.frames.experts import Run, assemble
from mtljax.sharing.frames.network import Network, check_entries, check_heads, check_network, task_names
from mtljax.trees import accumulator
from mtljax.types import Array, Key, Model, PyTree


def esmm(
    trunk: Network,
    heads: Mapping[str, Network],
    *,
    click: str = "click",
    conversion: str = "conversion",
) -> Model:
    """The conversion rate per impression as the product of the click rate and the conversion rate per click.

        pCTR = sigmoid(a),   pCVR = sigmoid(b),   pCTCVR = pCTR pCVR,   a, b = the two heads of trunk(inputs)
        outputs[click] = a = logit pCTR,   outputs[conversion] = logit pCTCVR = -logsumexp(-a, -b, -a - b)

    Both outputs are logits, for `mtljax.losses.binary_cross_entropy`. Both tasks have labels on all impressions:
    clicked or not, and clicked and then converted or not. So pCVR, which has labels on clicks alone, is learned over
    the entire space. The identity 1 / p - 1 = e^-a + e^-b + e^(-a-b) gives the logit of the product p = pCTCVR without
    forming a probability, so no value of a and b rounds to a probability of 0 or 1. After training, the conversion rate
    per click is

        log pCVR = log_sigmoid(outputs[conversion]) - log_sigmoid(outputs[click]).

    Both losses reach the click head, so `Params.shared` is `{"trunk": ..., "click": ...}`; `Params.tasks[conversion]`
    is `{"head": ...}` and `Params.tasks[click]` is empty. The state is `{"shared": ..., "tasks": {k: ...}}` of the same
    form. For the click task alone, the model does not run the conversion head. `encode` returns the trunk's features
    and a. With `TaskInputs` trunk and click head run once per task, on that task's inputs.

    The outputs have the dtype that the two heads' outputs promote to; the logarithm is computed in float32 at least.

    Args:
        trunk: network from inputs `[B, ...]` to features, any pytree: the embeddings that both tasks share.
        heads: the two networks from features to logits `[B, ...]`, both of one shape, by task name: a, then b.
        click: the task that labels clicks.
        conversion: the task that labels clicks followed by a conversion.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None.

    References:
        Ma, Zhao, Huang, Wang, Hu, Zhu and Gai, "Entire Space Multi-Task Model: An Effective Approach for Estimating
        Post-Click Conversion Rate", SIGIR 2018. Departures: the paper multiplies probabilities; here the product is
        formed in logits.

    Example:
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = esmm(dense(8), {"click": dense(1), "conversion": dense(1)})
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((2, 3)))
        >>> sorted(params.shared), sorted(params.tasks["click"]), sorted(params.tasks["conversion"])
        (['click', 'trunk'], [], ['head'])
    """
    names = task_names("esmm", [click, conversion], what="click and conversion")
    check_heads("esmm", heads)
    check_entries("esmm", "heads", heads, names)
    check_network("esmm", "trunk", trunk)

    def stem(run: Run, inputs: PyTree) -> PyTree:
        features = run("trunk", trunk, inputs)
        return {"features": features, "click": run("click", heads[click], features)}

    def branch(run: Run, name: str, features: PyTree, *, key: Key | None, train: bool) -> Any:
        clicked = _logits(click, features["click"])
        if name == click:
            return clicked
        bought = _logits(conversion, run("head", heads[conversion], features["features"]))
        if clicked.shape != bought.shape:
            raise ValueError(
                f"esmm: the heads must return logits of one shape, found {list(clicked.shape)} for task {click!r} "
                f"and {list(bought.shape)} for task {conversion!r}"
            )
        dtype = jnp.promote_types(clicked.dtype, bought.dtype)
        a, b = clicked.astype(accumulator(dtype)), bought.astype(accumulator(dtype))
        return -jax.nn.logsumexp(jnp.stack([-a, -b, -a - b]), axis=0).astype(dtype)

    return assemble("esmm", names, stem, branch)


def _logits(name: str, outputs: Any) -> Array:
    if not hasattr(outputs, "dtype") or not jnp.issubdtype(outputs.dtype, jnp.floating):
        found = getattr(outputs, "dtype", type(outputs).__name__)
        raise TypeError(f"esmm: the head of task {name!r} must return one floating array of logits, found {found}")
    return outputs

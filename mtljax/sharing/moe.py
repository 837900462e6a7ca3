"""Sparsely gated mixture of experts: each task's router sends each example to its best k experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_count, check_flag, check_nonnegative, is_zero
from mtljax.sharing.frames.bank import Bank, heads_of
from mtljax.sharing.frames.experts import (
    Run,
    assemble,
    expert_list,
    gate_or_linear,
    logits_of,
    mix_experts,
    run_experts,
)
from mtljax.sharing.frames.network import Network
from mtljax.types import Array, Key, Model, PyTree, Regularized


def moe(
    expert: Network | Sequence[Network],
    heads: Mapping[str, Network | Bank],
    *,
    num_experts: int | None = None,
    num_selected: int = 2,
    balance: Array | float = 0.01,
    noise: bool = False,
    gate: Network | None = None,
    encoder: Network | None = None,
) -> Model:
    """All tasks share the experts; for each example, each task's router picks the k experts with the largest logits.

        outputs_k = head_k(sum_i p_i f_i(x)),   p = softmax(top_k(l)),   l = W_k^T x, all but the k largest at -inf
        loss_k += balance * E sum_i F_i P_i

    `F_i` is the share of all choices over the batch's B examples that fell on expert i; it has no gradient. `P_i` is
    the mean of softmax(l)_i over the batch, with the softmax over all experts. E sum_i F_i P_i is 1 if all experts are
    used equally, and E if only one is used (k = 1). Without this term routers tend to settle on few experts. The term
    belongs to the loss of task k (`Regularized`) and is present in training only. It counts all examples of the batch,
    with and without labels. If a batch is split over devices or micro-batches, their terms are averaged.

    With k = 1 the weight is that of the softmax over all experts, p_i = softmax(l)_i, as in the Switch Transformer. The
    softmax over the chosen expert alone would always be 1, and the router would never learn from the task's loss.

    With `noise`, l = W_k^T x + n softplus(V_k^T x) in training, where n is normal and drawn per example, task and
    expert.

    All experts run on all examples, and the experts that are not picked have exactly the weight 0. So shapes are fixed,
    no expert has a capacity and no example is dropped, but no computation is saved either. Of equal logits, the expert
    with the lower number is picked.

    Experts and encoder are in `Params.shared`, `{"encoder": ..., "expert/0": ..., ...}`; router and head k are in
    `Params.tasks[k]`, `{"gate": W_k, "head": ...}` and with noise `"noise": V_k`. The state is
    `{"shared": ..., "tasks": {k: ...}}` of the same form. For a subset of the tasks, the model runs all experts, but
    only these tasks' routers and heads. `encode` returns `{"experts": [f(x) stacked to [B, E, ...]], "inputs": x}`.
    With `TaskInputs` the experts run once per task.

    Routers and mixtures are computed in float32 at least; features keep the experts' dtype.

    Args:
        expert: network from inputs `[B, ...]` to features, any pytree `[B, ...]`; or a sequence of different networks,
            whose features have the same structure, shape and dtype.
        heads: network from the mixed features to outputs, by task name.
        num_experts: E, the number of experts that are copies of `expert`; needed if `expert` is one network.
        num_selected: k, the number of experts per example, from 1 to E.
        balance: strength of the load balance, from 0, in units of the loss; may be traced. The default is that of the
            second paper.
        noise: whether routing is noisy in training, which then needs a key.
        gate: network from inputs to logits `[B, E]`; each task gets a copy with its own initial values, and with noise
            another copy for V. None: linear, for inputs `[B, d]`. The default gate never flattens an image.
        encoder: network whose output experts and routers read in place of the inputs; None for the inputs themselves.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None. With `train=True` and `balance > 0` its outputs are
        `Regularized`.

    Raises:
        ValueError: from `apply`, `key` is None in training with `noise`.

    References:
        Shazeer, Mirhoseini, Maziarz, Davis, Le, Hinton and Dean, "Outrageously Large Neural Networks: The
        Sparsely-Gated Mixture-of-Experts Layer", ICLR 2017, equations 3 to 5. Departures: one router per task; the term
        of the second paper replaces the two losses on importance and load. With noise, W and V start at 0, as in the
        paper. Without noise, all examples would then go to the first k experts, so W starts from a truncated normal
        distribution of variance 1 / d.
        Fedus, Zoph and Shazeer, "Switch Transformers", JMLR 23, 2022, equation 4. Departures: F_i is divided by k.

    Example:
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = moe(dense(8), {"depth": dense(1), "label": dense(10)}, num_experts=8, num_selected=2)
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((2, 3)))
        >>> outputs, state = jax.eval_shape(lambda *a: model.apply(*a, train=True), params, state, jnp.ones((2, 3)))
        >>> outputs["label"].outputs.shape, outputs["label"].term.shape
        ((2, 10), ())
    """
    names, networks, banks = heads_of("moe", heads)
    experts = expert_list("moe", expert, num_experts)
    count = len(experts)
    k = check_count("moe", "num_selected", num_selected, most=count)
    check_nonnegative("moe", "balance", balance)
    check_flag("moe", "noise", noise)
    router = gate_or_linear("moe", gate, count, init=jax.nn.initializers.zeros if noise else None)

    def trunk(run: Run, inputs: PyTree) -> PyTree:
        return {"experts": run_experts("moe", run, ("expert", experts, inputs)), "inputs": inputs}

    def branch(run: Run, name: str, features: PyTree, *, key: Key | None, train: bool) -> Any:
        logits = logits_of("moe", run, "gate", router, features["inputs"], count)
        if noise:
            spread = jax.nn.softplus(logits_of("moe", run, "noise", router, features["inputs"], count))
            if train:
                if key is None:
                    raise ValueError(f"moe: key must be a random key for noisy routing of task {name!r}, found None")
                logits = logits + spread * jax.random.normal(key, logits.shape, logits.dtype)
        chosen = _largest(logits, k)
        odds = jax.nn.softmax(logits)
        weights = jnp.where(chosen, odds, 0.0) if k == 1 else jax.nn.softmax(logits, where=chosen)
        outputs = run("head", networks[name], mix_experts("moe", weights, features["experts"]))
        if not train or is_zero(balance):
            return outputs
        used = jnp.mean(chosen, axis=0, dtype=odds.dtype) / k
        return Regularized(outputs, balance * count * jnp.sum(used * jnp.mean(odds, axis=0)))

    return assemble("moe", names, trunk, branch, encoder=encoder, banks=banks)


def _largest(logits: Array, k: int) -> Array:
    """The k largest logits of each row as bool `[B, E]`; of equal logits, the first."""
    chosen = lax.top_k(logits, k)[1]
    return jnp.any(chosen[:, :, None] == jnp.arange(logits.shape[1])[None, None, :], axis=1)

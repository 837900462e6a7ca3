"""Multi-gate mixture of experts: all tasks share the experts, and each task mixes them with its own gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

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
from mtljax.types import Key, Model, PyTree


def mmoe(
    expert: Network | Sequence[Network],
    heads: Mapping[str, Network | Bank],
    *,
    num_experts: int | None = None,
    gate: Network | None = None,
    encoder: Network | None = None,
) -> Model:
    """All tasks share the experts; each task's gate mixes them, and its head reads the mixture.

        outputs_k = head_k(sum_i g_k(x)_i f_i(x)),   g_k(x) = softmax(W_k^T x)

    Experts `f_i` and the encoder are in `Params.shared`, `{"encoder": ..., "expert/0": ..., ...}`. Gate and head k are
    in `Params.tasks[k]`, `{"gate": ..., "head": ...}`. The state is `{"shared": ..., "tasks": {k: ...}}` of the same
    form. With equal gates this is the mixture with one gate (OMoE); with one expert it is `hard`.

    For a subset of the tasks, the model runs all experts, but only these tasks' gates and heads. `encode` returns what
    all gates and heads read: `{"experts": [f(x) stacked to [B, E, ...]], "inputs": x}`. With `TaskInputs` the experts
    run once per task, on that task's inputs.

    Gates and mixtures are computed in float32 at least; features keep the experts' dtype.

    Args:
        expert: network from inputs `[B, ...]` to features, any pytree `[B, ...]`; or a sequence of different networks,
            whose features have the same structure, shape and dtype.
        heads: network from the mixed features to outputs, by task name.
        num_experts: E, the number of experts that are copies of `expert`, each with its own initial values; needed if
            `expert` is one network.
        gate: network from inputs to logits `[B, E]`; each task gets a copy with its own initial values. None:
            `W_k^T x`, for inputs `[B, d]`. The default gate never flattens an image: give a gate that says what it
            reads, or an encoder.
        encoder: network whose output experts and gates read in place of the inputs; None for the inputs themselves.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None.

    References:
        Ma, Zhao, Yi, Chen, Hong and Chi, "Modeling Task Relationships in Multi-task Learning with Multi-gate
        Mixture-of-Experts", KDD 2018, section 4. The paper does not give initial values of gates; the default gates
        start from a truncated normal distribution of variance 1 / d.

    Example:
        >>> import jax.numpy as jnp
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = mmoe(dense(8), {"depth": dense(1), "label": dense(10)}, num_experts=4)
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((2, 3)))
        >>> params.tasks["label"]["gate"].shape
        (3, 4)
        >>> outputs, state = jax.eval_shape(model.apply, params, state, jnp.ones((2, 3)))
        >>> jax.tree.map(jnp.shape, outputs)
        {'depth': (2, 1), 'label': (2, 10)}
    """
    names, networks, banks = heads_of("mmoe", heads)
    experts = expert_list("mmoe", expert, num_experts)
    gate = gate_or_linear("mmoe", gate, len(experts))

    def trunk(run: Run, inputs: PyTree) -> PyTree:
        return {"experts": run_experts("mmoe", run, ("expert", experts, inputs)), "inputs": inputs}

    def branch(run: Run, name: str, features: PyTree, *, key: Key | None, train: bool) -> Any:
        logits = logits_of("mmoe", run, "gate", gate, features["inputs"], len(experts))
        mixture = mix_experts("mmoe", jax.nn.softmax(logits), features["experts"])
        return run("head", networks[name], mixture)

    return assemble("mmoe", names, trunk, branch, encoder=encoder, banks=banks)

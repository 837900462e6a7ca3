"""Multi-gate mixture of experts: all tasks share the experts, each mixes them with a gate of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mtljax.sharing.frames.experts import Run, assemble, expert_list, gate_or_linear, logits_of, mix, run_experts
from mtljax.sharing.frames.network import Network, check_heads
from mtljax.types import Key, Model, PyTree


def mmoe(
    expert: Network | Sequence[Network],
    heads: Mapping[str, Network],
    *,
    num_experts: int | None = None,
    gate: Network | None = None,
    encoder: Network | None = None,
) -> Model:
    """Experts that all tasks share; each task's head reads a mixture of them, by a gate of its own.

        outputs_k = head_k(sum_i g_k(x)_i f_i(x)),   g_k(x) = softmax(W_k^T x)

    Experts `f_i` and the encoder are `Params.shared`, gate and head k are `Params.tasks[k]`; each is a dict by block:
    `{"encoder": ..., "expert/0": ..., ...}` and `{"gate": ..., "head": ...}`. The state is
    `{"shared": ..., "tasks": {k: ...}}` of the same form. With equal gates this is the mixture with one gate (OMoE);
    with one expert it is `hard`.

    Asked for some tasks only, the model runs all experts, but the gates and heads of those tasks alone. `encode` gives
    what all gates and heads read: `{"experts": [f(x) stacked to [B, E, ...]], "inputs": x}`. With `TaskInputs` the
    experts run once for each task, on its own inputs.

    Gates are computed in float32 at least and mixtures summed in it; the features keep the experts' dtype.

    Ma, Zhao, Yi, Chen, Hong and Chi, "Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts", KDD 2018, section 4. The paper does not say where gates start: the default ones start at
    truncated normal values of variance 1 / d.

    Args:
        expert: network from inputs `[B, ...]` to features, any pytree `[B, ...]`; or several, of different make, whose
            features have one form.
        heads: network from the mixed features to outputs, by task name.
        num_experts: E, how many experts are made of one network, each from values of its own; needed with one network.
        gate: network from inputs to logits `[B, E]`; each task gets one from values of its own. None: `W_k^T x`, for
            inputs `[B, d]`. An image is never flattened for it: give a gate that says what it reads, or an encoder.
        encoder: network that experts and gates read in place of the inputs; None for the inputs themselves.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None.

    Raises:
        TypeError: a task name that is not a string, an expert that is not a `Network`; from `init`, inputs that the
            default gate cannot read.
        ValueError: no heads, no experts, a number of experts that does not fit; from `init`, inputs that are not
            `[B, d]` without a gate; logits that are not `[B, E]`; experts whose features differ in form; from `apply`,
            an unknown task.

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
    names = check_heads("mmoe", heads)
    experts = expert_list("mmoe", expert, num_experts)
    gate = gate_or_linear("mmoe", gate, len(experts))

    def trunk(run: Run, inputs: PyTree) -> PyTree:
        return {"experts": run_experts("mmoe", run, ("expert", experts, inputs)), "inputs": inputs}

    def branch(run: Run, name: str, features: PyTree, *, key: Key | None, train: bool) -> Any:
        logits = logits_of("mmoe", run, "gate", gate, features["inputs"], len(experts))
        mixture = mix("mmoe", jax.nn.softmax(logits), features["experts"])
        return run("head", heads[name], mixture)

    return assemble("mmoe", names, trunk, branch, encoder=encoder)

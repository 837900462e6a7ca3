"""DSelect-k: a mixture of experts whose gates select k experts and stay differentiable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.checks import check_count, check_flag, check_nonnegative, check_number, is_zero
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
from mtljax.trees import accumulator
from mtljax.types import Array, Key, Model, PyTree, Regularized


def dselect_k(
    expert: Network | Sequence[Network],
    heads: Mapping[str, Network | Bank],
    *,
    num_experts: int | None = None,
    num_selected: int = 2,
    gamma: Array | float = 1.0,
    entropy: Array | float = 0.01,
    per_example: bool = False,
    gate: Network | None = None,
    encoder: Network | None = None,
) -> Model:
    r"""All tasks share the experts; each task's gate learns to select k of them, by gradients alone.

    A selector names one of E experts by m = ceil(log2 E) bits. Each bit is the smooth step S of a number z:

        outputs_k = head_k(sum_i q_i f_i(x)),   q = sum_l softmax(alpha)_l r(z_l),   l = 1 ... k
        r(z)_i = prod_{j: bit j of i is 1} S(z_j) prod_{j: bit j of i is 0} (1 - S(z_j)),   i = 0 ... 2^m - 1
        S(t) = 0 below -gamma/2,   1 above gamma/2,   -2 t^3 / gamma^3 + 3 t / (2 gamma) + 1/2 between
        loss_k += entropy * mean_b sum_l h(r(z_l)),   h(r) = -sum_i r_i log r_i

    S is exactly 0 or 1 outside its slope. A selector whose z all lie outside gives one expert the weight 1 and the
    others exactly 0, so that each example uses at most k experts. The entropy term drives selectors to this. It belongs
    to the loss of task k (`Regularized`) and is present in training only. A bit outside the slope has no gradient, so a
    static gate keeps it from then on.

    By default gates are static, with one choice for the whole task: alpha `[k]` and z `[k, m]` are parameters. With
    `per_example` they are functions of the input: alpha = G^T x, z_l = W_l^T x.

    **E that is not a power of two.** Some codes then name no expert. The paper adds the penalty sum_l 1 / sum_{i < E}
    r_i to keep selectors away from these codes. For a selector that reaches one, this penalty is infinite and its
    gradient vanishes; and to renormalise its weights is to divide 0 by 0. Here code E + i names expert i again. So
    every code names an expert, weights always sum to 1, and no penalty is needed. Experts with two codes start with
    twice the weight.

    Experts and encoder are in `Params.shared`, `{"encoder": ..., "expert/0": ..., ...}`; gate and head k are in
    `Params.tasks[k]`, `{"gate": ..., "head": ...}`. The state is `{"shared": ..., "tasks": {k: ...}}` of the same form.
    Shapes are fixed: all experts run, whatever the gates select. For a subset of the tasks, all experts run, but only
    these tasks' gates and heads. `encode` returns `{"experts": [f(x) stacked to [B, E, ...]], "inputs": x}`. With
    `TaskInputs` the experts run once per task.

    Gates and mixtures are computed in float32 at least; features keep the experts' dtype.

    Args:
        expert: network from inputs `[B, ...]` to features, any pytree `[B, ...]`; or a sequence of different networks,
            whose features have the same structure, shape and dtype.
        heads: network from the mixed features to outputs, by task name.
        num_experts: E, the number of experts that are copies of `expert`; needed if `expert` is one network.
        num_selected: k, the number of selectors, from 1 to E; two selectors may select the same expert.
        gamma: width of the smooth step's slope, positive; may be traced. A smaller width selects sooner.
        entropy: strength of the entropy term, from 0, in units of the loss; may be traced. The paper tunes it; in the
            authors' code the default is 0.
        per_example: whether experts are selected per example.
        gate: with `per_example`, network from inputs to `[B, k (1 + m)]`: alpha, then z_1 to z_k. None: linear, for
            inputs `[B, d]`. The default gate never flattens an image.
        encoder: network whose output experts and gates read in place of the inputs; None for the inputs themselves.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None. With `train=True` and `entropy > 0` its outputs are
        `Regularized`.

    Raises:
        ValueError: a gate is given where `per_example` is False.

    References:
        Hazimeh, Zhao, Chowdhery, Sathiamoorthy, Chen, Mazumder, Hong and Chi, "DSelect-k: Differentiable Selection in
        the Mixture of Experts with Applications to Multi-Task Learning", NeurIPS 2021. As in the authors' code
        (google-research, dselect_k_moe), z (or W) starts uniform in +-gamma/100, where all codes have about the same
        weight. Departures: codes beyond E name an expert, as above. alpha (or G) starts at 0; in the authors' code it
        starts uniform in +-0.05. Their gates per example also have biases. They sum the entropies over a batch's
        examples; here it is their mean, so that the strength suits any batch size.

    Example:
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = dselect_k(dense(8), {"depth": dense(1), "label": dense(10)}, num_experts=8)
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((2, 3)))
        >>> jax.tree.map(jnp.shape, params.tasks["label"]["gate"])
        {'alpha': (2,), 'z': (2, 3)}
    """
    names, networks, banks = heads_of("dselect_k", heads)
    experts = expert_list("dselect_k", expert, num_experts)
    count = len(experts)
    bits, k = (count - 1).bit_length(), check_count("dselect_k", "num_selected", num_selected, most=count)
    check_number("dselect_k", "gamma", gamma, above=0)
    check_nonnegative("dselect_k", "entropy", entropy)
    check_flag("dselect_k", "per_example", per_example)
    if gate is not None and not per_example:
        raise ValueError("dselect_k: per_example must be True where a gate is given, found False")

    def start(key: Key, shape: tuple[int, ...], dtype: Any) -> Array:
        """Initial values of the linear gate: zeros for alpha, small values for z."""
        z = jax.random.uniform(key, (shape[0], k * bits), dtype, -gamma / 100, gamma / 100)
        return jnp.concatenate([jnp.zeros((shape[0], k), dtype), z], axis=1)

    size = k * (1 + bits)
    choice = gate_or_linear("dselect_k", gate, size, init=start) if per_example else _static(k, bits, gamma)

    def trunk(run: Run, inputs: PyTree) -> PyTree:
        return {"experts": run_experts("dselect_k", run, ("expert", experts, inputs)), "inputs": inputs}

    def branch(run: Run, name: str, features: PyTree, *, key: Key | None, train: bool) -> Any:
        if per_example:
            logits = logits_of("dselect_k", run, "gate", choice, features["inputs"], size)
            alpha, z = logits[:, :k], logits[:, k:].reshape(logits.shape[0], k, bits)
        else:
            alpha, z = run("gate", choice, features["experts"])
        selectors = _selectors(z, count, gamma)
        weights = jnp.sum(jax.nn.softmax(alpha)[:, :, None] * selectors, axis=1)
        if not per_example:
            examples = jax.tree.leaves(features["experts"])[0].shape[0]
            weights = jnp.broadcast_to(weights, (examples, count))
        outputs = run("head", networks[name], mix_experts("dselect_k", weights, features["experts"]))
        if not train or is_zero(entropy):
            return outputs
        return Regularized(outputs, entropy * jnp.mean(jnp.sum(_entropy(selectors), axis=1)))

    return assemble("dselect_k", names, trunk, branch, encoder=encoder, banks=banks)


def _static(k: int, bits: int, gamma: Array | float) -> Network:
    """The static gate: a network that returns its parameters for any inputs, alpha `[1, k]` and z `[1, k, m]`."""

    def init(key: Key, inputs: PyTree) -> tuple[PyTree, tuple[()]]:
        dtype = accumulator(jax.tree.leaves(inputs)[0].dtype)
        z = jax.random.uniform(key, (k, bits), dtype, -gamma / 100, gamma / 100)
        return {"alpha": jnp.zeros(k, dtype), "z": z}, ()

    def apply(
        params: PyTree, state: PyTree, inputs: PyTree, *, key: Key | None = None, train: bool = False
    ) -> tuple[tuple[Array, Array], PyTree]:
        alpha, z = params["alpha"], params["z"]
        return (alpha.astype(accumulator(alpha.dtype))[None], z.astype(accumulator(z.dtype))[None]), state

    return Network(init, apply)


def _smooth_step(t: Array, gamma: Array | float) -> Array:
    """S(t), with u = t / gamma: the cubic -2 u^3 + 3 u / 2 + 1 / 2, whose slope is 0 at both ends u = +-1/2."""
    u = jnp.clip(t / gamma, -0.5, 0.5)
    return (1.5 - 2 * u * u) * u + 0.5


def _selectors(z: Array, count: int, gamma: Array | float) -> Array:
    """Weights of the experts `[B, k, E]` by each selector, from its bits z `[B, k, m]`."""
    step = _smooth_step(z, gamma)
    weights = jnp.ones((*z.shape[:-1], 1), z.dtype)
    for bit in range(z.shape[-1]):
        one = step[..., bit : bit + 1]
        weights = jnp.concatenate([weights * (1 - one), weights * one], axis=-1)
    spare = weights.shape[-1] - count  # codes without an expert of their own: code E + i names expert i again
    again = jnp.pad(weights[..., count:], ((0, 0),) * (weights.ndim - 1) + ((0, count - spare),))
    return weights[..., :count] + again


def _entropy(weights: Array) -> Array:
    """-sum_i r_i log r_i over the last axis. Terms at r = 0 are 0, and so is their derivative by z."""
    inside = jnp.where(weights > 0, weights, 1.0)
    return -jnp.sum(inside * jnp.log(inside), axis=-1)

"""Adaptive task-to-task fusion: each task mixes the experts of all tasks, and adds its own experts as a residual."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtljax.sharing.frames.experts import Run, assemble, logits_of, mix_experts, run_experts
from mtljax.sharing.frames.network import Network, check_heads
from mtljax.sharing.ple import Experts, gate_of, levels_of
from mtljax.types import Array, Key, Model, PyTree


def adatt(
    levels: Sequence[Network | Experts],
    heads: Mapping[str, Network],
    *,
    num_shared: int = 0,
    num_specific: int | Mapping[str, int] = 1,
    gate: Callable[[int], Network] | None = None,
    encoder: Network | None = None,
) -> Model:
    """Levels of experts per task; each task adds a gated mixture of all experts to a linear mixture of its own experts.

    `E_kj(z)` are the m_k native experts of task k at level j, and `x_k0 = x`:

        x_kj = sum_i g_kj(x_k,j-1)_i [E_1j(x_1,j-1), ..., E_Tj(x_T,j-1)]_i + sum_i v_kj,i E_kj(x_k,j-1)_i
        outputs_k = head_k(x_kL),   g(z) = softmax(W^T z)

    `v_kj` `[m_k]` is trained and starts at 1 / m_k; a single native expert has weight 1, without a parameter. This is
    AdaTT-sp. With shared experts it is the general AdaTT. The shared experts form one more unit `s`, with its own
    experts, gate and native weights, like a task. The tasks' gates mix the shared experts too, which come last. The
    unit `s` has no fusion at the last level, since nothing would read the result.

    `Params.shared` holds all experts, since each task mixes the experts of all tasks (`"level0/task/depth/0"`,
    `"level0/shared/0"`). It also holds the gates and native weights below the last level (`"level0/gate/depth"`,
    `"level0/native/depth"`; for the shared unit `"level0/gate"` and `"level0/native"`), and the encoder.
    `Params.tasks[k]` holds task k's gate and native weights of the last level (`"level1/gate"`, `"level1/native"`) and
    its head. The state is `{"shared": ..., "tasks": {k: ...}}` of the same form.

    For a subset of the tasks, the model runs all experts, since each task mixes them all, but only the last gates and
    the heads of these tasks. `encode` returns the outputs of the last level's experts and the inputs of the last gates.
    With `TaskInputs` the levels run once per task, all experts on that task's inputs.

    Gates and mixtures are computed in float32 at least; features keep the experts' dtype.

    Args:
        levels: one entry per level, lowest first: a network, of which all experts of the level are copies with their
            own initial values; or `Experts`, if the experts differ. Level j reads the output of level j - 1, any pytree
            `[B, ...]`. The experts of one level return features of the same structure, shape and dtype.
        heads: network from the last level's fused features to outputs, by task name.
        num_shared: number of shared experts at each level given as one network, from 0, which is AdaTT-sp.
        num_specific: number of native experts per task at such a level, from 1; one number, or a dict by task name.
        gate: `gate(n)` makes the network from a gate's inputs to logits `[B, n]` for all n experts of its level, in
            task order, the shared ones last. None: `W^T z`, for z `[B, d]`. The default gate never flattens an image.
        encoder: network whose output the first level and its gates read in place of the inputs; None for the inputs
            themselves.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None.

    Raises:
        ValueError: a task has no native expert at some level.

    References:
        Li, Zhang, Yuan, Gao, Zhang, Yang, Liu and Yang, "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask
        Learning in Recommendations", KDD 2023. Departures: native weights start at 1 / m_k, so that one native expert
        and several start alike. In the authors' code (facebookresearch/AdaTT) they start uniform in +-1 / sqrt(m_k).
        There, the weight of a single native expert is trained too if there are shared experts and any unit has several
        experts, and gates have biases.

    Example:
        >>> import jax.numpy as jnp
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> model = adatt([dense(8), dense(4)], {"depth": dense(1), "label": dense(10)}, num_specific=2)
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((2, 3)))
        >>> params.tasks["label"]["level1/gate"].shape, params.tasks["label"]["level1/native"].shape
        ((8, 4), (2,))
    """
    names = check_heads("adatt", heads)
    experts = levels_of("adatt", levels, names, num_shared, num_specific)
    for index, level in enumerate(experts):
        for name in names:
            if not level.specific[name]:
                raise ValueError(f"adatt: level {index} must have a native expert of task {name!r}, found none")
    # The shared unit fuses below the last level that has shared experts, since only these read it.
    meet = max((index for index, level in enumerate(experts) if level.shared), default=-1)

    def fuse(run: Run, index: int, unit: int, suffix: str, inputs: PyTree, stacks: list[PyTree]) -> PyTree:
        """Fusion unit number `unit`: the tasks in order, then the shared one. Both sums are computed as one mixture."""
        sizes = [len(experts[index].specific[name]) for name in names] + [len(experts[index].shared)]
        total, native, first = sum(sizes), sizes[unit], sum(sizes[:unit])
        network = gate_of("adatt", gate, total)
        weights = jax.nn.softmax(logits_of("adatt", run, f"level{index}/gate{suffix}", network, inputs, total))
        if native > 0:
            own = run(f"level{index}/native{suffix}", _native(native), weights) if native > 1 else jnp.ones(1)
            weights = weights + jnp.pad(own.astype(weights.dtype), (first, total - first - native))[None, :]
        return mix_experts("adatt", weights, stacks)

    def trunk(run: Run, inputs: PyTree) -> PyTree:
        own, common, stacks = dict.fromkeys(names, inputs), inputs, []
        for index, level in enumerate(experts):
            if index > 0:
                common = fuse(run, index - 1, len(names), "", common, stacks) if index <= meet else common
                own = {
                    name: fuse(run, index - 1, unit, f"/{name}", own[name], stacks) for unit, name in enumerate(names)
                }
            groups = [(f"level{index}/task/{name}", level.specific[name], own[name]) for name in names]
            stacks = run_experts("adatt", run, *groups, (f"level{index}/shared", level.shared, common))
        return {"inputs": own, "stacks": stacks}

    def branch(run: Run, name: str, features: PyTree, *, key: Key | None, train: bool) -> Any:
        unit = names.index(name)
        fused = fuse(run, len(experts) - 1, unit, "", features["inputs"][name], features["stacks"])
        return run("head", heads[name], fused)

    return assemble("adatt", names, trunk, branch, encoder=encoder)


def _native(size: int) -> Network:
    """The trained weights of a task's native experts, `[size]`, as a network that returns them."""

    def init(key: Key, inputs: Array) -> tuple[Array, tuple[()]]:
        return jnp.full(size, 1 / size, inputs.dtype), ()

    def apply(
        weights: Array, state: PyTree, inputs: PyTree, *, key: Key | None = None, train: bool = False
    ) -> tuple[Array, PyTree]:
        return weights, state

    return Network(init, apply)

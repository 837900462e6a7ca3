"""Customized gate control: one level of experts, some per task and some shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mtljax.sharing.frames.network import Network
from mtljax.sharing.ple import Experts, extraction
from mtljax.types import Model


def cgc(
    expert: Network | Experts,
    heads: Mapping[str, Network],
    *,
    num_shared: int = 1,
    num_specific: int | Mapping[str, int] = 1,
    gate: Callable[[int], Network] | None = None,
    encoder: Network | None = None,
) -> Model:
    """Task-specific experts and shared experts; each task's gate mixes its own experts with the shared ones.

        outputs_k = head_k(sum_i g_k(x)_i [E_k(x), E_s(x)]_i),   g_k(x) = softmax(W_k^T x)

    `cgc` is `ple` with one level, so it has no shared gate. With one shared expert and no task-specific experts it is
    `hard`; with several shared experts and no task-specific ones it is `mmoe`.

    `Params.shared` is `{"encoder": ..., "level0/shared/0": ...}`, the encoder and the shared experts;
    `Params.tasks[k]` is `{"level0/expert/0": ..., "level0/gate": ..., "head": ...}`. The state is
    `{"shared": ..., "tasks": {k: ...}}` of the same form.

    For a subset of the tasks, the model runs the encoder, the shared experts, and only these tasks' own experts, gates
    and heads. `encode` returns what those read: the encoded inputs and the outputs of the shared experts. With
    `TaskInputs` the shared experts run once per task, on that task's inputs.

    Args:
        expert: network from inputs `[B, ...]` to features, any pytree, of which all experts are copies with their own
            initial values; or `Experts`, if the experts differ.
        heads: network from the mixed features to outputs, by task name.
        num_shared: number of shared experts if `expert` is one network, from 0.
        num_specific: number of experts per task in that case, from 0; one number, or a dict by task name.
        gate: `gate(n)` makes the network from inputs to logits `[B, n]` of a gate over n experts: the task's own, then
            the shared ones. None: `W_k^T x`, for inputs `[B, d]`. The default gate never flattens an image.
        encoder: network whose output experts and gates read in place of the inputs; None for the inputs themselves.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None.

    References:
        Tang, Liu, Zhao and Gong, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for
        Personalized Recommendations", RecSys 2020, section 4.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def dense(size):
        ...     def init(key, x):
        ...         return jax.random.normal(key, (x.shape[-1], size)), ()
        ...     return Network(init, lambda w, state, x, *, key=None, train=False: (x @ w, state))
        >>> heads = {"depth": dense(1), "label": dense(10)}
        >>> model = cgc(dense(8), heads, num_shared=2, num_specific={"depth": 1, "label": 3})
        >>> params, state = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((2, 3)))
        >>> params.tasks["depth"]["level0/gate"].shape, params.tasks["label"]["level0/gate"].shape
        ((3, 3), (3, 5))
    """
    return extraction("cgc", [expert], heads, num_shared, num_specific, gate, encoder)

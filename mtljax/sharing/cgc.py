"""Customised gate control: experts of each task's own beside shared ones, at one level."""

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
    """Experts of each task's own beside experts that all share; each task's gate mixes its own with the shared.

        outputs_k = head_k(sum_i g_k(x)_i [E_k(x), E_s(x)]_i),   g_k(x) = softmax(W_k^T x)

    It is `ple` with one level, and so has no shared gate. With one shared expert and none of the tasks' own it is
    `hard`; with shared experts alone it is `mmoe`.

    `Params.shared` is `{"encoder": ..., "level0/shared/0": ...}`, the encoder and the shared experts;
    `Params.tasks[k]` is `{"level0/expert/0": ..., "level0/gate": ..., "head": ...}`. The state is
    `{"shared": ..., "tasks": {k: ...}}` of the same form.

    Asked for some tasks only, the model runs encoder and shared experts, but the own experts, gates and heads of those
    tasks alone. `encode` gives what they read: the encoded inputs and the shared experts' outputs. With `TaskInputs`
    the shared experts run once for each task, on its own inputs.

    Tang, Liu, Zhao and Gong, "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model for Personalized
    Recommendations", RecSys 2020, section 4.

    Args:
        expert: the network that all experts are made of, from inputs `[B, ...]` to features, any pytree; or `Experts`,
            where they differ.
        heads: network from the mixed features to outputs, by task name.
        num_shared: how many shared experts are made of one network, from 0.
        num_specific: how many experts of its own each task has, from 0; or by task name.
        gate: `gate(n)` makes the network from inputs to logits `[B, n]`, for a gate over n experts: the task's own,
            then the shared. None: `W_k^T x`, for inputs `[B, d]`. An image is never flattened for it.
        encoder: network that experts and gates read in place of the inputs; None for the inputs themselves.

    Returns:
        `Model` with `encode` and `decode`; its `penalty` is None.

    Raises:
        TypeError, ValueError: as `ple`.

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

"""Log_losses: any method on the logarithms of the losses."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from mtljax.checks import check_losses, check_method_of_evidence, check_number
from mtljax.methods.wrappers.common import refuse_pick
from mtljax.methods.wrappers.scaled import scale_tasks
from mtljax.types import Array, Method

TINY = 2.0**-126


def log_losses(method: Method, *, eps: float = 1e-8) -> Method:
    """A method reads `log(L_k + eps)` in place of `L_k`, so that it compares relative changes of losses.

    The method reads gradients `g_k / (L_k + eps)` and losses `log(L_k + eps)`. Where it returns weights w of these, the
    weights of the plain gradients are `w_k / (L_k + eps)`. The update does not change where a loss is measured in
    another unit, as long as eps is small relative to the loss.

    Args:
        method: any but one that reads one task's gradient per step, which is chosen before losses are seen, or one that
            takes logarithms or ratios of losses itself, which logarithms, being negative, are not for.
        eps: added to the losses, at least 0, default 1e-8. With 0 the losses' unit does not matter at all.

    Returns:
        `Method` that reads what `method` reads; `update` needs `losses` whatever it reads.

    Raises:
        ValueError: the method reads one task's gradient per step, or takes logarithms or ratios of losses itself; from
            `update`, losses are None.

    References:
        A. Navon, A. Shamsian, I. Achituve, H. Maron, K. Kawaguchi, G. Chechik, E. Fetaya (2022), "Multi-task
        learning as a bargaining game", ICML, arXiv 2202.01017, whose scale-invariant baseline is
        `log_losses(equal())`.
        B. Liu, Y. Feng, P. Stone, Q. Liu (2023), "FAMO: fast adaptive multitask optimization", NeurIPS, arXiv
        2306.03792, with its LOG_MGDA and LOG_CAGrad.
        Departures: a task whose `L_k + eps` is 0 is inactive for the step; losses must not be negative. Heads: a
        method that reads task gradients leaves them the gradient of the logarithm, `1 / (L_k + eps)` times their
        own (times the method's weight where it weighs heads). One that reads the Gramian multiplies them by the
        weight above, or leaves them the plain gradient where it does not weigh heads; the reference's heads get the
        logarithm's.
        nash-mtl's LOG_MGDA and LOG_CAGrad: the default eps.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> method = log_losses(mtljax.methods.equal())
        >>> print(method.update(jnp.array([1.0, 4.0]), method.init(2))[0])
        [1.   0.25]
    """
    check_method_of_evidence("log_losses", "method", method)
    check_number("log_losses", "eps", eps, least=0)
    refuse_pick("log_losses", method, "since a task is picked before its loss is known")
    if method.least_loss is not None:
        raise ValueError(
            f"log_losses: method must be one that takes negative losses, as logarithms are, found '{method.name}'"
        )
    name = f"log_losses({method.name})"

    def factors(evidence: Any, losses: Array | None, active: Array) -> tuple[Array, Array]:
        values = evidence if method.reads == "losses" else losses
        values = check_losses(name, values, active.shape[0])
        shifted = values.astype(jnp.float32) + eps
        mask = active & (shifted > 0)
        return 1.0 / jnp.where(mask, shifted, 1.0), mask

    def see(losses: Array) -> Array:
        return jnp.log(jnp.maximum(losses.astype(jnp.float32) + eps, TINY))

    return scale_tasks(
        method, name, factors, see, weigh_tasks=True if method.reads == "task_grads" else None, least_loss=0.0
    )

"""Normalize: every task's gradient has length 1."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from mtljax import trees
from mtljax.checks import check_method_of_evidence
from mtljax.methods.checked import checked
from mtljax.methods.rows import row_norms
from mtljax.methods.wrappers.common import refuse_losses, tree_norm
from mtljax.methods.wrappers.scaled import scale_tasks
from mtljax.types import Array, Method, MethodState, PyTree


def normalize(method: Method) -> Method:
    """Divide every task's gradient by its norm before a method reads it.

    The update is in units of normalised gradients: where the method decides weights w, those of the plain gradients are
    `w_k / |g_k|`, and the update stays as it is when a task's loss is multiplied by a positive number. The update does
    not become shorter as gradients do; `rescale` gives it a length. A zero gradient has no direction and stays zero.

    Args:
        method: reads "gramian" or "task_grads".

    Returns:
        `Method` that reads what `method` reads. Where the method weighs heads, so does this, by `w_k / |g_k|`.

    Raises:
        ValueError: the method reads losses only.

    References:
        O. Sener, V. Koltun (2018), "Multi-task learning as multi-objective optimization", NeurIPS, arXiv
        1810.04650, whose code normalises like this before MGDA (`gradient_normalizers`, "l2").

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> jacobian = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
        >>> print(mtljax.aggregate(normalize(mtljax.methods.mgda()), jacobian).round(4))
        [0.0153 0.199  0.199 ]
    """
    check_method_of_evidence("normalize", "method", method)
    refuse_losses("normalize", method)
    name = f"normalize({method.name})"
    if method.pick is not None:
        return _picked(method, name)

    def factors(evidence: Any, losses: Array | None, active: Array) -> tuple[Array, Array]:
        if method.reads == "gramian":
            length = trees.norms(evidence).astype(jnp.float32)
        else:
            length = row_norms(evidence, active.shape[0])
        return 1.0 / jnp.where(length > 0, length, 1.0), active

    return scale_tasks(method, name, factors, unit_free=True)


def _picked(method: Method, name: str) -> Method:
    """The same for a method that reads one task's gradient per step."""

    def update(evidence: PyTree, state: MethodState, **rest: Any) -> tuple[PyTree, MethodState]:
        length = tree_norm(evidence)
        return method.update(trees.scale(1.0 / jnp.where(length > 0, length, 1.0), evidence), state, **rest)

    return checked(method._replace(update=update, name=name))

"""AdaTask: every task has its own moments on the shared parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mtljax.checks import check_optimizer
from mtljax.methods.from_jacobian.common import method_of_gradients, zero_rows
from mtljax.methods.rows import sum_over_tasks
from mtljax.participation import held, rows_of
from mtljax.types import Array, Key, Method, PyTree


def adatask(optimizer: optax.GradientTransformation) -> Method:
    """Adaptive learning rates for each task: the optimiser runs once per task, and the updates are summed.

    Adam's moments of a summed gradient are dominated by the task with the largest gradients. Here every task has
    moments, and so a learning rate, of its own:

        m_k <- b1 m_k + (1 - b1) g_k,    v_k <- b2 v_k + (1 - b2) g_k^2,
        update = sum_k m^_k / (sqrt(v^_k) + eps).

    This is `adatask(optax.scale_by_adam())`. Any other `optax.scale_by_...` or `optax.trace` works too: a
    transformation that keeps the sign of the gradient. An optimiser with a learning rate inside, such as
    `optax.adam(1e-3)`, does not: it has changed the sign already. The learning rate, its schedule, weight decay and
    clipping belong to the optimiser of the training step: `optax.sgd(1e-3)` for the shared parameters makes the step
    `-1e-3 sum_k m^_k / (sqrt(v^_k) + eps)`. Task-specific parameters get their plain gradients, so give them the
    adaptive optimiser themselves, as in the example.

    Args:
        optimizer: transformation of one task's gradient, entry by entry or not. It sees float32 at least, and no
            parameters.

    Returns:
        `Method` that reads task gradients, leaves `[T, *p]`. State: the optimiser's, with a leading task axis on every
        leaf, counts included: moments of an inactive task are held, and corrected for its own steps. `weights` are 1
        for active tasks: task-specific gradients are left alone. `state.residual` is 0.

    Raises:
        ValueError: from `init`, `shared` is None.

    References:
        E. Yang, J. Pan, X. Wang, H. Yu, L. Shen, X. Chen, L. Xiao, J. Jiang, G. Guo (2023), "AdaTask: a task-aware
        adaptive learning rate approach to multi-task learning", AAAI, arXiv 2211.15055. The authors' code: as in
        the example.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> method = adatask(optax.scale_by_adam())
        >>> rows = jnp.array([[100.0, 100.0], [1.0, 2.0]])
        >>> print(method.update(rows, method.init(2, rows[0]))[0].round(4))
        [2. 2.]

        The whole step as in the paper:

        >>> labels = mtljax.Params(shared="shared", tasks="own")
        >>> optimizer = optax.partition({"shared": optax.sgd(1e-3), "own": optax.adam(1e-3)}, labels)
    """
    check_optimizer("adatask", "optimizer", optimizer)

    def inner(num_tasks: int, shared: PyTree) -> PyTree:
        return jax.vmap(optimizer.init)(zero_rows("adatask", num_tasks, shared))

    def rule(rows: PyTree, active: Array, inner: PyTree, *, losses: Array | None, key: Key | None):
        directions, moved = jax.vmap(lambda gradient, state: optimizer.update(gradient, state))(rows, inner)
        directions = rows_of(active, directions)
        update = jax.tree.map(lambda leaf: sum_over_tasks(lambda row: row, leaf), directions)
        return update, jnp.ones(active.shape, jnp.float32), held(moved, inner, active)

    return method_of_gradients("adatask", rule, inner=inner)

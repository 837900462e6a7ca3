"""M-ConFIG: the conflict-free direction of momenta, with one backward pass per step."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mtljax import ranges, trees
from mtljax.checks import check_number
from mtljax.methods.checked import checked
from mtljax.methods.common import initial_state, mask_of
from mtljax.methods.from_gramian.config import config
from mtljax.methods.from_jacobian.common import zero_rows
from mtljax.methods.rows import widened
from mtljax.participation import rows_of
from mtljax.solvers.scaling import as_float32
from mtljax.trees import along
from mtljax.types import Array, Key, Method, MethodState, PyTree


class MConFIGState(NamedTuple):
    """State of M-ConFIG.

    Attributes:
        moment: leaves `[T, *p]`, float32 at least: the moving average of every task's gradient.
        combined: leaves `[*p]`, float32 at least: the moving average of the update.
        steps: int32 `[T]`, how often each task's gradient was read.
        count: int32 `[]`, how often any was.
        turn: int32 `[]`, the task whose turn it is.
    """

    moment: PyTree
    combined: PyTree
    steps: Array
    count: Array
    turn: Array


def m_config(*, beta: float = 0.9) -> Method:
    """Conflict-free inverse gradients of momenta.

    Tasks take turns: a step reads the gradient of one task, i, and combines the moving averages of all that have had a
    turn,

        m_i <- beta m_i + (1 - beta) g_i,    m^_k = m_k / (1 - beta^s_k),
        u = U^+ 1,    d = (sum_k <m^_k, u / |u|>) u / |u|,

    where the rows of U are the `m^_k` brought to length 1 and `s_k` counts k's turns. d has the same positive cosine
    with every momentum, as far as they are linearly independent. The update is the pseudo-gradient, whose moving
    average is d,

        c = (1 - beta^s) d,    update = (c - beta c_old) / (1 - beta),    s = sum_k s_k.

    The optimizer of the training step should be `optax.adam(learning_rate, b1=beta)`, as in the paper: Adam's first
    moment is then c, its corrected first moment is d, and its second moment is that of the pseudo-gradients. Another
    optimizer should have momentum `beta`, too (`optax.sgd(learning_rate * (1 - beta), momentum=beta)` steps along c);
    without one, the pseudo-gradient varies `1 / (1 - beta)` times as much as d.

    Args:
        beta: share of the past in the momenta, in [0, 1), default 0.9.

    Returns:
        `Method` that reads one task's gradient per step (`pick`), a tree like the shared parameters, thus one backward
        pass through them. State: (T + 1) x P, float32. Weights are float32 `[T]`, those of the momenta in d, so 0 for a
        task that has not had a turn yet; task-specific gradients are left alone. `state.residual` is as in `config`.

    Raises:
        ValueError: from `init`, `shared` is None.

    References:
        Q. Liu, M. Chu, N. Thuerey (2025), "ConFIG: towards conflict-free training of physics informed neural
        networks", ICLR, arXiv 2408.11104, algorithm 2. Departures: while tasks have their first turns, the momenta of
        tasks that had a turn are combined; the authors' code returns zero updates meanwhile. An inactive task loses its
        turn; its momentum is held and is not part of d. The authors' code (`PseudoMomentumOperator`) returns Adam's
        step, to be used with SGD: `m_config()` followed by `optax.scale_by_adam()`.

    Example:
        >>> import jax.numpy as jnp
        >>> method = m_config()
        >>> state = method.init(2, jnp.zeros(2))
        >>> rows = jnp.array([[1.0, 0.0], [0.0, 2.0]])
        >>> for _ in range(2):
        ...     update, state = method.update(rows[method.pick(state)], state)
        >>> print(state.weights.round(4), state.inner.turn)
        [1.5  0.75] 0
    """
    check_number("m_config", "beta", beta, least=0, below=1)
    conflict_free = config()

    def init(num_tasks: int, shared: PyTree = None) -> MethodState:
        state = initial_state(num_tasks)
        inner = MConFIGState(
            moment=zero_rows("m_config", num_tasks, shared),
            combined=jax.tree.map(lambda leaf: leaf[0], zero_rows("m_config", 1, shared)),
            steps=jnp.zeros((num_tasks,), jnp.int32),
            count=jnp.zeros((), jnp.int32),
            turn=jnp.zeros((), jnp.int32),
        )
        return state._replace(inner=inner)

    def pick(state: MethodState, *, active: Array | None = None) -> Array:
        num_tasks = state.weights.shape[0]
        wait = (jnp.arange(num_tasks, dtype=jnp.int32) - state.inner.turn) % num_tasks
        if active is not None:
            wait = jnp.where(active, wait, num_tasks)
        return jnp.argmin(wait).astype(jnp.int32)

    def update(
        evidence: PyTree,
        state: MethodState,
        *,
        losses: Array | None = None,
        active: Array | None = None,
        key: Key | None = None,
        **extra: Any,
    ) -> tuple[PyTree, MethodState]:
        picked = pick(state, active=active)
        inner: MConFIGState = state.inner
        num_tasks = state.weights.shape[0]
        present = mask_of(state, active)
        anyone = jnp.any(present)
        moves = (jnp.arange(num_tasks) == picked) & anyone
        steps, count = inner.steps + moves, inner.count + anyone

        def move(old: Array, new: Array) -> Array:
            return jnp.where(along(moves, old), beta * old + (1.0 - beta) * new[None], old)

        moment = jax.tree.map(move, inner.moment, widened(evidence))
        correction = 1.0 / (1.0 - beta ** jnp.maximum(steps, 1).astype(jnp.float32))
        # Weights do not depend on the common scale of the rows.
        gram = (
            as_float32(ranges.gramian(moment, num_tasks=num_tasks).gramian) * correction[:, None] * correction[None, :]
        )
        weights, solved = conflict_free.update(gram, state._replace(inner=()), active=present & (steps > 0))
        grown = 1.0 - beta ** jnp.maximum(count, 1).astype(jnp.float32)
        kept = rows_of(present, moment)
        combined = trees.weighted_sum(grown * weights * correction, kept)

        def pseudo(new: Array, old: Array, like: Array) -> Array:
            return jnp.where(anyone, (new - beta * old) / (1.0 - beta), 0.0).astype(like.dtype)

        found = jax.tree.map(pseudo, combined, inner.combined, evidence)
        combined = jax.tree.map(lambda new, old: jnp.where(anyone, new, old), combined, inner.combined)
        turn = jnp.where(anyone, (picked + 1) % num_tasks, inner.turn)
        moved = MConFIGState(moment, combined, steps, count, turn)
        return found, MethodState(weights, solved.residual, moved)

    return checked(Method("task_grads", init, update, name="m_config", pick=pick))

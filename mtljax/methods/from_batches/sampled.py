"""Gramians of independent batches, for methods that need an unbiased Gramian."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mtljax import participation, ranges, trees
from mtljax.banks import Entries
from mtljax.checks import check_count, check_method
from mtljax.engines.cut import cut_heads
from mtljax.engines.full import jacobian
from mtljax.engines.linear import linearize
from mtljax.methods.apply import weigh
from mtljax.methods.checked import checked
from mtljax.types import Batches, Key, Method, MethodState, Params, Update


def sampled(method: Method, batches: int = 3) -> Method:
    """A method that reads the Gramian, given the product `J_1 J_2'` of independent batches.

    With task gradients `J_1`, `J_2`, ... of several batches, the method reads `J_1 J_2'`, an unbiased estimate of the
    Gramian of the expected gradients where `J J'` of one batch is too large by their covariance. It is neither
    symmetric nor positive semi-definite, so it suits only methods that accept such a matrix: `methods.modo`, and
    `methods.sdmgrad` with its steps. The update is `J_n' w` with the last batch. Three batches give the papers'
    independence (weights and update share no batch); two batches take less work.

    Args:
        method: reads "gramian".
        batches: n, at least 2; default 3.

    Returns:
        `Method` that reads n batches, T backward passes in each. Task-specific gradients are means over the batches. A
        task takes part where it has labels and finite gradients in all of them.

    Raises:
        ValueError: the method does not read the Gramian.

    References:
        L. Chen, H. Fernando, Y. Ying, T. Chen (2023), "Three-way trade-off in multi-objective learning:
        optimization, generalization and conflict-avoidance", NeurIPS, arXiv 2305.20057.

    Example:
        >>> import jax.numpy as jnp
        >>> import mtljax
        >>> losses_fn = lambda params, x: {k: jnp.sum((params.shared - params.tasks[k] - x) ** 2) for k in "ab"}
        >>> params = mtljax.Params(jnp.zeros(2), {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.0, 1.0])})
        >>> method = sampled(mtljax.methods.modo(), batches=2)
        >>> losses, grads, state = mtljax.value_and_grad(losses_fn, method)(params, method.init(2), (0.1,), (-0.1,))
        >>> [f"{x:.2f}" for x in grads.shared]
        ['-0.80', '-0.80']
    """
    check_method("sampled", "method", method)
    if method.reads != "gramian":
        raise ValueError(f"sampled: method must read the Gramian, found {method.name}, which reads {method.reads}")
    check_count("sampled", "batches", batches, least=2)

    def rows(evidence: Batches, index: int) -> tuple[Params, Entries]:
        linear = linearize(evidence.losses_fn, evidence.params, (index,), False)
        everyone = jnp.ones(linear.entries.num_tasks, bool)
        cut = cut_heads(linear, jnp.ones(everyone.size), evidence.params.shared, everyone)
        return Params(jacobian(cut._replace(active=everyone)), cut.own), linear.entries

    def update(
        evidence: Batches, state: MethodState, *, key: Key | None = None, **extra: Any
    ) -> tuple[Update, MethodState]:
        (*found,), (entries, *_) = zip(*(rows(evidence, index) for index in range(batches)), strict=True)
        present = evidence.active.all(axis=0)
        for each in found:
            sound = participation.sound([each.tasks[name] for name in entries.names], sizes=entries.sizes)
            present = present & sound & participation.sound_rows(each.shared, entries.num_tasks)
        first, second, last = (participation.rows_of(present, found[k].shared) for k in (0, 1, -1))
        products = ranges.cross_gramian(first, second, num_tasks=entries.num_tasks)
        told = {**extra, "active": present, "key": key, "scale": products.scale}
        weights, state = weigh(method, products.gramian, state, **told)
        own = jax.tree.map(lambda *leaves: sum(leaves) / batches, *(each.tasks for each in found))
        own = participation.own_gradients(own, present, weights if method.weigh_tasks else None, entries=entries)
        return Update(Params(trees.weighted_sum(weights, last), own), present), state

    name = f"sampled({method.name})"
    return checked(method._replace(reads="batches", update=update, name=name, refines=False, num_batches=batches))

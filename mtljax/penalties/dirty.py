"""The dirty model: parameters are the sum of a part that all tasks select together and a part selected per task."""

from __future__ import annotations

from mtljax.checks import check_nonnegative
from mtljax.penalties.common import Penalty
from mtljax.penalties.l1 import l1
from mtljax.penalties.l1_inf import l1_inf
from mtljax.penalties.parts import by_part
from mtljax.types import Array


def dirty(strength_block: Array | float = 1.0, strength_element: Array | float = 1.0) -> Penalty:
    r"""The dirty model: block-sparse plus elementwise sparse.

        w = block + element
        value(block, element) = strength_block * sum_p max_t |block_tp| + strength_element * sum_tp |element_tp|
        prox(v, s) = (prox of l1_inf(strength_block) at v_block, prox of l1(strength_element) at v_element)

    Positions that most tasks need go to `block`; positions that single tasks need go to `element`. The paper shows that
    the model needs no more data than the better of `l1` and `l1_inf` if tasks share all of their support or none of it,
    and less than both in between. The two parts are separate arguments of the penalty, so its prox is exact.

    Both parts are used only if `1/T < strength_element / strength_block < 1`. From 1 on, the best element part is 0,
    since the block part has the same cost or less. Up to 1/T, the best block part is 0. Nothing is divided by T here.

    Args:
        strength_block: non-negative scalar, on the part that tasks select together; may be traced.
        strength_element: non-negative scalar, on the part that is selected per task; may be traced.

    Returns:
        `Penalty` with `parts` `("block", "element")`. Its argument is a dict by these names of two pytrees with the
        same structure and leaves `[T, *p]`, whose sum is the parameters.

    References:
        Jalali, Ravikumar, Sanghavi and Ruan, "A Dirty Model for Multi-task Learning", NIPS 2010.

    Example:
        >>> import jax.numpy as jnp
        >>> parts = {"block": {"w": jnp.array([[1.0], [2.0]])}, "element": {"w": jnp.array([[0.0], [3.0]])}}
        >>> float(dirty(1.0, 0.5)(parts))
        3.5
        >>> dirty(1.0, 0.5).prox(parts, 1.0)["block"]["w"].tolist()
        [[1.0], [1.0]]
    """
    check_nonnegative("dirty", "strength_block", strength_block)
    check_nonnegative("dirty", "strength_element", strength_element)
    return by_part("dirty", {"block": l1_inf(strength_block), "element": l1(strength_element)})

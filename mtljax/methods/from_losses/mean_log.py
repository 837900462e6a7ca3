"""The sum of the logarithms of the losses: scale-invariant weighting."""

from __future__ import annotations

from mtljax.checks import check_flag
from mtljax.methods.arithmetic import divide, number
from mtljax.methods.from_losses.common import method_of_losses
from mtljax.types import Array, Key, Method, PyTree


def mean_log(*, mean: bool = False) -> Method:
    """Scale-invariant scalarisation: `sum_k log L_k`, so `w_k = 1 / L_k`.

    Multiplying a loss by a constant changes nothing. The same weights are the optimum of uncertainty weighting, up to
    a factor (UW-O of Kirchdorfer et al. 2024).

    Args:
        mean: whether the objective is the mean over tasks instead of the sum, which divides weights by their number.

    Returns:
        `Method` that reads losses, floating point `[T]`; one backward pass. Weights are float32 `[T]`. Losses must not
        be negative. Task-specific gradients are weighted too. `state.residual` is 0.

    References:
        A. Navon, A. Shamsian, I. Achituve, H. Maron, K. Kawaguchi, G. Chechik, E. Fetaya (2022), "Multi-task
        learning as a bargaining game", ICML, arXiv 2202.01017 (baseline SI).
        Departures: a task whose loss is not positive has no logarithm; it gets weight 0 for that step and does not
        count. The paper, the authors' code and later copies of it take the sum, which is the default.

    Example:
        >>> import jax.numpy as jnp
        >>> method = mean_log()
        >>> method.update(jnp.array([0.5, 4.0]), method.init(2))[0]
        Array([2.  , 0.25], dtype=float32)
    """
    check_flag("mean_log", "mean", mean)

    def rule(losses: Array, active: Array, inner: PyTree, *, key: Key | None, **extra: object) -> tuple[Array, PyTree]:
        counted = active & (losses > 0)
        weights = divide(counted.astype(losses.dtype), losses)
        return (weights / number(counted) if mean else weights), inner

    return method_of_losses("mean_log", rule, least_loss=0.0)

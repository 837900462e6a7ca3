"""Kernels between inputs for Gaussian processes: pairs of pure functions, like optax's optimisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mtljax import trees
from mtljax.checks import expect
from mtljax.types import Array, PyTree


class Kernel(NamedTuple):
    """A kernel as two pure functions. Calling it returns its value.

    Attributes:
        init: `init(inputs [N, p], mask bool [N]) -> params`, parameters for the scales of the unmasked inputs, so that
            `k(x, x)` is about 1 for them. All parameters are logarithms, so that any value is valid.
        value: `value(params, a [N, p], b [M, p]) -> [N, M]`.

    Example:
        >>> kernel = Kernel(init=lambda inputs, mask: (), value=lambda params, a, b: jnp.ones((len(a), len(b))))
        >>> kernel((), jnp.zeros((2, 1)), jnp.zeros((3, 1))).shape
        (2, 3)
    """

    init: Callable[[Array, Array], PyTree]
    value: Callable[[PyTree, Array, Array], Array]

    def __call__(self, params: PyTree, a: Array, b: Array) -> Array:
        """The kernel's value, `[N, M]`."""
        return self.value(params, a, b)


class SumParams(NamedTuple):
    """Parameters of `sum_of`.

    Attributes:
        log_weights: `[K]`, logarithm of each kernel's weight.
        parts: tuple of the parameters of the K kernels.
    """

    log_weights: Array
    parts: tuple[PyTree, ...]


def rbf() -> Kernel:
    """The squared exponential kernel with one length scale per feature (automatic relevance determination).

    `k(x, x') = exp(-1/2 sum_j ((x_j - x'_j) / l_j)^2)`; parameters `log l`, `[p]`. It has no variance, since in a
    multi-task process the task covariance gives the variance.

    Distances are computed from differences, not from inner products, so inputs far from zero keep their digits.

    Returns:
        `Kernel`. It starts at `l_j = sqrt(p) std_j`. If the standard deviation of a feature is 0, its root mean square
        is used; if that is 0 too, 1.

    Raises:
        ValueError: from `value`, numbers of features do not match.
        TypeError: from `value`, parameters are those of another kernel.

    Example:
        >>> kernel = rbf()
        >>> [f"{k:.3f}" for k in kernel(jnp.zeros(1), jnp.zeros((1, 1)), jnp.array([[0.0], [1.0], [2.0]]))[0]]
        ['1.000', '0.607', '0.135']
    """

    def init(inputs: Array, mask: Array) -> Array:
        center = _mean(inputs, mask)
        spread = _root_mean_square(inputs - center[None, :], mask)
        size = _root_mean_square(inputs, mask)
        # The deviation of equal inputs is not 0, because of rounding.
        return _log_scales(jnp.where(spread > 8.0 * jnp.finfo(size.dtype).eps * size, spread, size))

    def value(params: Array, a: Array, b: Array) -> Array:
        a, b = _scaled("rbf", params, a, b)

        @jax.checkpoint
        def add_feature(distances: Array, feature: tuple[Array, Array]) -> tuple[Array, None]:
            return distances + jnp.square(feature[0][:, None] - feature[1][None, :]), None

        # One feature at a time, recomputed for the gradient: no array [N, M, p] is formed.
        distances, _ = lax.scan(add_feature, jnp.zeros((len(a), len(b)), a.dtype), (a.T, b.T))
        return jnp.exp(-0.5 * distances)

    return Kernel(init=init, value=value)


def linear() -> Kernel:
    """The kernel of linear functions with one prior variance per feature's weight.

    `k(x, x') = sum_j x_j x'_j / l_j^2`; parameters `log l`, `[p]`. The prior variance of the weight of feature j is
    `1 / l_j^2`, times that of the task. There is no constant term; for one, add a column of ones to the inputs.

    Returns:
        `Kernel`. It starts at `l_j = sqrt(p) rms_j`, where `rms_j` is the feature's root mean square, or 1 for a
        feature that is 0.

    Raises:
        ValueError: from `value`, numbers of features do not match.
        TypeError: from `value`, parameters are those of another kernel.

    Example:
        >>> float(linear()(jnp.zeros(2), jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0]]))[0, 0])
        11.0
    """

    def init(inputs: Array, mask: Array) -> Array:
        return _log_scales(_root_mean_square(inputs, mask))

    def value(params: Array, a: Array, b: Array) -> Array:
        a, b = _scaled("linear", params, a, b)
        return jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)

    return Kernel(init=init, value=value)


def sum_of(*kernels: Kernel) -> Kernel:
    """A weighted sum of kernels, `k(x, x') = sum_k exp(c_k) k_k(x, x')`; parameters `SumParams`.

    Args:
        *kernels: K kernels, at least one.

    Returns:
        `Kernel`. It starts with weights 1 / K.

    Raises:
        ValueError: no kernels; from `value`, parameters for another number of kernels.
        TypeError: from `value`, parameters are those of another kernel.

    Example:
        >>> kernel = sum_of(rbf(), linear())
        >>> x = jnp.ones((4, 2))
        >>> start = jax.jit(kernel.init)(x, jnp.ones(4, bool))
        >>> [f"{k:.3f}" for k in jax.jit(kernel.value)(start, x, x)[0]]
        ['1.000', '1.000', '1.000', '1.000']
    """
    if not kernels:
        raise ValueError("sum_of: kernels must be at least one, found none")
    for kernel in kernels:
        expect(isinstance(kernel, Kernel), "sum_of", "a kernel", "a Kernel", kernel, TypeError)

    def init(inputs: Array, mask: Array) -> SumParams:
        weights = jnp.full(len(kernels), -jnp.log(float(len(kernels))), trees.accumulator(inputs.dtype))
        return SumParams(weights, tuple(kernel.init(inputs, mask) for kernel in kernels))

    def value(params: SumParams, a: Array, b: Array) -> Array:
        if not isinstance(params, SumParams):
            raise TypeError(f"sum_of: expected SumParams, found {type(params).__name__}")
        if jnp.shape(params.log_weights) != (len(kernels),) or len(params.parts) != len(kernels):
            raise ValueError(
                f"sum_of: there are {len(kernels)} kernels, but log_weights has shape "
                f"{jnp.shape(params.log_weights)} and parts has {len(params.parts)}"
            )
        weights = jnp.exp(params.log_weights)
        terms = [kernel(part, a, b) for kernel, part in zip(kernels, params.parts, strict=True)]
        return sum((weight * term for weight, term in zip(weights[1:], terms[1:], strict=True)), weights[0] * terms[0])

    return Kernel(init=init, value=value)


def diagonal(kernel: Kernel, params: PyTree, inputs: Array) -> Array:
    """`k(x, x)` of each input, `[M, p] -> [M]`.

    Example:
        >>> diagonal(linear(), jnp.zeros(1), jnp.array([[2.0], [3.0]])).tolist()
        [4.0, 9.0]
    """
    return jax.vmap(lambda row: kernel(params, row[None], row[None])[0, 0])(inputs)


def _scaled(name: str, log_scales: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Both inputs divided by the scales, in float32 at least."""
    if not hasattr(log_scales, "shape"):
        raise TypeError(f"{name}: expected an array of log scales [p], found {type(log_scales).__name__}")
    features = jnp.shape(log_scales)
    if jnp.ndim(a) != 2 or jnp.ndim(b) != 2 or len(features) != 1 or not a.shape[1:] == b.shape[1:] == features:
        raise ValueError(
            f"{name}: expected inputs [N, p] and [M, p] and log scales [p], "
            f"found {jnp.shape(a)}, {jnp.shape(b)} and {features}"
        )
    dtype = trees.accumulator(jnp.result_type(log_scales, a, b))
    inverse = jnp.exp(-log_scales.astype(dtype))[None, :]
    return a.astype(dtype) * inverse, b.astype(dtype) * inverse


def _mean(inputs: Array, mask: Array) -> Array:
    """Mean of each feature over the unmasked rows, `[N, p] -> [p]`; 0 if there are none."""
    inputs = jnp.where(mask[:, None], inputs, 0.0).astype(trees.accumulator(inputs.dtype))
    return jnp.sum(inputs, axis=0) / jnp.maximum(jnp.sum(mask), 1)


def _root_mean_square(inputs: Array, mask: Array) -> Array:
    """Root mean square of each feature over the unmasked rows, `[N, p] -> [p]`."""
    return jnp.sqrt(_mean(jnp.square(inputs.astype(trees.accumulator(inputs.dtype))), mask))


def _log_scales(scales: Array) -> Array:
    """`log(sqrt(p) scales)`, with 1 for a scale of 0."""
    return jnp.log(jnp.where(scales > 0, scales, 1.0)) + 0.5 * jnp.log(jnp.asarray(len(scales), scales.dtype))

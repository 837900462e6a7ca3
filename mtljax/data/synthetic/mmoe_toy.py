"""The toy problem of MMoE: two regressions whose relatedness is a number from -1 to 1."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from mtljax.checks import check_count, check_number
from mtljax.data.synthetic.common import drawn, task_and_example_keys, task_names
from mtljax.types import Array, Batch, Key, Numeric

_SINES = 5  # m, where alpha and beta are drawn


def mmoe_toy(
    key: Key,
    *,
    p: Numeric,
    num_examples: int,
    num_features: int = 100,
    scale: Numeric = 1.0,
    alpha: Numeric | Sequence[Numeric] | None = None,
    beta: Numeric | Sequence[Numeric] | None = None,
    noise: Numeric = 0.01,
    example_key: Key | None = None,
) -> Batch:
    """Two regressions whose weights have cosine p.

    With orthogonal unit vectors `u_1`, `u_2`, and x and the noise normal,

        w_1 = c u_1,   w_2 = c (p u_1 + sqrt(1 - p^2) u_2)
        y_k = w_k' x + sum_i sin(alpha_i w_k' x + beta_i) + N(0, noise)

    At p = 1 the tasks differ only in their noise. At p = 0 they are independent. At p = -1 the second task is the first
    task's function of -x. The correlation of labels is not p, but increases with p for p >= 0. For c = 1 it is
    `sum_j h_j^2 p^j / (sum_j h_j^2 + noise)`, j from 1, with `h_j` the coefficients of the function above in normalized
    Hermite polynomials. So it depends on alpha and beta: over draws of five of each, its mean is .988, .817, .362 and 0
    at p = 1, .9, .5 and 0, with standard deviations .02, .08, .12 and 0.

    Args:
        key: typed PRNG key `[]` that the tasks are drawn from: `u_1`, `u_2`, alpha and beta.
        p: cosine of the weights, from -1 to 1; may be traced.
        num_examples: N.
        num_features: d, at least 2.
        scale: c, may be traced.
        alpha: `[m]`; None (default) draws it from N(0, 1), with the length of beta, or five.
        beta: `[m]`; None (default) draws it from N(0, 1), with the length of alpha, or five.
        noise: variance of the noise, at least 0; may be traced.
        example_key: typed PRNG key `[]` that inputs and noise are drawn from; None derives it from `key`. Another key
            gives other examples of the same tasks.

    Returns:
        `Batch` with inputs `[N, d]` and targets `task_0` and `task_1` `[N]`, of JAX's default floating type.

    Raises:
        TypeError: a key that is not typed.
        ValueError: counts that are too small, p outside -1 to 1, a scale that is not finite, negative noise, alpha and
            beta that are not `[m]` or not finite, several keys.

    J. Ma, Z. Zhao, X. Yi, J. Chen, L. Hong, E. H. Chi (2018), "Modeling task relationships in multi-task learning with
    multi-gate mixture-of-experts", KDD, section 3.2. The paper states d = 100 and noise 0.01, but not c, m, alpha and
    beta.

    Example:
        >>> batch = jax.eval_shape(lambda key: mmoe_toy(key, p=0.5, num_examples=8), jax.random.key(0))
        >>> batch.inputs.shape, batch.targets["task_1"].shape
        ((8, 100), (8,))
    """
    name = "mmoe_toy"
    check_count(name, "num_examples", num_examples)
    check_count(name, "num_features", num_features, least=2)
    check_number(name, "p", p, least=-1, most=1)
    check_number(name, "scale", scale)
    check_number(name, "noise", noise, least=0)
    given: dict[str, Array] = {}
    for argument, numbers in (("alpha", alpha), ("beta", beta)):
        if numbers is not None:
            given[argument] = jnp.asarray(check_number(name, argument, numbers, shape=("m",)), float)
    sines = [numbers.shape for numbers in given.values()] or [(_SINES,)]
    if sines[0] != sines[-1]:
        raise ValueError(f"{name}: alpha and beta must both be [m], found shapes {sines}")
    task_key, draw_key = task_and_example_keys(name, key, example_key)

    directions, own_alpha, own_beta = drawn(jax.random.normal, task_key, (2, num_features), sines[0], sines[0])
    rates, phases = given.get("alpha", own_alpha), given.get("beta", own_beta)
    first, other = directions
    first = first / jnp.linalg.norm(first)
    other = other - jnp.vdot(first, other, precision=lax.Precision.HIGHEST) * first
    other = other / jnp.linalg.norm(other)
    p = jnp.asarray(p, float)
    weights = scale * jnp.stack([first, p * first + jnp.sqrt(1 - p**2) * other])

    inputs, noises = drawn(jax.random.normal, draw_key, (num_examples, num_features), (2, num_examples))
    projected = jnp.matmul(weights, inputs.T, precision=lax.Precision.HIGHEST)

    def label(s: Array) -> Array:
        return s + jnp.sum(jnp.sin(rates[:, None] * s[None] + phases[:, None]), axis=0)

    labels = jax.vmap(label)(projected) + jnp.sqrt(jnp.asarray(noise, float)) * noises
    return Batch(inputs, dict(zip(task_names(2), labels, strict=True)))

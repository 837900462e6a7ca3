"""Contrastive losses: the papers' formulas, gradients, and who is whose negative."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.losses import info_nce, masked_loss, negative_sampling, nt_xent

RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.normal(size=(2, 4, 3)).astype(np.float32)
ALL = jnp.ones(4, bool)
MAKERS = {"info_nce": info_nce, "nt_xent": nt_xent}


@functools.cache
def mean(name):
    """Mean loss over unmasked examples, and its slopes; compiled once for all tests."""
    return jax.jit(jax.value_and_grad(lambda z, mask: masked_loss(MAKERS[name](), z, ALL, mask=mask)[0]))


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def info_nce_oracle(first, second, temperature, score=cosine):
    first, second = np.float64(first), np.float64(second)
    f = np.exp([[score(a, b) / temperature for b in second] for a in first])
    return -np.log(np.diag(f) / f.sum(1))


def nt_xent_oracle(first, second, temperature):
    """Equation 1 of the paper, term by term, averaged over the two directions."""
    u, n = np.float64([*first, *second]), len(first)

    def term(i, j):
        others = sum(np.exp(cosine(u[i], u[k]) / temperature) for k in range(2 * n) if k != i)
        return -np.log(np.exp(cosine(u[i], u[j]) / temperature) / others)

    return np.array([(term(i, i + n) + term(i + n, i)) / 2 for i in range(n)])


@pytest.mark.parametrize(("temperature", "dtype"), [(0.1, jnp.float32), (2.0, jnp.bfloat16)])
def test_values_equal_the_papers_formulas_and_are_computed_in_float32(temperature, dtype):
    pair = (FIRST.astype(dtype), SECOND.astype(dtype))
    first, second = (half.astype(np.float64) for half in pair)
    cosines, dots = info_nce(temperature=temperature), info_nce(temperature=temperature, normalize=False)
    simclr = nt_xent(temperature=temperature)
    found = jax.jit(lambda z: [loss(z, ALL) for loss in (cosines, dots, simclr)])(pair)
    np.testing.assert_allclose(found[0], info_nce_oracle(first, second, temperature), rtol=1e-5)
    np.testing.assert_allclose(found[1], info_nce_oracle(first, second, temperature, np.dot), rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(found[2], nt_xent_oracle(first, second, temperature), rtol=1e-5)
    assert {each.dtype for each in found} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", MAKERS)
def test_an_example_that_is_masked_is_as_if_it_were_not_there(name):
    keep = np.array([0, 1, 3])
    value, slopes = mean(name)((FIRST, SECOND), np.isin(np.arange(4), keep))
    oracle = {"info_nce": info_nce_oracle, "nt_xent": nt_xent_oracle}[name]
    np.testing.assert_allclose(value, oracle(FIRST[keep], SECOND[keep], 0.1).mean(), rtol=1e-6)
    assert all((slope[2] == 0).all() and (slope[keep] != 0).any() for slope in slopes)
    # Whatever stands there, and where none of the others counts.
    poisoned = tuple(np.where(np.arange(4)[:, None] == 2, np.nan, z) for z in (FIRST, SECOND))
    again, slopes = mean(name)(poisoned, np.isin(np.arange(4), keep))
    assert float(again) == float(value)
    assert all(np.isfinite(slope).all() for slope in slopes)
    alone, slopes = mean(name)((FIRST, SECOND), np.arange(4) == 0)
    assert float(alone) == 0
    assert all((slope == 0).all() for slope in slopes)


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_equal_finite_differences(name):
    with jax.enable_x64(True):
        loss = MAKERS[name](temperature=0.5)
        total = jax.jit(jax.value_and_grad(lambda z: loss((z[0], z[1]), ALL).sum()))
        z = np.float64([FIRST, SECOND])
        way = RNG.normal(size=z.shape)
        difference = (total(z + 1e-5 * way)[0] - total(z - 1e-5 * way)[0]) / 2e-5
        np.testing.assert_allclose(np.vdot(total(z)[1], way), difference, rtol=1e-8)


@pytest.mark.parametrize("name", MAKERS)
def test_cosines_do_not_depend_on_scale_and_zero_vectors_are_harmless(name):
    everyone = np.ones(4, bool)
    value, slopes = mean(name)((FIRST, SECOND), everyone)
    for scale in (2.0**-100, 2.0**100):
        found, scaled = mean(name)((FIRST * np.float32(scale), SECOND * np.float32(scale)), everyone)
        np.testing.assert_allclose(found, value, rtol=1e-6)
        np.testing.assert_allclose(scaled[0] * np.float32(scale), slopes[0], rtol=1e-4, atol=1e-6)
    value, slopes = mean(name)((np.zeros_like(FIRST), SECOND), everyone)
    assert np.isfinite(value)
    assert all(np.isfinite(slope).all() for slope in slopes)
    assert (np.asarray(slopes[0]) == 0).all()


def test_negative_sampling_equals_the_formula():
    scores = RNG.normal(size=(3, 4, 3)).astype(np.float32)
    targets = np.tile([1, 0, 0], (3, 4, 1))
    targets[0, 2] = -1  # no such pair
    targets[1, 1, 2] = -1  # a negative that does not count
    targets[2] = -1
    softplus = np.log1p(np.exp(np.float64(scores)))
    terms = np.where(targets == 1, softplus - scores, np.where(targets == 0, softplus, 0)).sum(2)
    run = jax.jit(jax.value_and_grad(lambda z: masked_loss(negative_sampling, z, targets), has_aux=True))
    (mean, pairs), slope = run(np.where(targets < 0, np.nan, scores))
    assert pairs == 7
    np.testing.assert_allclose(mean, terms.sum() / 7, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(slope) != 0, targets >= 0)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    ("outputs", "targets", "error", "message"),
    [
        (FIRST, ALL, TypeError, r"outputs must be a pair of arrays \[B, D\], found ndarray"),
        ((FIRST, SECOND[:3]), ALL, ValueError, r"found \[4, 3\], \[3, 3\] and \[4\]"),
        ((FIRST, SECOND), ALL[:3], ValueError, r"and \[3\]"),
        ((FIRST, SECOND), jnp.ones(4), TypeError, "targets must be bool"),
        ((FIRST.astype(int), SECOND), ALL, TypeError, "outputs must be floating"),
        ((FIRST[:1], SECOND[:1]), ALL[:1], ValueError, "at least two examples, found 1"),
    ],
)
def test_mistakes_are_named(name, outputs, targets, error, message):
    with pytest.raises(error, match=rf"{name}: .*{message}"):
        MAKERS[name]()(outputs, targets)


@pytest.mark.parametrize("name", MAKERS)
def test_a_temperature_of_zero_is_named(name):
    with pytest.raises(ValueError, match="temperature must be above 0, found 0"):
        MAKERS[name](temperature=0)


def test_other_mistakes_are_named():
    with pytest.raises(ValueError, match=r"must both be \[B, P, 1 \+ K\]"):
        negative_sampling(jnp.zeros((2, 3)), jnp.zeros((2, 3), int))
    with pytest.raises(TypeError, match="targets must be signed integers"):
        negative_sampling(jnp.zeros((2, 3, 1)), jnp.zeros((2, 3, 1)))

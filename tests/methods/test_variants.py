"""A first step, `init` and `update`, is the same by itself, in `jit`, in `pmap`, and where chex replaces these two."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import parameterized

from mtljax.methods import reconcile
from tests.methods.table import CASES, over
from tests.methods.test_contract import KEY, losses, one, rows

# chex asks absl whether a single device is enough for `pmap`; nothing parses absl's flags under pytest.
flags.FLAGS.mark_as_parsed()
DEVICES = 2
# One method each that reads losses, a Gramian and rows, and one of these draws random numbers.
AT_ONCE = {"famo", "aligned_mtl", "graddrop"}


def first_step(case, jacobian, values, key_data):
    """The update and the state after one step; a random key travels as an array, since chex copies arrays only."""
    method, key = case.make(4), jax.random.wrap_key_data(key_data)
    state = method.init(4, jax.tree.map(lambda leaf: leaf[0], jacobian))
    update, state, _ = reconcile(method, state, jacobian, losses=values, key=key)
    return update, state


def arguments():
    return jax.tree.map(np.asarray, rows(4)), losses(4), np.asarray(jax.random.key_data(KEY))


@functools.cache
def by_itself(name: str):
    (case,) = (case for case in CASES if case.name == name)
    return first_step(case, *arguments())


def assert_same(case, found):
    """Up to the rounding of sums in another order, which the largest entry of a leaf measures."""
    expected = by_itself(case.name)
    chex.assert_trees_all_equal_shapes_and_dtypes(found, expected)
    for a, b in zip(jax.tree.leaves(found[0]), jax.tree.leaves(expected[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())
    np.testing.assert_allclose(found[1].weights, expected[1].weights, rtol=1e-3, atol=1e-4)


def variants_of(cases):
    """Tests of some methods, each compiled in the ways that chex knows."""

    class Variants(chex.TestCase):
        @chex.variants(with_jit=True, with_pmap=True)
        @parameterized.named_parameters(*((case.name, case) for case in cases))
        def test_compiled(self, case):
            step = self.variant(functools.partial(first_step, case), n_devices=DEVICES)
            assert_same(case, step(*arguments()))

    return Variants


TestVariants = variants_of([case for case in CASES if case.name in AT_ONCE])
TestAllVariants = pytest.mark.slow(variants_of([case for case in CASES if case.name not in AT_ONCE]))


@over(CASES, at_once=lambda case: case.name in AT_ONCE)
def test_faked(case):
    """Under the names that users call: where `jit` is the identity and `pmap` is `vmap`, on every device."""
    with chex.fake_pmap_and_jit():
        step: Any = jax.pmap(jax.jit(functools.partial(first_step, case)), axis_name="batch")
        found = step(*(jax.tree.map(lambda leaf: np.stack([leaf] * DEVICES), each) for each in arguments()))
    for device in range(DEVICES):
        assert_same(case, one(found, device))

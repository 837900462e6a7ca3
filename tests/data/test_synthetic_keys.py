"""Generators as functions: types, default keys, and how strict they are about what they are given."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.data.synthetic import clustered_linear, gradnorm_toy, mmoe_toy, noise_task, same_function
from mtljax.data.synthetic.common import task_and_example_keys
from mtljax.types import Batch

KEY = jax.random.key(0)

GENERATORS = {
    "gradnorm_toy": lambda key: gradnorm_toy(
        key, 2, num_examples=3, shared_variance=1.0, task_variance=1.0, num_features=4
    ),
    "mmoe_toy": lambda key: mmoe_toy(key, p=0.5, num_examples=3, num_features=4),
    "clustered_linear": lambda key: clustered_linear(
        key, num_clusters=2, tasks_per_cluster=1, num_examples=3, within=0.1, num_features=4
    ),
    "same_function": lambda key: same_function(key, 2, noise=0.5, num_examples=3, num_features=2),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_types_follow_jax_s_default(name):
    for enabled, dtype in ((False, jnp.float32), (True, jnp.float64)):
        with jax.enable_x64(enabled):
            made = jax.eval_shape(GENERATORS[name], jax.random.key(0))
            for leaf in jax.tree.leaves(made):
                assert leaf.dtype == (jnp.int32 if leaf is getattr(made, "clusters", None) else dtype)


def test_without_a_key_of_their_own_examples_come_from_the_key_too():
    other = jax.random.key(1)
    both = jax.jit(lambda: (task_and_example_keys("f", KEY, None), task_and_example_keys("f", KEY, other)))()
    ours, given = (np.stack([jax.random.key_data(key) for key in pair]) for pair in both)
    split = np.asarray(jax.random.key_data(jax.random.split(KEY)))
    np.testing.assert_array_equal(ours, split)
    np.testing.assert_array_equal(given, [split[0], jax.random.key_data(other)])


BAD = [
    (lambda: gradnorm_toy(KEY, 0, num_examples=2), "gradnorm_toy: num_tasks must be at least 1, found 0"),
    (
        lambda: gradnorm_toy(KEY, 2, num_examples=2, scales=[1.0]),
        r"gradnorm_toy: scales must be of shape \[2\], found an array of shape \(1,\)",
    ),
    (
        lambda: gradnorm_toy(KEY, 2, num_examples=2, scales=[1.0, 0.0]),
        r"gradnorm_toy: scales must be above 0, found \[1\. 0\.\]",
    ),
    (
        lambda: gradnorm_toy(KEY, 2, num_examples=2, task_variance=-1.0),
        r"gradnorm_toy: task_variance must be at least 0, found -1\.0",
    ),
    (
        lambda: gradnorm_toy(KEY, 2, num_examples=2, shared_variance=jnp.inf),
        "gradnorm_toy: shared_variance must be finite and at least 0, found inf",
    ),
    (lambda: mmoe_toy(KEY, p=1.5, num_examples=2), r"mmoe_toy: p must be at least -1 and at most 1, found 1\.5"),
    (lambda: mmoe_toy(KEY, p=float("nan"), num_examples=2), "mmoe_toy: p must be at least -1 and at most 1, found nan"),
    (lambda: mmoe_toy(KEY, p=jnp.ones(2), num_examples=2), r"mmoe_toy: p must be a scalar, found .* \(2,\)"),
    (
        lambda: mmoe_toy(KEY, p=0.0, num_examples=2, num_features=1),
        "mmoe_toy: num_features must be at least 2, found 1",
    ),
    (lambda: mmoe_toy(KEY, p=0.0, num_examples=2, alpha=jnp.ones(3), beta=jnp.ones(2)), r"must both be \[m\]"),
    (lambda: mmoe_toy(KEY, p=0.0, num_examples=2, beta=[0.0, np.nan]), "mmoe_toy: beta must be finite"),
    (
        lambda: clustered_linear(KEY, num_clusters=2, tasks_per_cluster=0, num_examples=2, within=1.0),
        "clustered_linear: tasks_per_cluster must be at least 1, found 0",
    ),
    (
        lambda: clustered_linear(KEY, num_clusters=2, tasks_per_cluster=1, num_examples=2, within=-1.0),
        r"clustered_linear: within must be at least 0, found -1\.0",
    ),
    (
        lambda: same_function(KEY, 2, noise=1.1, num_examples=2),
        r"same_function: noise must be at least 0 and at most 1, found 1\.1",
    ),
    (
        lambda: same_function(jax.random.split(KEY), 2, noise=0.0, num_examples=2),
        r"same_function: key must be one PRNG key, as jax\.random\.key\(0\) makes it",
    ),
    (lambda: noise_task(Batch(jnp.ones(2), {"noise": jnp.ones(2)}), KEY), "task must be a new name, found 'noise'"),
    (lambda: noise_task(Batch(jnp.ones(()), {}), KEY), r"inputs must be arrays \[B, ...\] of one length"),
    (lambda: noise_task(Batch((jnp.ones(2), jnp.ones(3)), {}), KEY), r"found lengths \[\(2,\), \(3,\)\]"),
    (
        lambda: noise_task(Batch(jnp.ones(2), {}), KEY, num_classes=1),
        "noise_task: num_classes must be at least 2, found 1",
    ),
]


@pytest.mark.parametrize("call, message", BAD)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("scales", [[1.0, 0.0], np.array([1.0, np.nan]), jnp.array([1.0, -1.0])], ids=str)
def test_bad_scales_are_refused_while_tracing(scales):
    with pytest.raises(ValueError, match="gradnorm_toy: scales must be above 0, found"):
        jax.eval_shape(lambda: gradnorm_toy(KEY, 2, num_examples=2, scales=scales))


def test_known_and_traced_arrays_are_taken():
    toy = functools.partial(gradnorm_toy, KEY, 2, num_examples=2)
    scales = jnp.array([1.0, 2.0])
    assert jax.eval_shape(lambda: toy(scales=scales)).inputs.shape == (2, 250)
    assert jax.eval_shape(lambda x: toy(scales=[x, 1.0], task_variance=x), 2.0).inputs.shape == (2, 250)


def test_what_is_not_a_key_is_refused():
    with pytest.raises(
        TypeError, match=r"mmoe_toy: key must be one PRNG key, as jax\.random\.key\(0\) makes it, found 0"
    ):
        mmoe_toy(0, p=0.0, num_examples=2)
    with pytest.raises(TypeError, match="mmoe_toy: example_key must be one PRNG key"):
        mmoe_toy(KEY, p=0.0, num_examples=2, example_key=np.zeros(2, np.int32))


def test_what_is_not_a_batch_is_refused():
    with pytest.raises(TypeError, match="noise_task: batch must be a Batch, found"):
        noise_task({"a": Batch(jnp.ones(2), {})}, KEY)

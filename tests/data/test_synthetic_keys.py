"""Generators as functions: of their keys alone, under jit and vmap, and strict about what they are given."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.data.synthetic import clustered_linear, gradnorm_toy, mmoe_toy, noise_task, same_function
from mtljax.data.synthetic.common import task_and_example_keys
from mtljax.types import Batch

KEY = jax.random.key(0)

GENERATORS = {
    "gradnorm_toy": lambda key, example_key=None: gradnorm_toy(
        key, 2, num_examples=3, shared_variance=1.0, task_variance=1.0, num_features=4, example_key=example_key
    ),
    "mmoe_toy": lambda key, example_key=None: mmoe_toy(
        key, p=0.5, num_examples=3, num_features=4, example_key=example_key
    ),
    "clustered_linear": lambda key, example_key=None: clustered_linear(
        key, num_clusters=2, tasks_per_cluster=1, num_examples=3, within=0.1, num_features=4, example_key=example_key
    ),
    "same_function": lambda key, example_key=None: same_function(
        key, 2, noise=0.5, num_examples=3, num_features=2, example_key=example_key
    ),
}


def inputs_and_labels(made):
    """All inputs and all labels of what a generator gave, each as one array with the leading axis of keys."""
    batches = [made] if isinstance(made, Batch) else list(made.batches.values())
    inputs, labels = [b.inputs for b in batches], [y for b in batches for y in b.targets.values()]
    return (np.concatenate([np.reshape(x, (len(x), -1)) for x in group], axis=1) for group in (inputs, labels))


@pytest.mark.parametrize(
    "name",
    [
        "mmoe_toy",
        "same_function",
        pytest.param("clustered_linear", marks=pytest.mark.slow),
        pytest.param("gradnorm_toy", marks=pytest.mark.slow),
    ],
)
def test_tasks_come_from_the_key_and_examples_from_theirs(name):
    generate = GENERATORS[name]
    own = jax.random.key(3)
    keys = jnp.stack([KEY, KEY, jax.random.key(1), KEY])
    example_keys = jnp.stack([own, own, own, jax.random.key(2)])
    drawn = jax.jit(jax.vmap(generate))(keys, example_keys)
    inputs, labels = inputs_and_labels(drawn)
    for array in (inputs, labels):
        np.testing.assert_array_equal(array[0], array[1])
        assert not np.isclose(array[0], array[3]).any()
    np.testing.assert_array_equal(inputs[0], inputs[2])
    assert not np.isclose(labels[0], labels[2]).any()
    if name == "clustered_linear":
        np.testing.assert_array_equal(drawn.weights[0], drawn.weights[3])


@pytest.mark.parametrize("name", GENERATORS)
def test_types_follow_jax_s_default(name):
    for enabled, dtype in ((False, jnp.float32), (True, jnp.float64)):
        with jax.enable_x64(enabled):
            made = jax.eval_shape(GENERATORS[name], jax.random.key(0))
            for leaf in jax.tree.leaves(made):
                assert leaf.dtype == (jnp.int32 if leaf is getattr(made, "clusters", None) else dtype)


def test_without_a_key_of_their_own_examples_come_from_the_key_too():
    assert (jnp.stack(task_and_example_keys("f", KEY, None)) == jax.random.split(KEY)).all()
    other = jax.random.key(1)
    assert (jnp.stack(task_and_example_keys("f", KEY, other)) == jnp.stack([jax.random.split(KEY)[0], other])).all()


BAD = [
    (lambda: gradnorm_toy(KEY, 0, num_examples=2), "gradnorm_toy: num_tasks must be an integer of at least 1, found 0"),
    (lambda: gradnorm_toy(KEY, 2, num_examples=2.0), "gradnorm_toy: num_examples must be an integer .* found 2.0"),
    (lambda: gradnorm_toy(KEY, 2, num_examples=2, scales=[1.0]), r"gradnorm_toy: scales must be \[2\], .* \(1,\)"),
    (lambda: gradnorm_toy(KEY, 2, num_examples=2, scales=[1.0, 0.0]), "gradnorm_toy: scales must be positive"),
    (lambda: gradnorm_toy(KEY, 2, num_examples=2, task_variance=-1.0), "task_variance must be .* from 0 to inf, found"),
    (lambda: gradnorm_toy(KEY, 2, num_examples=2, shared_variance=jnp.inf), "shared_variance must be a finite number"),
    (lambda: mmoe_toy(KEY, p=1.5, num_examples=2), "mmoe_toy: p must be a finite number from -1 to 1, found 1.5"),
    (lambda: mmoe_toy(KEY, p=float("nan"), num_examples=2), "mmoe_toy: p must be a finite number from -1 to 1"),
    (lambda: mmoe_toy(KEY, p=jnp.ones(2), num_examples=2), r"mmoe_toy: p must be a scalar, found .* \(2,\)"),
    (lambda: mmoe_toy(KEY, p=0.0, num_examples=2, num_features=1), "num_features must be an integer of at least 2"),
    (lambda: mmoe_toy(KEY, p=0.0, num_examples=2, alpha=jnp.ones(3), beta=jnp.ones(2)), r"must both be \[m\]"),
    (
        lambda: clustered_linear(KEY, num_clusters=2, tasks_per_cluster=0, num_examples=2, within=1.0),
        "clustered_linear: tasks_per_cluster must be an integer of at least 1, found 0",
    ),
    (
        lambda: clustered_linear(KEY, num_clusters=2, tasks_per_cluster=1, num_examples=2, within=-1.0),
        "clustered_linear: within must be a finite number from 0 to inf, found -1.0",
    ),
    (
        lambda: same_function(KEY, 2, noise=1.1, num_examples=2),
        "same_function: noise must be .* from 0 to 1, found 1.1",
    ),
    (
        lambda: same_function(jax.random.split(KEY), 2, noise=0.0, num_examples=2),
        r"key must have shape \[\], found \(2",
    ),
    (lambda: noise_task(Batch(jnp.ones(2), {"noise": jnp.ones(2)}), KEY), "task must be a new name, found 'noise'"),
    (lambda: noise_task(Batch(jnp.ones(()), {}), KEY), r"inputs must be arrays \[B, ...\] of one B"),
    (lambda: noise_task(Batch((jnp.ones(2), jnp.ones(3)), {}), KEY), r"leading axes \[\(2,\), \(3,\)\]"),
    (lambda: noise_task(Batch(jnp.ones(2), {}), KEY, num_classes=1), "num_classes must be an integer of at least 2"),
]


@pytest.mark.parametrize("call, message", BAD)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_key_or_no_batch_is_refused():
    with pytest.raises(TypeError, match=r"mmoe_toy: key must be typed, as jax\.random\.key makes it, found int"):
        mmoe_toy(0, p=0.0, num_examples=2)
    with pytest.raises(TypeError, match="mmoe_toy: example_key must be typed"):
        mmoe_toy(KEY, p=0.0, num_examples=2, example_key=np.zeros(2, np.uint32))
    with pytest.raises(TypeError, match="noise_task: batch must be a Batch, found dict"):
        noise_task({"a": Batch(jnp.ones(2), {})}, KEY)

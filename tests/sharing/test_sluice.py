"""Sluice networks: subspaces, layer mixing, and the penalty that keeps subspaces apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax.sharing.frames.network import Network, key_for
from mtljax.sharing.sluice import sluice
from tests.sharing.blocks import dense

layer = dense(4, activation=jnp.tanh)
STAGES, HEADS = [layer, layer], {"depth": layer, "label": layer}
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
MODEL = sluice(STAGES, HEADS, orthogonality=0.3)
KEY = jax.random.key(1)


def random_like(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), tree)


def numpy_model(params, x, projected=(False, False)):
    """The paper's equations with every sum written out, in float64; inputs that both tasks share."""
    wide, names = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params), ["depth", "label"]
    x, layers = [np.asarray(x, np.float64)] * 2, [[], []]
    for position, alpha in enumerate(wide.shared["units"]):
        h = [np.tanh(x[i] @ wide.shared["columns"][name][position]["w"]) for i, name in enumerate(names)]
        size = h[0].shape[1] // 2
        x = [np.zeros_like(each) for each in h]
        for i, s, j, u in np.ndindex(*alpha.shape):
            x[i][:, s * size : (s + 1) * size] += alpha[i, s, j, u] * h[j][:, u * size : (u + 1) * size]
        for i in range(2):
            layers[i].append(x[i])
    outputs = {}
    for i, name in enumerate(names):
        own, mixed = wide.tasks[name], 0.0
        for position, each in enumerate(layers[i]):
            if projected[position]:
                each = np.tanh(each @ own["projections"][position]["w"])
            mixed = mixed + own["layers"][position] * each
        outputs[name] = np.tanh(mixed @ own["head"]["w"])
    return outputs


def test_columns_and_heads_read_the_papers_mixtures():
    params, state = MODEL.init(jax.random.key(0), X)
    assert [unit.shape for unit in params.shared["units"]] == [(2, 2, 2, 2)] * 2
    # Columns and heads of 4x4 layers, two matrices alpha, two weights beta a task.
    assert sum(x.size for x in jax.tree.leaves(params)) == 4 * 16 + 2 * 16 + 2 * 4**2 + 2 * 2
    params = random_like(params)
    outputs, _ = MODEL.apply(params, state, X)
    expected = numpy_model(params, X)
    for task in HEADS:
        np.testing.assert_allclose(outputs[task], expected[task], rtol=1e-5, atol=1e-6)


def test_projections_bring_layers_of_any_width_together():
    narrow = dense(2, activation=jnp.tanh)
    model = sluice([narrow, layer], HEADS, projections=[layer, None])
    params, state = model.init(jax.random.key(0), X)
    assert (
        params.tasks["depth"]["projections"][0]["w"].shape == (2, 4) and params.tasks["depth"]["projections"][1] == ()
    )
    params = random_like(params)
    outputs, _ = model.apply(params, state, X)
    expected = numpy_model(params, X, projected=(True, False))
    for task in HEADS:
        np.testing.assert_allclose(outputs[task], expected[task], rtol=1e-5, atol=1e-6)
    params.tasks["label"] = None
    _, after = model.apply(params, state, X, tasks=("depth",), key=KEY, train=True)
    assert after["tasks"] == {
        "depth": {"projections": ({"calls": 1}, ()), "head": {"calls": 1}},
        "label": {"projections": ({"calls": 0}, ()), "head": {"calls": 0}},
    }


def test_the_start_leans_to_one_subspace_and_to_the_last_layer():
    params, _ = MODEL.init(jax.random.key(0), X)
    alpha = np.asarray(params.shared["units"][0]).reshape(4, 4)
    np.testing.assert_allclose(alpha, np.full((4, 4), 0.1 / 3) + (0.9 - 0.1 / 3) * np.eye(4), rtol=1e-6)
    for task in HEADS:
        np.testing.assert_allclose(params.tasks[task]["layers"], [0.1, 0.9], rtol=1e-6)
    single, _ = sluice([layer], {"depth": layer}, subspaces=1).init(jax.random.key(0), X)
    assert single.shared["units"][0].tolist() == [[[[1.0]]]] and single.tasks["depth"]["layers"].tolist() == [1.0]


def test_with_nothing_mixed_columns_are_single_task_networks_dropout_included():
    model = sluice(STAGES, HEADS, same=1.0, last=1.0)
    params, state = model.init(jax.random.key(0), X)
    params = params._replace(shared=params.shared | {"columns": random_like(params.shared["columns"])})
    outputs, _ = model.apply(params, state, X, key=KEY, train=True)
    for task in HEADS:
        x = X
        for position in range(2):
            own = params.shared["columns"][task][position], state["columns"][task][position]
            x, _ = layer.apply(*own, x, key=key_for(KEY, f"stage/{position}"), train=True)
        own = params.tasks[task]["head"], state["tasks"][task]["head"]
        expected, _ = layer.apply(*own, x, key=key_for(KEY, f"task/{task}"), train=True)
        np.testing.assert_array_equal(outputs[task], expected)


def test_the_penalty_is_the_papers_over_all_tasks_layers_and_pairs():
    params, _ = MODEL.init(jax.random.key(0), X)
    params = random_like(params)
    expected = 0.0
    for column in params.shared["columns"].values():
        for stage in column:
            w = np.asarray(stage["w"], np.float64)
            expected += np.linalg.norm(w[:, :2].T @ w[:, 2:], "fro") ** 2
    assert float(MODEL.penalty(params)) == pytest.approx(0.3 * expected, rel=1e-5)
    gradient = jax.grad(MODEL.penalty)(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((gradient.shared["units"], gradient.tasks)))
    # d |A^T B|^2 / dA = 2 B B^T A
    w = np.asarray(params.shared["columns"]["label"][1]["w"], np.float64)
    slope = 2 * 0.3 * np.hstack([w[:, 2:] @ w[:, 2:].T @ w[:, :2], w[:, :2] @ w[:, :2].T @ w[:, 2:]])
    np.testing.assert_allclose(gradient.shared["columns"]["label"][1]["w"], slope, rtol=1e-4, atol=1e-5)

    four = sluice(STAGES, HEADS, subspaces=4, orthogonality=1.0)
    columns = params.shared["columns"]
    pairs = sum(
        float(np.asarray(stage["w"], np.float64)[:, s] @ np.asarray(stage["w"], np.float64)[:, u]) ** 2
        for column in columns.values()
        for stage in column
        for s in range(4)
        for u in range(s + 1, 4)
    )
    assert float(four.penalty(params)) == pytest.approx(pairs, rel=1e-5)


def holding(params):
    """A stage with these parameters; what it computes does not matter."""
    return Network(lambda key, x: (params, ()), lambda p, state, x, *, key=None, train=False: (x, state))


def test_the_penalty_takes_convolutions_biases_and_a_choice_of_kernels():
    kernel = RNG.normal(size=(3, 2, 5, 4))
    stage = holding({"conv": jnp.asarray(kernel, jnp.float32), "b": jnp.ones(3), "inner": jnp.ones((4, 6))})
    flat = kernel.reshape(-1, 4)
    crossed = np.sum((flat[:, :2].T @ flat[:, 2:]) ** 2)
    chosen = sluice([stage], {"a": layer}, orthogonality=1.0, kernels=lambda p: [p["conv"]])
    params, _ = chosen.init(KEY, X)
    assert float(chosen.penalty(params)) == pytest.approx(crossed, rel=1e-5)
    every = sluice([stage], {"a": layer}, orthogonality=1.0)
    assert float(every.penalty(params)) == pytest.approx(crossed + 9 * 4**2, rel=1e-5)
    narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    assert every.penalty(narrow).dtype == jnp.float32


def penalized(params, **options):
    model = sluice([holding(params)], {"a": layer}, orthogonality=1.0, **options)
    return model.penalty(model.init(KEY, X)[0])


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            lambda: sluice(STAGES, HEADS, subspaces=0),
            ValueError,
            "sluice: subspaces must be at least 1, found 0",
        ),
        (lambda: sluice(STAGES, HEADS, subspaces=2.0), TypeError, "must be an integer, found 2.0"),
        (
            lambda: sluice(STAGES, HEADS, last=-0.1),
            ValueError,
            "sluice: last must be at least 0 and at most 1, found -0.1",
        ),
        (lambda: sluice(STAGES, HEADS, orthogonality=-1.0), ValueError, "orthogonality must be at least 0, found -1.0"),
        (
            lambda: sluice(STAGES, HEADS, subspaces=1, orthogonality=1.0),
            ValueError,
            "sluice: orthogonality must be None where subspaces is 1, found 1.0",
        ),
        (
            lambda: sluice(STAGES, HEADS, projections=[layer]),
            ValueError,
            "sluice: projections must be a sequence of Network or None, one per stage, for 2 stages",
        ),
        (lambda: sluice(STAGES, HEADS, projections=layer), TypeError, "one per stage, for 2 stages, found a Network"),
        (
            lambda: sluice(STAGES, HEADS, projections=[layer, len]),
            TypeError,
            "sluice: projections[1] must be a Network, found the function 'len'",
        ),
        (
            lambda: sluice(STAGES, HEADS, subspaces=3).init(KEY, X),
            ValueError,
            "C a multiple of subspaces, 3, found an array of shape (6, 4)",
        ),
        (
            lambda: sluice([dense(2), layer], HEADS).init(KEY, X),
            ValueError,
            "sluice: task 'depth' mixes layers that differ (give projections that bring them to one shape): "
            "features are float32 (6, 2) after stage 0 but float32 (6, 4) after stage 1",
        ),
        (
            lambda: penalized({"w": jnp.ones((4, 3))}),
            ValueError,
            "axis of kernels must be a multiple of subspaces, 2, found shape (4, 3); give kern",
        ),
        (
            lambda: penalized({"b": jnp.ones(4)}),
            ValueError,
            "kernels must return an array for at least one stage, found none",
        ),
    ],
)
def test_mistakes_get_messages(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)

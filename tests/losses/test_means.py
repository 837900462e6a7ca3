"""What a mean is taken over: published definitions, in float64, as oracles."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import mtljax
from mtljax import losses, training
from mtljax.losses import PADDING, masked_loss, masked_mean
from mtljax.types import Batch, Model, Params, Task

DEVICES = 4
needs_devices = pytest.mark.skipif(jax.device_count() < DEVICES, reason=f"needs {DEVICES} devices")


def normal_loss(outputs, targets):
    """One minus cosine, of a pixel; its derivative at outputs of 0 is NaN."""
    return 1 - jnp.sum(outputs / jnp.linalg.norm(outputs, axis=-1, keepdims=True) * targets, -1)


DENSE = {
    "depth": Task(losses.absolute_error, {"squares": losses.squared_error}),
    "normals": Task(normal_loss),
    "segmentation": Task(losses.softmax_cross_entropy, {"accuracy": mtljax.metrics.accuracy}),
    # The labels say which tokens have one: more of them for the metric than for the loss.
    "tags": Task(losses.token_cross_entropy, {"accuracy": losses.token_accuracy}),
}
SIZES = {"depth": 1, "normals": 3, "segmentation": 5, "tags": 3}


def dense(size=8, seed=0):
    """Maps with holes, as of NYUv2: void is -1, depth and normals are 0 where there is none; and tags with padding."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 4, (size, 4, 3)).astype(np.float32) * (rng.random((size, 4, 3)) < 0.6)
    normals = rng.normal(size=(size, 4, 3, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals *= (rng.random((size, 4, 3, 1)) < 0.5).astype(np.float32)
    void = rng.random((size, 4, 3)) < 0.3
    void[: size // 2] |= rng.random((size // 2, 4, 3)) < 0.6  # the first devices have few
    tags = np.where(np.arange(12) < rng.integers(0, 13, size)[:, None], rng.integers(-2, 3, (size, 12)), PADDING)
    targets = {
        "depth": np.where(depth > 0, depth, np.nan),
        "normals": np.where(normals.any(-1, keepdims=True), normals, np.nan),
        "segmentation": np.where(void, 255, rng.integers(0, 5, void.shape)),
        "tags": tags,
    }
    mask = {"depth": depth > 0, "normals": normals.any(-1), "segmentation": ~void}
    return Batch(rng.normal(size=(size, 4, 3, 2)).astype(np.float32), targets, mask)


def network():
    keys = dict(zip([*SIZES, "shared"], jax.random.split(jax.random.key(0), 5), strict=True))
    heads = {name: jax.random.normal(keys[name], (4, k)) for name, k in SIZES.items()}
    params = Params(jax.random.normal(keys["shared"], (2, 4)), heads)

    def apply(params, state, x, *, tasks=None, key=None, train=False):
        features = jnp.tanh(x @ params.shared)
        found = {name: features @ params.tasks[name] for name in SIZES}
        found["tags"] = found["tags"].reshape(len(x), 12, -1)
        return found | {"depth": found["depth"][..., 0]}, state

    return Model(lambda key, inputs: (params, ()), apply), params


MODEL, PARAMS = network()
F = mtljax.make_losses_fn(MODEL, DENSE)


def published(params, batch):
    """The losses of LibMTL's examples (sums over valid pixels by their number in the batch), and tagging's."""
    z = MODEL.apply(params, (), jnp.asarray(batch.inputs))[0]
    valid = {**batch.mask, "tags": batch.targets["tags"] >= 0}
    z = {name: each[valid[name]] for name, each in z.items()}
    y = {name: jnp.asarray(batch.targets[name][valid[name]]) for name in z}
    log = {name: jax.nn.log_softmax(z[name]) for name in ("segmentation", "tags")}
    nll = {name: -jnp.sum(jnp.take_along_axis(log[name], y[name][:, None], 1)) / len(y[name]) for name in log}
    unit = z["normals"] / jnp.linalg.norm(z["normals"], axis=-1, keepdims=True)
    return {
        **nll,
        "depth": jnp.sum(jnp.abs(z["depth"] - y["depth"])) / len(y["depth"]),
        "normals": 1 - jnp.sum(unit * y["normals"]) / len(y["normals"]),
    }


@functools.cache
def by_hand():
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(np.float64(leaf)), PARAMS)

        def both(params):
            found = published(params, dense())
            return found, found

        slopes, found = jax.jit(jax.jacrev(both, has_aux=True))(wide)
        return jax.tree.map(np.asarray, (found, slopes))


def devices():
    return jax.make_mesh((DEVICES,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:DEVICES])


def test_dense_tasks_and_tagging_have_the_published_means():
    batch = dense()

    def both(params):
        found, aux = F(params, (), batch)
        return found, (found, aux)

    slopes, (found, aux) = jax.jit(jax.jacrev(both, has_aux=True))(PARAMS)
    expected, expected_slopes = by_hand()
    for name in DENSE:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-6)
        np.testing.assert_allclose(slopes[name].shared, expected_slopes[name].shared, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(slopes[name].tasks[name], expected_slopes[name].tasks[name], rtol=2e-5, atol=1e-6)
    tags = batch.targets["tags"]
    assert aux.weight_sum.tolist() == [*(batch.mask[name].sum() for name in sorted(batch.mask)), (tags >= 0).sum()]
    assert aux.metric_weight_sum["tags"]["accuracy"] == (tags != PADDING).sum() > aux.weight_sum[3]


def test_micro_batches_are_merged_by_their_sums_of_weights():
    batch = dense()
    parts = jax.tree.map(lambda leaf: leaf.reshape(4, 2, *leaf.shape[1:]), batch)
    found, aux = jax.jit(jax.vmap(lambda part: F(PARAMS, (), part)))(parts)
    for k, name in enumerate(DENSE):
        mean, weight_sum = masked_mean(found[name], aux.weight_sum[:, k])
        np.testing.assert_allclose(mean, by_hand()[0][name], rtol=2e-6)
        assert weight_sum == aux.weight_sum[:, k].sum()


def test_evaluation_does_not_depend_on_the_batches():
    state = mtljax.TrainState(0, PARAMS, (), (), (), None)
    evaluate = training.make_evaluate(MODEL, DENSE)
    whole = evaluate(state, [dense()])
    parts = [mtljax.data.evaluation_batches(dense(), 3)]
    if jax.device_count() >= DEVICES:
        spread = NamedSharding(devices(), PartitionSpec("batch"))
        parts.append(iter([jax.device_put(dense(), spread)]))
    for batches in parts:
        found = evaluate(state, batches)
        for name, each in whole.items():
            np.testing.assert_allclose(each["loss"], by_hand()[0][name], rtol=2e-6)
            for metric, value in each.items():
                np.testing.assert_allclose(found[name][metric], value, rtol=2e-6)


@needs_devices
def test_devices_with_unequal_sums_of_weights_take_the_step_of_one():
    found = []
    for axis_name in (None, "batch"):
        init, step = training.make_train_step(F, mtljax.methods.pooled(), optax.sgd(0.1), axis_name=axis_name)
        run = jax.jit(step)
        if axis_name:
            specs = (PartitionSpec(), PartitionSpec("batch"))
            run = jax.jit(jax.shard_map(step, mesh=devices(), in_specs=specs, out_specs=PartitionSpec()))
        state, metrics = run(init(PARAMS, key=jax.random.key(0)), dense())
        found.append((state.params, metrics["losses"], metrics["weights"], metrics["tasks"]))
    one, many = map(jax.tree.leaves, found)
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=1e-6)
    counts = [*(mask.sum() for _, mask in sorted(dense().mask.items())), (dense().targets["tags"] >= 0).sum()]
    np.testing.assert_allclose(list(found[1][2].values()), np.divide(counts, sum(counts)), rtol=1e-6)


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_the_ratio_is_exact_for_weights_of_any_size(size):
    """Sums of .25, of 1e-30, and products with losses that would overflow."""
    values, weights = np.array([1e4, 1e10, 3e4], np.float32), np.float32([0.05, 0.0, 0.2])
    run = jax.jit(jax.value_and_grad(masked_mean, has_aux=True))
    (mean, weight_sum), slope = run(values, weights * np.float32(size))
    np.testing.assert_allclose(mean, np.average(np.float64(values), weights=np.float64(weights)), rtol=1e-6)
    np.testing.assert_allclose(weight_sum, 0.25 * size, rtol=1e-6)
    np.testing.assert_allclose(slope, [0.2, 0.0, 0.8], rtol=1e-6)


def test_elements_of_an_example_have_its_weight_each():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for mask, every in (
        ([True, False], [[1, 1, 1], [0, 0, 0]]),
        ([0.5, 2.0], [[0.5] * 3, [2.0] * 3]),
        ([[0.5, 0.0, 1.0], [0.0, 2.0, 2.0]], [[0.5, 0.0, 1.0], [0.0, 2.0, 2.0]]),
    ):
        mean, weight_sum = masked_mean(values, jnp.asarray(mask))
        np.testing.assert_allclose(mean, np.average(values, weights=every), rtol=1e-6)
        assert weight_sum == np.sum(every)


def test_weights_of_examples_and_tasks():
    """Importance weights, and a task whose weights are all 0: it is absent, though every label is there."""
    apply = lambda params, state, x, **rest: ({k: x @ params.shared + params.tasks[k] for k in "abc"}, state)  # noqa: E731
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 2)).astype(np.float32), rng.normal(size=(3, 6)).astype(np.float32)
    w = {"a": np.float32(rng.exponential(size=6)) / 50, "b": np.float32([0, 0, 3, 0, 1e-3, 0]), "c": np.zeros(6, "f4")}
    y[1, 0], y[2] = np.nan, np.inf
    f = mtljax.make_losses_fn(Model(None, apply), dict.fromkeys("abc", Task(losses.squared_error)))
    init, step = training.make_train_step(f, mtljax.methods.equal(), optax.sgd(0.1))
    params = Params(jnp.ones(2), dict.fromkeys("abc", jnp.float32(0.5)))
    state, metrics = jax.jit(step)(init(params, key=jax.random.key(0)), Batch(x, dict(zip("abc", y, strict=True)), w))
    errors = x @ np.ones(2) + 0.5 - y
    slopes = np.zeros(2)
    for k, name in enumerate("ab"):
        there = w[name] > 0
        share = w[name][there] / w[name].astype(np.float64).sum()
        np.testing.assert_allclose(metrics["losses"][name], share @ errors[k][there] ** 2, rtol=1e-5)
        slopes += 2 * (share * errors[k][there]) @ x[there]
    np.testing.assert_allclose(state.params.shared, 1 - 0.1 * slopes, rtol=1e-5)
    assert metrics["losses"]["c"] == 0 and state.params.tasks["c"] == 0.5
    assert {k: bool(v) for k, v in metrics["active"].items()} == {"a": True, "b": True, "c": False}
    assert metrics["nonfinite"] == {"a": 0, "b": 0, "c": 0}


def test_nan_in_what_is_hidden_reaches_no_gradient():
    """In targets and in outputs, of every loss; the gradient is that of the elements that are there."""
    shown = jnp.array([[True, False, True], [False, False, True]])
    for loss, width in ((losses.squared_error, ()), (normal_loss, (3,)), (losses.binary_cross_entropy, ())):
        z = jax.random.normal(jax.random.key(1), (2, 3, *width))
        y = jax.random.uniform(jax.random.key(2), z.shape)

        def mean(z, y, mask, loss=loss):
            return masked_loss(loss, z, y, mask=mask)[0]

        wide = shown.reshape(shown.shape + (1,) * len(width))
        for mask in (shown, 0.25 * shown):
            run = jax.jit(jax.value_and_grad(mean))
            _, found = run(jnp.where(wide, z, jnp.nan), jnp.where(wide, y, jnp.nan), mask)
            assert not found[~shown].any()
            _, expected = jax.jit(jax.value_and_grad(mean))(z[shown], y[shown], None)
            np.testing.assert_allclose(found[shown], expected, rtol=2e-6, atol=1e-7)
            value, nothing = run(z * jnp.nan, y, jnp.zeros_like(mask))
            assert value == 0 and not nothing.any()


def test_a_row_of_labels_may_miss_one():
    """One bit of a multi-label row is unknown; the mean is over the bits of the batch that are known."""
    rows = np.array([[1, 0, np.nan], [np.nan, np.nan, 1], [0, 1, 1]], np.float32)
    batch = mtljax.data.mask_missing(Batch(np.zeros(3), {"bits": rows}), axes=2)
    z = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    found = masked_loss(losses.binary_cross_entropy, z, batch.targets["bits"], mask=batch.mask["bits"])
    z, y = np.float64(z), np.nan_to_num(rows)
    expected = (np.log1p(np.exp(z)) - y * z)[~np.isnan(rows)]
    np.testing.assert_allclose(found, [expected.mean(), 6], rtol=1e-6)


def test_a_mask_multiplies_the_losses_own_weights():
    values, own = jnp.array([[1.0, 2.0], [4.0, 8.0]]), jnp.array([[True, True], [False, True]])
    loss = lambda z, y: (z, own)  # noqa: E731
    for mask, expected in (
        (None, [11 / 3, 3]),
        (jnp.array([True, False]), [1.5, 2]),
        (jnp.array([1.0, 0.5]), [7 / 2.5, 2.5]),
        (jnp.array([[0.0, 0.5], [1.0, 1.0]]), [9 / 1.5, 1.5]),
    ):
        np.testing.assert_allclose(masked_loss(loss, values, values, mask=mask), expected, rtol=1e-6)
    # By example, of a mask by element; and weights that are NaN where the mask hides.
    mask = jnp.array([[1.0, 0.5], [0.0, 0.0]])
    by_example = jax.jit(lambda w: masked_loss(lambda z, y: (z, w), values, values, mask=mask))
    np.testing.assert_allclose(by_example(jnp.array([2.0, jnp.nan])), [4 / 3, 3], rtol=1e-6)


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_a_traced_weight_that_is_wrong_leaves_the_task_out(wrong):
    """As a traced label out of range does: the task is counted in `nonfinite`, and does not pass for absent."""
    apply = lambda params, state, x, **rest: ({k: x * params.shared for k in "ab"}, state)  # noqa: E731
    f = mtljax.make_losses_fn(Model(None, apply), dict.fromkeys("ab", Task(losses.squared_error)))
    init, step = training.make_train_step(f, mtljax.methods.equal(), optax.sgd(0.1))
    batch = Batch(np.ones(2, "f4"), dict.fromkeys("ab", np.zeros(2, "f4")), {"a": np.float32([0.0, wrong])})
    state, metrics = jax.jit(step)(init(Params(jnp.ones(()), {"a": (), "b": ()}), key=jax.random.key(0)), batch)
    assert jnp.isnan(metrics["losses"]["a"]) and metrics["nonfinite"] == {"a": 1, "b": 0}
    np.testing.assert_allclose(state.params.shared, 0.8, rtol=1e-6)


def test_many_tasks_of_one_form_by_vmap():
    """Losses and sums of weights of a bank `[B, n, ...]` are those of its tasks, one by one."""
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(2, 5, 3, 2)).astype(np.float32)
    for mask in (rng.random((5, 3)) < 0.5, np.float32(rng.random((5, 3, 2)) * (rng.random((5, 3, 2)) < 0.5))):
        one = lambda z, y, mask: masked_loss(losses.huber(), z, y, mask=mask)  # noqa: E731
        means, weight_sums = jax.jit(jax.vmap(one, in_axes=1))(z, y, mask)
        expected = [jax.jit(one)(z[:, k], y[:, k], mask[:, k]) for k in range(3)]
        np.testing.assert_allclose(np.stack([means, weight_sums], 1), expected, rtol=1e-6)
    means, weight_sums = jax.vmap(lambda z, y: masked_loss(losses.huber(), z, y), in_axes=1)(z, y)
    assert means.shape == weight_sums.shape == (3,) and weight_sums.tolist() == [10.0] * 3


def test_weights_that_are_learned_have_a_derivative():
    values, weights = jnp.array([1.0, jnp.nan, 5.0]), jnp.array([1.0, 0.0, 3.0])
    slope = jax.grad(lambda w: masked_mean(values, w)[0])(weights)
    np.testing.assert_allclose(slope[jnp.array([0, 2])], [-0.75, 0.25], rtol=1e-6)
    assert jnp.isfinite(slope).all()


def test_a_task_without_a_token_moves_no_state():
    """Its weights alone tell: there is no mask."""
    apply = lambda params, state, x, **rest: ({"a": x}, {"a": state["a"] + 1, "seen": state["seen"] + 1})  # noqa: E731
    f = mtljax.make_losses_fn(Model(None, apply), {"a": Task(losses.token_cross_entropy)})
    state = {"a": jnp.zeros(()), "seen": jnp.zeros(())}
    for label, moved in ((PADDING, 0), (1, 1)):
        batch = Batch(jnp.zeros((1, 2, 3)), {"a": jnp.full((1, 2), label)})
        _, aux = f(Params((), {"a": ()}), state, batch)
        assert aux.state == {"a": moved, "seen": moved} and aux.weight_sum.tolist() == [2 * moved]

"""Losses: values against formulas, shapes that must not broadcast, and labels that must not leak."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import losses
from mtljax.losses import masked_loss, masked_mean

REGRESSION = {
    "squared_error": losses.squared_error,
    "absolute_error": losses.absolute_error,
    "huber": losses.huber(0.7),
    "binary_cross_entropy": losses.binary_cross_entropy,
}
ALL = {**REGRESSION, "softmax_cross_entropy": losses.softmax_cross_entropy}

# The same formulas, in float64.
ORACLES = {
    "squared_error": lambda z, y: (z - y) ** 2,
    "absolute_error": lambda z, y: abs(z - y),
    "huber": lambda z, y: np.where(abs(z - y) <= 0.7, (z - y) ** 2 / 2, 0.7 * (abs(z - y) - 0.35)),
    "binary_cross_entropy": lambda z, y: np.log1p(np.exp(z)) - y * z,
}


def example(name, shape=(6,), seed=0):
    """Random outputs and targets that the loss takes, in float32."""
    rng = np.random.default_rng(seed)
    if name == "softmax_cross_entropy":
        return rng.normal(size=(*shape, 5)).astype(np.float32), rng.integers(5, size=shape)
    targets = rng.uniform(size=shape) if name == "binary_cross_entropy" else rng.normal(size=shape)
    return (2 * rng.normal(size=shape)).astype(np.float32), targets.astype(np.float32)


@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 2, 3)])
@pytest.mark.parametrize("name", REGRESSION)
def test_elements_equal_the_formula(name, shape):
    outputs, targets = example(name, shape)
    expected = ORACLES[name](outputs.astype(np.float64), targets.astype(np.float64))
    np.testing.assert_allclose(REGRESSION[name](outputs, targets), expected, rtol=2e-6)


@pytest.mark.parametrize("shape", [(6,), (6, 3)])
def test_softmax_cross_entropy_equals_the_formula(shape):
    outputs, targets = example("softmax_cross_entropy", shape)
    logits = outputs.astype(np.float64)
    chosen = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    expected = np.log(np.exp(logits).sum(-1)) - chosen
    np.testing.assert_allclose(losses.softmax_cross_entropy(outputs, targets), expected, rtol=2e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_losses_are_float32_at_least(name, dtype):
    outputs, targets = example(name)
    values = jax.jit(ALL[name])(jnp.asarray(outputs, dtype), targets)
    assert values.shape == (6,)
    assert values.dtype == jnp.float32
    assert jnp.isfinite(values).all()


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_cross_entropies_stay_finite_at_large_logits(scale):
    assert jnp.isfinite(losses.binary_cross_entropy(jnp.full(2, scale), jnp.array([0, 1]))).all()
    assert jnp.isfinite(losses.softmax_cross_entropy(scale * jnp.eye(2), jnp.array([0, 0]))).all()


@pytest.mark.parametrize("name", REGRESSION)
@pytest.mark.parametrize(
    ("outputs", "targets"), [((4, 1), (4,)), ((4,), (4, 1)), ((4, 3), (4, 1)), ((4,), ()), ((), ())]
)
def test_shapes_that_would_broadcast_raise(name, outputs, targets):
    with pytest.raises(
        ValueError, match=rf"{name}: outputs and targets must both be .* found outputs \[.*\] and targets"
    ):
        REGRESSION[name](jnp.zeros(outputs), jnp.zeros(targets))


@pytest.mark.parametrize(("outputs", "targets"), [((4, 5), (4, 1)), ((4,), (4,)), ((4, 1, 5), (4,)), ((5,), ())])
def test_logits_need_exactly_one_axis_more_than_labels(outputs, targets):
    with pytest.raises(
        ValueError, match=r"softmax_cross_entropy: outputs must be \[B, ..., C\] and targets \[B, ...\], found"
    ):
        losses.softmax_cross_entropy(jnp.zeros(outputs), jnp.zeros(targets, int))


def test_wrong_types_raise():
    with pytest.raises(TypeError, match=r"targets must be integer labels, found .* float32"):
        losses.softmax_cross_entropy(jnp.zeros([2, 3]), jnp.zeros(2))
    with pytest.raises(TypeError, match=r"squared_error: outputs must be .* floating type, found .* int32"):
        losses.squared_error(jnp.zeros(2, jnp.int32), jnp.zeros(2))


def test_a_delta_of_zero_raises():
    with pytest.raises(ValueError, match="huber: delta must be above 0, found 0"):
        losses.huber(0.0)


def test_masked_mean_by_hand():
    values, mask = jnp.array([1.0, 2.0, 6.0]), jnp.array([True, False, True])
    assert [float(x) for x in masked_mean(values, mask)] == [3.5, 2.0]
    assert [float(x) for x in masked_mean(values)] == [3.0, 3.0]
    assert [float(x) for x in masked_mean(values, jnp.zeros(3, bool))] == [0.0, 0.0]
    assert [float(x) for x in masked_mean(jnp.zeros(0))] == [0.0, 0.0]


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
def test_masked_mean_never_reads_a_masked_value(junk):
    values, mask = jnp.array([1.0, junk, 3.0]), jnp.array([True, False, True])
    (mean, count), gradient = jax.value_and_grad(masked_mean, has_aux=True)(values, mask)
    assert (float(mean), float(count)) == (2.0, 2.0)
    assert gradient.tolist() == [0.5, 0.0, 0.5]
    assert float(masked_mean(values, jnp.zeros(3, bool))[0]) == 0.0


def test_masked_mean_of_a_labeled_nan_is_nan():
    assert jnp.isnan(masked_mean(jnp.array([jnp.nan, 1.0]), jnp.array([True, False]))[0])


def test_masked_mean_accumulates_half_precision_in_float32():
    mean, count = masked_mean(jnp.full(5000, 0.1, jnp.bfloat16))
    assert mean.dtype == count.dtype == jnp.float32
    np.testing.assert_allclose(mean, np.float32(jnp.bfloat16(0.1)), rtol=1e-5)
    assert float(count) == 5000


@pytest.mark.parametrize("junk", [np.nan, np.inf])
@pytest.mark.parametrize("name", REGRESSION)
def test_gradients_with_missing_labels_equal_those_of_the_labeled_batch(name, junk):
    """The network is linear, its outputs are wild where the label is missing, and the label itself is junk."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(8, 3)).astype(np.float32)
    _, targets = example(name, (8,))
    mask = np.array([1, 0, 1, 1, 0, 0, 1, 0], bool)
    targets[~mask] = junk
    inputs[1] *= 1e30  # overflows when squared
    weights = rng.normal(size=3).astype(np.float32)

    def mean(weights, inputs, targets, mask):
        return masked_loss(REGRESSION[name], inputs @ weights, targets, mask=mask)[0]

    value, gradient = jax.value_and_grad(mean)(weights, inputs, targets, mask)
    sub_value, sub_gradient = jax.value_and_grad(mean)(weights, inputs[mask], targets[mask], None)
    np.testing.assert_allclose(value, sub_value, rtol=1e-6)
    np.testing.assert_allclose(gradient, sub_gradient, rtol=2e-6, atol=1e-7)
    # Forward mode, as the Gramian engine uses it.
    tangent = jax.jvp(lambda w: mean(w, inputs, targets, mask), (weights,), (np.ones_like(weights),))[1]
    np.testing.assert_allclose(tangent, gradient.sum(), rtol=1e-5)
    # No label at all: nothing to learn, and nothing to poison.
    assert not jax.grad(mean)(weights, inputs, np.full_like(targets, junk), np.zeros(8, bool)).any()


def test_masked_loss_of_classes_ignores_labels_that_do_not_exist():
    outputs, targets = example("softmax_cross_entropy", (4,))
    mask = np.array([True, False, True, False])
    targets[~mask] = 99

    def mean(outputs):
        return masked_loss(losses.softmax_cross_entropy, outputs, targets, mask=mask)[0]

    value, gradient = jax.value_and_grad(mean)(outputs)
    expected = losses.softmax_cross_entropy(outputs[mask], targets[mask]).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert not gradient[~mask].any()
    assert jnp.isfinite(gradient).all()


def test_masked_loss_makes_no_nan_on_the_way():
    outputs, mask = jnp.array([1.0, jnp.inf]), jnp.array([True, False])
    targets = jnp.array([0.0, jnp.nan])
    with jax.debug_nans(True):
        gradient = jax.grad(lambda z: masked_loss(losses.squared_error, z, targets, mask=mask)[0])(outputs)
    assert gradient.tolist() == [2.0, 0.0]


def test_masked_loss_with_a_full_mask_equals_no_mask():
    outputs, targets = example("squared_error", (6, 2))
    full = masked_loss(losses.squared_error, outputs, targets, mask=np.ones(6, bool))
    assert [float(x) for x in full] == [float(x) for x in masked_loss(losses.squared_error, outputs, targets)]


def test_masked_loss_takes_trees():
    def loss(outputs, targets):
        return losses.squared_error(outputs["mean"], targets["y"]) + jnp.exp(outputs["log_variance"])

    outputs = {"mean": jnp.array([1.0, 2.0]), "log_variance": jnp.zeros(2)}
    mean, count = masked_loss(loss, outputs, {"y": jnp.array([0.0, jnp.nan])}, mask=jnp.array([True, False]))
    assert (float(mean), float(count)) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            TypeError,
            "masked_mean: mask must be of dtype bool, or floating weights, found int32",
            lambda values: masked_mean(values, jnp.ones(3, jnp.int32)),
        ),
        (
            ValueError,
            r"masked_mean: mask must have the shape of the first axes of values, \[3\], found \[3, 1\]",
            lambda values: masked_mean(values, jnp.ones([3, 1], bool)),
        ),
        (
            ValueError,
            r"masked_mean: values must be \[B, ...\], found \[\]",
            lambda values: masked_mean(values[0]),
        ),
        (
            TypeError,
            r"masked_mean: values must be .* floating type, found .* int32",
            lambda values: masked_mean(jnp.zeros(3, jnp.int32)),
        ),
        (
            ValueError,
            r"masked_loss: the mask of the loss must have the shape .* what the loss returns, \[3\], found \[\]",
            lambda values: masked_loss(losses.squared_error, values, values, mask=jnp.array(True)),
        ),
        (
            ValueError,
            r"masked_loss: outputs and targets must be \[B, ...\] with one B",
            lambda values: masked_loss(losses.squared_error, values, jnp.zeros(1), mask=jnp.ones(3, bool)),
        ),
    ],
)
def test_masks_of_the_wrong_kind_raise(error, message, call):
    with pytest.raises(error, match=message):
        call(jnp.zeros(3))

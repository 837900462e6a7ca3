"""Losses over tokens: padding never counts, and the mean over tokens comes out exactly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax.losses import PADDING, UNSEEN, has_tokens, masked_loss, token_accuracy, token_cross_entropy

TARGETS = np.array([[0, 2, PADDING, PADDING], [1, PADDING, 0, 2], [2, UNSEEN, 1, PADDING], [PADDING] * 4])
LOGITS = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)


def reference(logits, targets):
    """Per token, float64: cross-entropy, whether it is labelled, whether it is right, whether it is counted."""
    z = logits.astype(np.float64)
    loss = np.log(np.exp(z).sum(-1)) - np.take_along_axis(z, np.maximum(targets, 0)[..., None], -1)[..., 0]
    return loss, targets >= 0, z.argmax(-1) == targets, targets != -1


def test_means_are_over_the_labeled_tokens_of_the_batch():
    loss, labeled, right, counted = reference(LOGITS, TARGETS)
    found = [float(each) for each in masked_loss(token_cross_entropy, LOGITS, TARGETS)]
    assert found == [pytest.approx(loss[labeled].mean(), rel=1e-6), labeled.sum()]
    found = [float(each) for each in masked_loss(token_accuracy, LOGITS, TARGETS)]
    assert found == [pytest.approx(right[counted].mean(), rel=1e-6), counted.sum()]


def test_weights_of_sentences_make_the_mean_over_sentences():
    """A sentence without a token has no weight, whatever its mask."""
    loss, labeled, _, _ = reference(LOGITS, TARGETS)
    mask = jnp.asarray(1 / np.maximum(labeled.sum(1), 1), jnp.float32)
    mean, weight_sum = masked_loss(token_cross_entropy, LOGITS, TARGETS, mask=mask)
    np.testing.assert_allclose(mean, np.mean([loss[b][labeled[b]].mean() for b in range(3)]), rtol=1e-6)
    np.testing.assert_allclose(weight_sum, 3.0, rtol=1e-6)


def test_by_hand():
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.125, 0.125, 0.75], [1.0, 1.0, 1.0]]]))
    targets = jnp.array([[0, 1, PADDING]])
    values, weights = token_cross_entropy(logits, targets)
    np.testing.assert_allclose(values[0, :2], [np.log(2), np.log(8)], rtol=1e-6)
    assert weights.tolist() == [[True, True, False]]
    assert [each.tolist() for each in token_accuracy(logits, targets)] == [[[1.0, 0.0, 0.0]], [[True, True, False]]]
    # A label that is no class is counted as an error, and has no cross-entropy.
    unseen = targets.at[0, 1].set(UNSEEN)
    assert token_cross_entropy(logits, unseen)[1].tolist() == [[True, False, False]]
    assert [each.tolist() for each in token_accuracy(logits, unseen)] == [[[1.0, 0.0, 0.0]], [[True, True, False]]]


def test_the_library_reports_the_mean_over_tokens():
    loss, labeled, right, counted = reference(LOGITS, TARGETS)
    tasks = {"a": mtljax.Task(token_cross_entropy, {"accuracy": token_accuracy})}
    model = mtljax.Model(
        init=lambda key, inputs: (mtljax.Params((), {"a": ()}), ()),
        apply=lambda params, state, x, *, tasks=None, key=None, train=False: ({"a": x}, state),
    )
    state = mtljax.TrainState(0, mtljax.Params((), {"a": ()}), (), (), (), None)
    # Three to a batch: the second is filled up with an example that is masked, beside one without tokens.
    evaluate = mtljax.training.make_evaluate(model, tasks)
    found = evaluate(state, mtljax.data.evaluation_batches(mtljax.Batch(LOGITS, {"a": TARGETS}), 3))["a"]
    assert found["loss"] == pytest.approx(loss[labeled].mean(), rel=1e-6)
    assert found["accuracy"] == pytest.approx(right[counted].mean(), rel=1e-6)


def test_nothing_at_a_token_without_label_reaches_value_or_gradient():
    labeled = TARGETS >= 0
    total = jax.value_and_grad(lambda z: masked_loss(token_cross_entropy, z, TARGETS)[0])
    clean, gradient = total(jnp.asarray(LOGITS))
    for poison in (np.nan, np.inf):
        value, other = total(jnp.where(labeled[..., None], LOGITS, poison))
        assert value == clean
        np.testing.assert_array_equal(other, gradient)
    assert not np.asarray(gradient)[~labeled].any() and np.asarray(gradient)[labeled].any()
    # The derivative at a labelled token is softmax minus one-hot, over the number of tokens.
    softmax = np.exp(LOGITS[1, 0]) / np.exp(LOGITS[1, 0]).sum()
    np.testing.assert_allclose(gradient[1, 0], (softmax - np.eye(3)[1]) / labeled.sum(), rtol=1e-5)


def test_half_precision_is_accumulated_in_float32_and_several_axes_of_tokens_are_one():
    logits, targets = jnp.asarray(LOGITS, jnp.bfloat16), jnp.asarray(TARGETS)
    value = token_cross_entropy(logits, targets)[0]
    assert value.dtype == jnp.float32 and token_accuracy(logits, targets)[0].dtype == jnp.float32
    np.testing.assert_array_equal(value, token_cross_entropy(logits.astype(jnp.float32), targets)[0])
    grid = token_cross_entropy(LOGITS.reshape(4, 2, 2, 3), TARGETS.reshape(4, 2, 2))[0]
    np.testing.assert_allclose(grid.reshape(4, 4), token_cross_entropy(LOGITS, TARGETS)[0], rtol=1e-6)


def test_has_tokens_is_the_mask_of_the_task():
    assert has_tokens(TARGETS).tolist() == [True, True, True, False]
    assert has_tokens(jnp.array([[UNSEEN, PADDING]])).tolist() == [True]


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            TypeError,
            "outputs must be .* floating type, found .* int32",
            lambda make: make(jnp.ones([2, 3, 4], jnp.int32), jnp.ones([2, 3], jnp.int32)),
        ),
        (
            TypeError,
            "targets must be integer labels, found .* float32",
            lambda make: make(jnp.ones([2, 3, 4]), jnp.ones([2, 3])),
        ),
        (
            TypeError,
            "targets must be signed integer labels, found uint8",
            lambda make: make(jnp.ones([2, 3, 4]), jnp.ones([2, 3], jnp.uint8)),
        ),
        *(
            (
                ValueError,
                rf".*found outputs \[2, 3, 4\] and targets \{shape}",
                lambda make, shape=shape: make(jnp.ones([2, 3, 4]), jnp.ones(shape, jnp.int32)),
            )
            for shape in ([2, 4], [3], [2, 3, 1])
        ),
        (ValueError, ".* an axis of tokens", lambda make: make(jnp.ones([2, 4]), jnp.ones([2], jnp.int32))),
    ],
)
@pytest.mark.parametrize("make", [token_cross_entropy, token_accuracy])
def test_what_does_not_fit_is_refused(make, error, message, call):
    with pytest.raises(error, match=f"{make.__name__}: {message}"):
        call(make)


def test_has_tokens_refuses_what_has_no_tokens():
    with pytest.raises(TypeError, match="has_tokens: targets must be integer class labels, found float32"):
        has_tokens(jnp.ones([2, 3]))
    with pytest.raises(ValueError, match=r"has_tokens: targets must be \[B, ...\] with an axis of tokens, found \[2\]"):
        has_tokens(jnp.ones([2], jnp.int32))

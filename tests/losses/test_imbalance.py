"""Imbalance: the papers' equations by hand, gradients against finite differences, frequencies as asked for."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtljax import losses
from mtljax.data.batches import batches
from mtljax.types import Batch

LOGITS = np.array([[0.3, -1.2, 2.0], [1.5, 1.4, -0.5], [-2.0, 0.1, 0.4], [0.0, 0.0, 0.0]])
LABELS = np.array([2, 0, 0, 1])
SCALARS, YES = np.array([-3.0, -0.4, 0.0, 2.5]), np.array([1.0, 0.0, 1.0, 1.0])


def softmax(logits):
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


LOSSES = {
    "weighted": losses.class_weighted(losses.softmax_cross_entropy, [1.0, 10.0, 0.5]),
    "focal 2": losses.softmax_focal(gamma=2.0),
    "focal .5": losses.softmax_focal(gamma=0.5),
    "focal 0": losses.softmax_focal(gamma=0.0),
    "adjusted": losses.logit_adjusted([6, 3, 1], tau=2.0),
    "adjusted 0": losses.logit_adjusted([6, 3, 1], tau=0.0),
    "plain": losses.softmax_cross_entropy,
}
BINARY = {
    "weighted": losses.class_weighted(losses.binary_cross_entropy, [1.0, 3.0]),
    "focal 2": losses.sigmoid_focal(gamma=2.0),
    "focal 2 .25": losses.sigmoid_focal(gamma=2.0, alpha=0.25),
    "focal .5": losses.sigmoid_focal(gamma=0.5),
    "focal 0": losses.sigmoid_focal(gamma=0.0),
    "adjusted": losses.sigmoid_logit_adjusted([9, 1]),
}
TWO = {"focal 2": LOSSES["focal 2"], "adjusted": losses.logit_adjusted([9, 1])}


@functools.cache
def found():
    """Every loss on every example, compiled once."""

    @jax.jit
    def values(logits, scalars):
        yes = jnp.asarray(YES, jnp.float32)
        two = jnp.stack([jnp.zeros(4), scalars], -1)
        return {
            "classes": {name: loss(logits, LABELS) for name, loss in LOSSES.items()},
            "binary": {name: loss(scalars, yes) for name, loss in BINARY.items()},
            "two": {name: loss(two, YES.astype(int)) for name, loss in TWO.items()},
            "bool": BINARY["weighted"](scalars, yes == 1),
            "pairs": BINARY["focal 2"](scalars.reshape(2, 2), yes.reshape(2, 2)),
            "tokens": LOSSES["focal 2"](two.reshape(2, 2, 2), YES.astype(int).reshape(2, 2)),
            "sure": LOSSES["focal 2"](jnp.array([[20.0, 0.0]]), jnp.array([0])),
            "beyond": LOSSES["weighted"](jnp.zeros((2, 4)), jnp.array([3, 1])),
            "alone": jax.value_and_grad(lambda z: LOSSES["focal 0"](z, jnp.array([0]))[0])(jnp.array([[0, -jnp.inf]])),
            "half": LOSSES["adjusted"](jnp.zeros((2, 5, 3), jnp.bfloat16), jnp.zeros((2, 5), int)),
        }

    return values(jnp.float32(LOGITS), jnp.float32(SCALARS))


def close(values, expected, rtol=2e-6):
    assert values.dtype == jnp.float32 and values.shape == (4,)
    np.testing.assert_allclose(values, expected, rtol=rtol)


def test_counts():
    assert losses.class_counts(np.array([[0, 1], [1, 1]]), 3).tolist() == [1, 3, 0]
    assert losses.class_counts(np.array([True, False, True]), 2).tolist() == [1, 2]
    gap = losses.class_counts(np.array([0.0, np.nan, 1.0]), 2, mask=np.array([True, False, True]))
    assert gap.tolist() == [1, 1]
    assert losses.class_counts([], 2).tolist() == [0, 0]


def test_inverse_frequency_gives_every_class_one_share():
    counts = np.array([6, 3, 0, 1])
    weights = losses.inverse_frequency(counts)
    np.testing.assert_allclose(weights * counts, [10 / 3, 10 / 3, 0, 10 / 3], rtol=1e-6)
    np.testing.assert_allclose(losses.inverse_frequency(1e12 * counts), weights, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.9, 0.999])
def test_effective_number_is_the_paper_s(beta):
    counts = np.array([5000, 40, 1])
    effective = np.array([sum(beta**j for j in range(n)) for n in counts])  # the sum that (1 - beta^n)/(1 - beta) is
    weights = losses.effective_number(counts, beta=beta)
    np.testing.assert_allclose(weights / weights[0], effective[0] / effective, rtol=1e-5)
    np.testing.assert_allclose((weights * counts).sum(), counts.sum(), rtol=1e-5)


def test_effective_number_goes_from_equal_weights_to_inverse_frequency():
    counts = np.array([900, 90, 10])
    np.testing.assert_allclose(losses.effective_number(counts, beta=0.0), 1.0)
    nearly = losses.effective_number(counts, beta=1 - 1e-12)
    np.testing.assert_allclose(nearly, losses.inverse_frequency(counts), rtol=1e-6)
    default = losses.effective_number(counts)
    np.testing.assert_array_equal(default, losses.effective_number(counts, beta=0.999))
    for weigh in (losses.inverse_frequency, losses.effective_number):  # all classes absent but one
        assert weigh([0, 7, 0]).tolist() == weigh([0, 1, 0]).tolist() == [0, 1, 0]
    assert losses.effective_number([5, 0], beta=0.5).tolist() == [1, 0]


def test_class_weights_multiply():
    weights = np.array([1.0, 10.0, 0.5])
    close(found()["classes"]["weighted"], -np.log(softmax(LOGITS)[np.arange(4), LABELS]) * weights[LABELS])
    expected = -np.where(YES == 1, 3 * np.log(sigmoid(SCALARS)), np.log(sigmoid(-SCALARS)))
    close(found()["binary"]["weighted"], expected)
    close(found()["bool"], expected)


@pytest.mark.parametrize(
    ("name", "gamma", "alpha"), [("focal 2 .25", 2.0, 0.25), ("focal .5", 0.5, None), ("focal 0", 0.0, None)]
)
def test_binary_focal_loss(name, gamma, alpha):
    right = np.where(YES == 1, sigmoid(SCALARS), sigmoid(-SCALARS))
    factor = 1.0 if alpha is None else np.where(YES == 1, alpha, 1 - alpha)
    close(found()["binary"][name], -factor * (1 - right) ** gamma * np.log(right), rtol=5e-6)


@pytest.mark.parametrize(("name", "gamma"), [("focal 2", 2.0), ("focal .5", 0.5), ("focal 0", 0.0)])
def test_focal_loss_of_classes(name, gamma):
    right = softmax(LOGITS)[np.arange(4), LABELS]
    close(found()["classes"][name], -((1 - right) ** gamma) * np.log(right), rtol=5e-6)


def test_both_focal_losses_agree_on_two_classes_at_every_position():
    one = found()["binary"]["focal 2"]
    close(found()["two"]["focal 2"], one, rtol=5e-6)
    np.testing.assert_allclose(found()["pairs"], np.asarray(one).reshape(2, 2), rtol=1e-6)
    np.testing.assert_allclose(found()["tokens"], found()["pairs"], rtol=5e-6)


def test_focal_losses_keep_their_digits_where_the_answer_is_sure():
    # (1 - p)^2 (-log p) with 1 - p = e^-20, about e^-60: nothing is left of it in p rounded to float32.
    np.testing.assert_allclose(found()["sure"], [np.exp(-60.0)], rtol=1e-5)


def test_a_class_without_a_weight_gives_nan_and_one_that_is_the_only_possible_one_nothing():
    np.testing.assert_allclose(found()["beyond"], [np.nan, 10 * np.log(4)], rtol=1e-6)
    value, slope = found()["alone"]
    assert value == 0 and slope.tolist() == [[0, 0]]


def test_logit_adjustment():
    shifted = LOGITS + 2 * np.log([0.6, 0.3, 0.1])
    close(found()["classes"]["adjusted"], -np.log(softmax(shifted)[np.arange(4), LABELS]))
    close(found()["classes"]["adjusted 0"], found()["classes"]["plain"])
    close(found()["binary"]["adjusted"], found()["two"]["adjusted"])
    assert found()["half"].shape == (2, 5) and found()["half"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("loss", "outputs", "targets"),
    [
        (losses.softmax_focal(gamma=1.5), LOGITS, LABELS),
        pytest.param(
            losses.sigmoid_focal(gamma=1.5, alpha=0.3), SCALARS[:, None], YES[:, None], marks=pytest.mark.slow
        ),
    ],
)
def test_gradients_are_those_of_the_equations(loss, outputs, targets):
    with jax.enable_x64(True):
        value = jax.jit(lambda z: loss(z, targets))
        slope = jax.jit(jax.grad(lambda z: value(z).sum()))(outputs)
        for column in range(outputs.shape[1]):  # one example does not see another's logits
            step = 1e-6 * np.eye(outputs.shape[1])[column][None, :]
            numeric = (np.asarray(value(outputs + step)) - np.asarray(value(outputs - step))) / 2e-6
            np.testing.assert_allclose(slope[:, column], numeric, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("gamma", [0.5, pytest.param(2.0, marks=pytest.mark.slow)])
def test_gradients_far_out_are_finite(gamma):
    far = np.array([[1e4, -1e4], [-1e4, 1e4], [88.0, -88.0], [0.0, 0.0]], np.float32)
    classes, binary = losses.softmax_focal(gamma=gamma), losses.sigmoid_focal(gamma=gamma)
    total = lambda z: classes(z, jnp.zeros(4, int)).sum() + binary(z[:, 0], jnp.ones(4)).sum()  # noqa: E731
    assert bool(jnp.isfinite(jax.jit(jax.grad(total))(far)).all())


@pytest.mark.slow
def test_the_adjusted_minimizer_has_the_least_balanced_error():
    """Without inputs no class can be told from another, so the balanced logits are all alike."""
    counts = np.array([80, 15, 5])
    labels, alike = np.repeat(np.arange(3), counts), np.zeros((100, 3), np.float32)
    slope = jax.jit(jax.grad(lambda z: losses.logit_adjusted(counts)(z, labels).mean()))(alike)
    np.testing.assert_allclose(slope.sum(0), np.zeros(3), atol=1e-6)
    plain = jax.jit(jax.grad(lambda z: losses.softmax_cross_entropy(z, labels).mean()))(alike)
    assert float(jnp.abs(plain.sum(0)).max()) > 0.1


def test_resampling_gives_every_class_of_a_task_its_share():
    rng = np.random.default_rng(0)
    rare = (rng.random(400) < 0.05).astype(np.int32)
    split = Batch(np.arange(400), {"rare": rare, "other": rng.integers(0, 3, 400)}, {"rare": np.arange(400) % 7 > 0})
    counts = losses.class_counts(rare, 2, mask=split.mask["rare"])
    weights = losses.sampling_weights(split, {"rare": losses.inverse_frequency(counts)})
    drawn = list(itertools.islice(batches(split, batch_size=50, seed=0, weights=weights), 80))
    labels = np.concatenate([batch.targets["rare"][batch.mask["rare"]] for batch in drawn])
    assert abs(labels.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(labels))


def test_an_example_s_weight_is_the_mean_over_its_labeled_tasks():
    split = Batch(
        np.zeros(3),
        {"a": np.array([0, 1, 9]), "b": np.array([1.0, 0.0, np.nan])},
        {"a": np.array([True, True, False]), "b": np.array([True, False, False])},
    )
    weights = losses.sampling_weights(split, {"a": [1.0, 4.0], "b": [2.0, 7.0]})
    assert weights.tolist() == [4.0, 4.0, 4.0]  # (1 + 7)/2; 4; and their mean where nothing is labelled


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: losses.class_counts([0, 3], 3),
            ValueError,
            "class_counts: targets must be from 0 to 2, found 1 that are not",
        ),
        (lambda: losses.class_counts([0.5, np.nan], 2), ValueError, "targets must be from 0 to 1, found 2 that"),
        (lambda: losses.class_counts([0], 2, mask=np.ones(2, bool)), ValueError, r"mask must be of the shape .* \[1\]"),
        (lambda: losses.inverse_frequency([0, 0]), ValueError, "inverse_frequency: counts must be"),
        (lambda: losses.inverse_frequency([-1, 2]), ValueError, "must be at least 0, found"),
        (
            lambda: losses.effective_number([np.inf, 2]),
            ValueError,
            "effective_number: counts must be",
        ),
        (
            lambda: losses.effective_number([1], beta=1.0),
            ValueError,
            "beta must be at least 0 and below 1, found 1.0",
        ),
        (
            lambda: losses.class_weighted(losses.squared_error, [[1.0]]),
            ValueError,
            r"weights must be of shape \[C\]",
        ),
        (lambda: losses.class_weighted(losses.squared_error, [np.inf]), ValueError, "weights must be finite"),
        (
            lambda: losses.class_weighted(lambda z, y: losses.squared_error(z, y).mean(), [1.0])(YES, 0 * LABELS),
            ValueError,
            r"class_weighted: the loss must be \[4\], .* found \[\]",
        ),
        (lambda: losses.sigmoid_focal(gamma=-1), ValueError, "sigmoid_focal: gamma must be at least 0, found -1"),
        (
            lambda: losses.softmax_focal(gamma=np.inf),
            ValueError,
            "softmax_focal: gamma must be finite and at least 0, found inf",
        ),
        (
            lambda: losses.logit_adjusted([1, 1], tau=np.inf),
            ValueError,
            "tau must be finite and at least 0, found inf",
        ),
        (lambda: losses.sigmoid_focal(alpha=2), ValueError, "alpha must be at least 0 and at most 1, found 2"),
        (lambda: losses.softmax_focal()(jnp.zeros((2, 1)), jnp.zeros(2, int)), ValueError, "at least 2 classes"),
        (
            lambda: losses.sigmoid_focal()(jnp.zeros(2), jnp.zeros(3)),
            ValueError,
            r"one shape, found outputs \[2\] and targets \[3\]",
        ),
        (
            lambda: losses.sigmoid_focal()(jnp.zeros(2, int), jnp.zeros(2)),
            TypeError,
            "outputs must be .* floating type, found .* int32",
        ),
        (lambda: losses.logit_adjusted([1, 0]), ValueError, "logit_adjusted: counts must be above 0"),
        (
            lambda: losses.logit_adjusted([1, 1])(jnp.zeros((2, 3)), LABELS),
            ValueError,
            r"\[B, ..., 2\], found \[2, 3\]",
        ),
        (lambda: losses.sigmoid_logit_adjusted([1, 1, 1]), ValueError, r"counts must be \[2\]"),
        (
            lambda: losses.sampling_weights(Batch(0, {"a": 0}), {"b": [1]}),
            ValueError,
            r"tasks of \['a'\], found \['b'\]",
        ),
        (
            lambda: losses.sampling_weights(Batch(0, {"a": np.zeros((3, 2), int)}), {"a": [1]}),
            ValueError,
            r"targets\['a'\] must be \[N\], found \[3, 2\]",
        ),
        (
            lambda: losses.sampling_weights(Batch(0, {"a": LABELS}), {"a": [1, np.inf, 1]}),
            ValueError,
            r"sampling_weights: weights\['a'\] must be finite",
        ),
    ],
)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()

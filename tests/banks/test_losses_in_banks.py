"""Every loss and metric, mapped over a bank's tasks, is what it is for a single task."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from mtljax import losses, metrics
from mtljax.losses import PADDING
from mtljax.types import Batch, Model, Params, Task

B, N, NAMES = 5, 3, ("a0", "a1", "a2")
RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(B, N)).astype(np.float32), RNG.normal(size=(B, N)).astype(np.float32)
ROWS = RNG.normal(size=(B, N, 4)).astype(np.float32), RNG.normal(size=(B, N, 4)).astype(np.float32)
CLASSES = ROWS[0], RNG.integers(0, 4, (B, N))
BITS = NUMBERS[0], RNG.integers(0, 2, (B, N))
TOKENS = (
    RNG.normal(size=(B, N, 6, 4)).astype(np.float32),
    np.where(RNG.random((B, N, 6)) < 0.7, CLASSES[1][..., None], PADDING),
)

COUNTS = jnp.array([3.0, 1.0, 5.0, 2.0])
CASES = {
    "squared_error": (losses.squared_error, ROWS),
    "absolute_error": (losses.absolute_error, NUMBERS),
    "huber": (losses.huber(0.5), NUMBERS),
    "softmax_cross_entropy": (losses.softmax_cross_entropy, CLASSES),
    "binary_cross_entropy": (losses.binary_cross_entropy, BITS),
    "softmax_focal": (losses.softmax_focal(), CLASSES),
    "sigmoid_focal": (losses.sigmoid_focal(), BITS),
    "logit_adjusted": (losses.logit_adjusted(COUNTS), CLASSES),
    "sigmoid_logit_adjusted": (losses.sigmoid_logit_adjusted(jnp.array([3.0, 8.0])), BITS),
    "class_weighted": (losses.class_weighted(losses.softmax_cross_entropy, COUNTS), CLASSES),
    "token_cross_entropy": (losses.token_cross_entropy, TOKENS),
    "token_accuracy": (losses.token_accuracy, TOKENS),
    "accuracy": (metrics.accuracy, CLASSES),
}
ELSEWHERE = {
    # Of pairs of examples, or of a table of embeddings, and not of outputs and targets of one task.
    "info_nce", "nt_xent", "negative_sampling",
    # Means, class counts and weights, no losses.
    "PADDING", "UNSEEN", "Loss", "class_counts", "effective_number", "has_tokens", "inverse_frequency", "masked_loss",
    "masked_mean", "sampling_weights",
    # On the host, of a whole table or video.
    "TrackingCounts", "box_iou", "delta_m", "idf1", "mean_rank", "mota", "total_counts", "tracking_counts",
}  # fmt: skip


def test_every_loss_and_metric_has_a_case():
    assert {*losses.__all__, *metrics.__all__} == {*CASES, *ELSEWHERE}


def model(banked):
    """The inputs are the outputs, times a shared number."""

    def apply(params, state, x, *, tasks=None, key=None, train=False):
        found = params.shared * x
        return ({"a": found} if banked else {name: found[:, k] for k, name in enumerate(NAMES)}), state

    return Model(lambda key, x: (Params(jnp.ones(()), {}), ()), apply, banks={"a": NAMES} if banked else {})


@functools.partial(jax.jit, static_argnames=("name", "banked"))
def values(name, banked, x, y, mask):
    task = Task(CASES[name][0], {"metric": CASES[name][0]})
    targets, masks = ({"a": y}, {"a": mask}) if banked else ({}, {})
    if not banked:
        targets = {task: y[:, k] for k, task in enumerate(NAMES)}
        masks = {task: mask[:, k] for k, task in enumerate(NAMES)}
    f = mtljax.make_losses_fn(model(banked), dict.fromkeys(targets, task))
    params = Params(jnp.ones(()), dict.fromkeys(targets, ()))

    def total(shared):
        found, aux = f(params._replace(shared=shared), (), Batch(x, targets, masks))
        told = {task: each["metric"] for task, each in aux.metrics.items()}
        both = (
            [found["a"], told["a"]] if banked else [jnp.stack([each[name] for name in NAMES]) for each in (found, told)]
        )
        return both[0].sum(), (*both, aux.weight_sum)

    slope, rest = jax.grad(total, has_aux=True)(jnp.ones(()))
    return slope, *rest


@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_a_metric(name):
    x, y = map(jnp.asarray, CASES[name][1])
    mask = jnp.asarray(RNG.random((B, N)) < 0.7).at[0].set(True)
    for ours, theirs in zip(values(name, True, x, y, mask), values(name, False, x, y, mask), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-6)

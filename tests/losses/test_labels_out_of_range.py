"""A label out of range has one way: an error where its value is known, NaN where it is traced, nothing where masked."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mtljax
from mtljax import losses, training
from mtljax.losses import masked_loss, masked_mean, negative_sampling
from mtljax.metrics import accuracy

LOGITS, SCORES = np.zeros((3, 4), np.float32), np.zeros(3, np.float32)
CLASSES = {
    "softmax_cross_entropy": losses.softmax_cross_entropy,
    "softmax_focal": losses.softmax_focal(),
    "logit_adjusted": losses.logit_adjusted([4, 3, 2, 1]),
    "accuracy": accuracy,
    "class_weighted": losses.class_weighted(losses.softmax_cross_entropy, [1.0, 2.0, 3.0, 4.0]),
}
YES_OR_NO = {
    "binary_cross_entropy": losses.binary_cross_entropy,
    "sigmoid_focal": losses.sigmoid_focal(alpha=0.25),
    "sigmoid_logit_adjusted": losses.sigmoid_logit_adjusted([3, 1]),
}
TOKENS = {
    "token_cross_entropy": losses.token_cross_entropy,
    "token_accuracy": losses.token_accuracy,
    "negative_sampling": negative_sampling,
}
CASES = [
    *((name, loss, LOGITS, np.array([1, wrong, 3])) for name, loss in CLASSES.items() for wrong in (4, 255, -1, -100)),
    *((name, loss, LOGITS, np.array([1, 255, 3], np.uint8)) for name, loss in CLASSES.items()),
    *((name, loss, SCORES, np.float32([0, y, 1])) for name, loss in YES_OR_NO.items() for y in (2, -1, -0.25, np.nan)),
    *(
        (
            "class_weighted",
            losses.class_weighted(losses.binary_cross_entropy, [1.0, 9.0]),
            SCORES,
            np.float32([0, y, 1]),
        )
        for y in (-1.0, 0.5, 2.0, np.nan)
    ),
    *(
        (name, loss, np.zeros((3, 2, 4), np.float32), np.array([[1, -1], [wrong, 0], [-2, 3]]))
        for name, loss in list(TOKENS.items())[:2]
        for wrong in (4, -3, -100)
    ),
    *(
        (
            "negative_sampling",
            negative_sampling,
            np.zeros((3, 1, 2), np.float32),
            np.array([[[1, 0]], [[y, 0]], [[1, -1]]]),
        )
        for y in (2, -2)
    ),
]
every_case = pytest.mark.parametrize(
    ("name", "loss", "outputs", "targets"), CASES, ids=[f"{case[0]}-{index}" for index, case in enumerate(CASES)]
)


@every_case
def test_a_known_label_out_of_range_is_an_error(name, loss, outputs, targets):
    with pytest.raises(ValueError, match=rf"^{name}: targets must be .*, found"):
        loss(outputs, targets)
    with pytest.raises(ValueError, match=rf"^{name}: targets must be .*, found"):
        jax.make_jaxpr(lambda z: loss(z, targets))(outputs)


def test_a_traced_one_is_nan_in_its_example_alone():
    """All cases in one program; what is right is as it is without."""

    def by_example(found):
        values, weights = found if isinstance(found, tuple) else (found, jnp.ones(found.shape, bool))
        return jax.vmap(lambda v, w: masked_mean(v.ravel(), w.ravel())[0])(values, weights)

    def run(batch):
        found = []
        for (_, loss, _, _), (outputs, targets) in zip(CASES, batch, strict=True):
            right = jax.tree.map(lambda leaf: leaf[jnp.array([0, 2])], (outputs, targets))
            found.append((by_example(loss(outputs, targets)), by_example(loss(*right))))
        return found

    batch = [(outputs, targets) for _, _, outputs, targets in CASES]
    for case, (values, right) in zip(CASES, jax.jit(run)(batch), strict=True):
        assert np.isnan(values).tolist() == [False, True, False], case
        np.testing.assert_allclose(np.asarray(values)[[0, 2]], right, rtol=1e-6)


def test_a_masked_one_is_harmless():
    """One case of each loss in one program; two with known values."""
    cases, mask = {case[0]: case[1:] for case in CASES}, jnp.array([True, False, True])

    def run(batch):
        return {
            name: jax.value_and_grad(lambda z, loss=cases[name][0], y=y: masked_loss(loss, z, y, mask=mask)[0])(z)
            for name, (z, y) in batch.items()
        }

    for value, gradient in jax.jit(run)({name: case[1:] for name, case in cases.items()}).values():
        assert np.isfinite(value) and np.isfinite(gradient).all()
        assert not np.asarray(gradient)[1].any()
    for name in ("softmax_cross_entropy", "class_weighted"):
        assert jnp.isfinite(masked_loss(*cases[name], mask=mask)[0])


def test_soft_targets_and_their_ends_are_in_range():
    targets = jnp.array([0.0, 0.5, 1.0])
    for loss in YES_OR_NO.values():
        assert jnp.isfinite(loss(SCORES, targets)).all()
        assert jnp.isfinite(loss(SCORES, jnp.array([True, False, True]))).all()


def test_logits_that_are_nan_have_no_accuracy():
    outputs, wanted = jnp.zeros((2, 3, 4)).at[0, 1, 2].set(jnp.nan), jnp.zeros((2, 3), bool).at[0, 1].set(True)
    for found in (accuracy(outputs, jnp.ones((2, 3), int)), losses.token_accuracy(outputs, jnp.ones((2, 3), int))[0]):
        np.testing.assert_array_equal(jnp.isnan(found), wanted)
    padded, counted = losses.token_accuracy(outputs, jnp.ones((2, 3), int).at[0, 1].set(losses.PADDING))
    assert jnp.isfinite(padded).all() and not counted[0, 1]


def test_a_task_with_such_a_label_sits_the_step_out():
    def apply(params, state, x, *, tasks=None, key=None, train=False):
        return {name: x * params.shared for name in "ab"}, state

    tasks = {"a": mtljax.Task(losses.binary_cross_entropy), "b": mtljax.Task(losses.squared_error)}
    losses_fn = mtljax.make_losses_fn(mtljax.Model(None, apply), tasks)
    init, step = training.make_train_step(losses_fn, mtljax.methods.equal(), optax.sgd(0.1))
    first = init(mtljax.Params(jnp.ones(()), {"a": (), "b": ()}), key=jax.random.key(1))
    batch = mtljax.Batch(jnp.ones(2), {"a": jnp.array([2.0, 1.0]), "b": jnp.zeros(2)})
    after, metrics = jax.jit(step)(first, batch)
    assert jnp.isnan(metrics["losses"]["a"]) and not metrics["active"]["a"] and metrics["active"]["b"]
    assert metrics["nonfinite"] == {"a": 1, "b": 0}
    np.testing.assert_allclose(after.params.shared, 0.8, rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [lambda z, y: (z - y).mean()[None], lambda z, y: jnp.tile(z, 4), lambda z, y: (z - y).mean()],
    ids=["[1]", "[16]", "[]"],
)
def test_a_loss_returns_a_value_for_each_example(wrong, masked):
    values, mask = jnp.zeros(4), jnp.ones(4, bool) if masked else None
    with pytest.raises(ValueError, match=r"masked_loss: what the loss returns must .* \[4, ...\], .* found \["):
        masked_loss(wrong, values, values, mask=mask)

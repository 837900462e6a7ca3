"""Bad calls of losses, of the loss function of a model, and of losses for unequal classes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

import mtljax
from mtljax import losses
from tests.bad_calls.bad import INF, NAN, NO_FUNCTIONS, NO_NUMBERS, Bad, each, number

LOGITS, LABELS, SCORES, TOKENS = np.zeros((3, 4)), np.array([0, 1, 3]), np.zeros(3), np.zeros((3, 2), int)
NO_OUTPUTS = (np.zeros(3, int), np.zeros(3, bool), np.zeros(3, complex), "scores", None)
FOCAL, WEIGHTED = losses.softmax_focal(), losses.class_weighted(losses.binary_cross_entropy, [1.0, 9.0])
ADJUSTED, ODDS = losses.logit_adjusted([4, 3, 2, 1]), losses.sigmoid_logit_adjusted([3, 1])
PAIRS = {
    "squared_error": losses.squared_error,
    "absolute_error": losses.absolute_error,
    "huber": losses.huber(),
    "binary_cross_entropy": losses.binary_cross_entropy,
    "sigmoid_focal": losses.sigmoid_focal(),
    "sigmoid_logit_adjusted": ODDS,
}
CLASSES = {"softmax_cross_entropy": losses.softmax_cross_entropy, "softmax_focal": FOCAL, "logit_adjusted": ADJUSTED}
PLAIN = losses.squared_error


def traced(function, *arrays):
    """What only shapes and dtypes can tell."""
    return jax.eval_shape(function, *arrays)


def judged(loss, mask=None):
    return losses.masked_loss(loss, SCORES, SCORES, mask=mask)


def model(**tasks):
    apply = lambda params, state, x, *, tasks=None, key=None, train=False: ({"a": x * params.shared}, state)  # noqa: E731
    f = mtljax.make_losses_fn(mtljax.Model(None, apply), tasks)
    batch = mtljax.Batch(np.ones(4, np.float32), {"a": np.ones(4, np.float32)})
    return jax.eval_shape(lambda: f(mtljax.Params(jnp.ones(4), {"a": ()}), (), batch))


BAD = [
    *(
        bad
        for name, loss in PAIRS.items()
        for bad in (
            *each(lambda z, loss=loss: loss(z, SCORES), (name, "outputs"), NO_OUTPUTS, TypeError),
            *each(lambda y, loss=loss: loss(SCORES, y), (name, "targets"), [1j * SCORES, "scores", None], TypeError),
            *each(
                lambda shapes, loss=loss: traced(loss, *map(jnp.zeros, shapes)),
                (name, "outputs", "targets"),
                [((3, 1), (3,)), ((3,), (3, 1)), ((3,), (1,)), ((3,), ()), ((), ()), ((3, 0), (3, 0))],
            ),
        )
    ),
    *(
        bad
        for name, loss in CLASSES.items()
        for bad in (
            *each(lambda z, loss=loss: loss(z, LABELS), (name, "outputs"), NO_OUTPUTS, TypeError),
            *each(
                lambda y, loss=loss: loss(LOGITS, y),
                (name, "targets", "integer"),
                [SCORES, SCORES > 0, 1j * SCORES],
                TypeError,
            ),
            *each(lambda y, loss=loss: loss(LOGITS, [0, y, 1]), (name, "targets", "0 to 3"), [4, 255, -1, -100]),
            *each(
                lambda shapes, loss=loss: traced(loss, jnp.zeros(shapes[0]), jnp.zeros(shapes[1], int)),
                (name, "outputs"),
                [((3, 4), (3, 1)), ((4,), ()), ((3, 4), (3, 4)), ((3,), (3,))],
            ),
        )
    ),
    *(
        bad
        for name in ("binary_cross_entropy", "sigmoid_focal", "sigmoid_logit_adjusted")
        for bad in each(
            lambda y, loss=PAIRS[name]: loss(SCORES, [0, y, 1]), (name, "targets", "0 to 1"), [2, -1, 1.5, NAN]
        )
    ),
    *each(lambda y: WEIGHTED(SCORES, [0, y, 1]), ("class_weighted", "targets", "0 to 1"), [2, -1, 0.5, NAN]),
    Bad(lambda: WEIGHTED(SCORES[0], 0.0), ("class_weighted", "targets", "[B, ...]")),
    Bad(lambda: losses.class_weighted(lambda z, y: z, [1.0])(SCORES, LOGITS), ("class_weighted", "loss", "[3, 4]")),
    Bad(lambda: WEIGHTED(SCORES, 1j * SCORES), ("class_weighted", "targets"), TypeError),
    *each(lambda w: losses.class_weighted(PLAIN, w), ("class_weighted", "weights"), NO_NUMBERS, TypeError),
    *each(lambda w: losses.class_weighted(PLAIN, w), ("class_weighted", "weights"), [[1, -1], [NAN], [[1.0]], 2.0]),
    *each(lambda f: losses.class_weighted(f, [1.0]), ("class_weighted", "loss"), NO_FUNCTIONS, TypeError),
    Bad(lambda: losses.class_weighted(lambda z, y: z.mean(), [1, 1])(SCORES, LABELS > 0), ("class_weighted", "loss")),
    *number(lambda x: losses.huber(x), ("huber", "delta"), 0, -1, INF),
    *number(lambda x: losses.sigmoid_focal(gamma=x), ("sigmoid_focal", "gamma"), -1, INF),
    *number(lambda x: losses.softmax_focal(gamma=x), ("softmax_focal", "gamma"), -1, INF),
    *each(lambda x: losses.sigmoid_focal(alpha=x), ("sigmoid_focal", "alpha"), [-0.1, 1.1, NAN]),
    *number(lambda x: losses.logit_adjusted([1, 1], tau=x), ("logit_adjusted", "tau"), -1, INF),
    *each(lambda x: losses.logit_adjusted(x), ("logit_adjusted", "counts"), [[1, 0], [1, -1], [NAN, 1], [[1, 1]]]),
    *each(lambda x: losses.sigmoid_logit_adjusted(x), ("sigmoid_logit_adjusted", "counts"), [[1, 1, 1], [1, 0]]),
    Bad(lambda: ADJUSTED(np.zeros((3, 5)), LABELS), ("logit_adjusted", "outputs")),
    Bad(lambda: FOCAL(np.zeros((3, 1)), LABELS * 0), ("softmax_focal", "2 classes")),
    *(
        bad
        for name, loss in (
            ("token_cross_entropy", losses.token_cross_entropy),
            ("token_accuracy", losses.token_accuracy),
        )
        for bad in (
            *each(
                lambda y, loss=loss: loss(np.zeros((3, 2, 4)), TOKENS + y),
                (name, "targets", "-2 to 3"),
                [4, -3, -100],
            ),
            Bad(functools.partial(loss, np.zeros((3, 2, 4)), np.zeros((3, 2))), (name, "targets"), TypeError),
            Bad(functools.partial(loss, np.zeros((3, 2, 4), int), TOKENS), (name, "outputs"), TypeError),
            Bad(functools.partial(loss, LOGITS, LABELS), (name, "axis of tokens")),
        )
    ),
    *number(lambda x: losses.info_nce(temperature=x), ("info_nce", "temperature"), 0, -1, INF),
    *number(lambda x: losses.nt_xent(temperature=x), ("nt_xent", "temperature"), 0, -1, INF),
    *each(
        lambda y: losses.negative_sampling(LOGITS[None], y),
        "negative_sampling: targets",
        [LOGITS[None]],
        TypeError,
    ),
    *each(
        lambda y: losses.negative_sampling(np.zeros((1, 1, 2)), [[[1, y]]]),
        ("negative_sampling", "targets", "-1, 0 or 1"),
        [2, -2, 255],
    ),
    *each(judged, ("masked_loss", "the loss"), NO_FUNCTIONS, TypeError),
    *each(
        judged,
        ("masked_loss", "the loss", "[3, ...]"),
        [lambda z, y: z.mean()[None], lambda z, y: jnp.tile(z, 4), lambda z, y: z.mean(), lambda z, y: z[None]],
    ),
    *each(judged, ("masked_loss", "the loss"), [lambda z, y: y > 0, lambda z, y: None, lambda z, y: "0"], TypeError),
    *each(
        lambda mask: judged(PLAIN, mask), ("masked_loss", "mask"), [LABELS, 1j * SCORES, [True] * 3, 1, "a"], TypeError
    ),
    *each(lambda mask: judged(PLAIN, mask), ("masked_loss", "mask", "[3]"), [np.ones((3, 1)), np.ones(2, bool)]),
    *each(lambda w: judged(PLAIN, np.array([1.0, w, 1.0])), ("masked_loss", "mask", "at least 0"), [-1.0, NAN, INF]),
    *each(
        lambda w: judged(lambda z, y: (z, w)),
        ("masked_loss", "weights that the loss returns"),
        [np.ones((3, 1)), np.ones(2, bool), -np.ones(3)],
    ),
    *each(lambda w: judged(lambda z, y: (z, w)), ("masked_loss", "weights"), [LABELS, "all", [1.0] * 3], TypeError),
    Bad(
        lambda: losses.masked_loss(lambda z, y: z.sum(1), LOGITS, LOGITS, mask=LOGITS > 0),
        ("mask of the loss", "what the loss returns, [3]", "found [3, 4]"),
    ),
    Bad(
        lambda: losses.masked_loss(lambda z, y: z, LOGITS, SCORES, mask=np.ones((3, 4))),
        ("mask of the loss", "outputs and targets, [[3, 4], [3]]", "found [3, 4]", "(elements, weights)"),
    ),
    Bad(lambda: losses.masked_loss(PLAIN, SCORES, np.zeros(4)), ("masked_loss", "one B")),
    *each(lambda x: losses.masked_mean(x), ("masked_mean", "values"), [LABELS, LABELS > 0, "1", None], TypeError),
    Bad(lambda: losses.masked_mean(np.float32(1.0)), ("masked_mean", "values", "[B, ...]")),
    *each(
        lambda w: losses.masked_mean(LOGITS, w), ("masked_mean", "mask"), [np.ones(4), np.ones((3, 4, 1)), np.bool_(1)]
    ),
    *each(lambda task: model(a=task), ("losses_fn", "'a'"), [None, "mse", PLAIN, mtljax.Task("mse")], TypeError),
    *each(lambda name: model(a=mtljax.Task(PLAIN, {name: PLAIN})), ("losses_fn", "'a'"), ["loss", "regularization"]),
    *each(lambda prior: model(a=mtljax.Task(PLAIN, prior=prior)), ("losses_fn", "prior", "'a'"), [0, -1, NAN, INF]),
    Bad(lambda: model(a=mtljax.Task(lambda z, y: z.mean())), ("the loss of task 'a'", "[4, ...]", "[]")),
    Bad(
        lambda: model(a=mtljax.Task(PLAIN, {"m": lambda z, y: z.mean()})), ("metric 'm' of task 'a'", "[4, ...]", "[]")
    ),
    Bad(lambda: model(a=mtljax.Task(lambda z, y: PLAIN(z[:, None], y))), ("the loss of task 'a'", "squared_error")),
    Bad(lambda: model(a=mtljax.Task(losses.softmax_cross_entropy)), ("loss of task 'a'", "integer"), TypeError),
]

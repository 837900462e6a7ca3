"""Next sentences, and mistakes in all views of text."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtljax.data import views

KEY = jax.random.key(7)
B = 1000
FIRST = np.arange(1, B + 1)[:, None]
SECOND = np.stack([np.arange(1, B + 1), np.full(B, 5), np.zeros(B, int)], axis=1)


def test_labels_are_true_and_half_are_negatives_from_other_examples():
    view = jax.jit(views.next_sentence())
    (first, second), labels, mask = jax.device_get(view(KEY, (FIRST, SECOND)))
    np.testing.assert_array_equal(first, FIRST)
    np.testing.assert_array_equal(labels, second[:, 0] == FIRST[:, 0])
    np.testing.assert_array_equal(second[:, 1:], SECOND[:, 1:])
    assert mask.all()
    assert stats.binomtest(int(labels.sum()), B, 0.5).pvalue > 1e-6
    assert "callback" not in str(view.trace(KEY, (FIRST, SECOND)).jaxpr)
    assert (view(KEY, (FIRST, SECOND))[1] == labels).all()
    assert (view(jax.random.key(8), (FIRST, SECOND))[1] != labels).any()


@pytest.mark.slow
def test_negatives_are_uniform_over_the_others():
    first, second = np.ones((4, 1), int), np.array([[1], [2], [3], [4]])
    draw = jax.jit(jax.vmap(lambda key: views.next_sentence()(key, (first, second))[0][1][:, 0]))
    found = np.asarray(draw(jax.random.split(KEY, 2000)))
    for i in range(4):
        counts = np.bincount(found[:, i], minlength=5)[1:]
        assert stats.chisquare(counts, 2000 * np.where(np.arange(4) == i, 1 / 2, 1 / 6)).pvalue > 1e-6


def test_the_same_words_in_another_example_do_follow_and_empty_sentences_are_masked():
    second = np.array([[7, 8], [7, 8], [7, 8], [0, 0]])
    first = np.array([[1], [0], [3], [4]])
    labels, masks = [], []
    view = jax.jit(views.next_sentence(negatives=0.9))
    for seed in range(8):
        (_, shown), label, mask = jax.device_get(view(jax.random.key(seed), (first, second)))
        np.testing.assert_array_equal(label, (shown == second).all(1))
        np.testing.assert_array_equal(mask, (first[:, 0] > 0) & (shown[:, 0] > 0))
        labels.append(label)
        masks.append(mask)
    assert {*np.concatenate(labels)} == {0, 1}
    assert {*np.concatenate(masks)} == {False, True}


def test_lengths_travel_with_their_sentence():
    text = views.Text(SECOND, np.arange(B) % 4)
    padded = views.Text(FIRST, np.ones(B, int))
    (_, shown), labels, mask = jax.jit(views.next_sentence(padding=None))(KEY, (padded, text))
    # The first token tells which sentence it is.
    np.testing.assert_array_equal(shown.lengths, (np.asarray(shown.tokens)[:, 0] - 1) % 4)
    np.testing.assert_array_equal(mask, shown.lengths > 0)
    moved = np.asarray(shown.tokens)[:, 0] != FIRST[:, 0]
    # Of sentences that are moved, only one empty sentence in place of another is "the same".
    assert not np.asarray(labels)[moved & np.asarray(mask)].any()


IDS = jax.ShapeDtypeStruct((2, 4), jnp.int32)


@pytest.mark.parametrize(
    ("make", "x", "error", "message"),
    [
        (
            views.next_token,
            jnp.zeros((2, 4)),
            TypeError,
            "next_token: the inputs must be token ids, integers, found float32",
        ),
        (
            views.next_token,
            jnp.zeros(4, int),
            ValueError,
            r"next_token: the inputs must be token ids \[B, L\] with no empty axis",
        ),
        (lambda: views.next_token(padding=None), IDS, TypeError, "padding must be given for token ids without lengths"),
        (
            lambda: views.next_token(padding="<pad>"),
            IDS,
            TypeError,
            "padding must be a token id or None, found '<pad>'",
        ),
        (
            views.next_token,
            views.Text(IDS, jnp.zeros(3, int)),
            ValueError,
            r"next_token: the lengths must be \[2\], found \[3\]",
        ),
        (
            views.next_token,
            views.Text(IDS, jnp.zeros(2)),
            TypeError,
            "next_token: the lengths must be integers, found float32",
        ),
        (
            lambda: views.next_token(padding=-1),
            jnp.zeros((2, 4), jnp.uint8),
            TypeError,
            "next_token: uint8 cannot hold the padding id -1",
        ),
        (
            lambda: views.masked_tokens(5, 0),
            IDS,
            ValueError,
            "mask_id must differ from padding, found 0",
        ),
        (lambda: views.masked_tokens(5, 5), IDS, ValueError, "id 5 is outside the vocabulary of 5"),
        (lambda: views.masked_tokens(2, 1), IDS, ValueError, "must have ids to draw, found none left of 2"),
        (
            lambda: views.masked_tokens(9, 1, replace=(0.8, 0.1, 0.2)),
            IDS,
            ValueError,
            "three probabilities that sum to 1",
        ),
        (
            lambda: views.masked_tokens(300, 1),
            jnp.zeros((2, 4), jnp.uint8),
            TypeError,
            "uint8 cannot hold ids up to 299",
        ),
        (
            lambda: views.masked_tokens(9, 1, select=lambda key, e: e[0]),
            IDS,
            ValueError,
            r"masked_tokens: select must return bool \(2, 4\)",
        ),
        (lambda: views.subset(0), IDS, ValueError, "subset: rate must be above 0 and below 1, found 0"),
        (
            lambda: views.span(0.5, at="left"),
            IDS,
            ValueError,
            "span: at must be 'start' or 'middle' or 'end' or 'ends' or 'anywhere'",
        ),
        (lambda: views.cbow(0), IDS, ValueError, "cbow: window must be at least 1, found 0"),
        (lambda: views.skip_gram(2, 1.5, [1]), IDS, TypeError, "skip_gram: negatives must be an integer, found 1.5"),
        (
            lambda: views.skip_gram(2, 1, [-1, 2]),
            IDS,
            ValueError,
            r"skip_gram: counts must be at least 0, found \[-1\.  2\.\]",
        ),
        (lambda: views.skip_gram(2, 1, np.ones(300)), jnp.zeros((2, 4), jnp.uint8), TypeError, "uint8 cannot hold ids"),
        (
            lambda: views.skip_gram(2, 1, [1, 1], power=-1),
            IDS,
            ValueError,
            "skip_gram: power must be at least 0, found -1",
        ),
        (lambda: views.skip_gram(2, 1, [3, 0]), IDS, ValueError, "at least one token that is not padding"),
        (views.next_sentence, IDS, TypeError, r"the inputs must be a pair \(first, second\)"),
        (
            views.next_sentence,
            (jnp.ones((1, 2), int),) * 2,
            ValueError,
            "two or more pairs, found 1 first and 1 second",
        ),
        (
            lambda: views.next_sentence(negatives=1),
            IDS,
            ValueError,
            "next_sentence: negatives must be above 0 and below 1, found 1",
        ),
    ],
)
def test_mistakes_are_named(make, x, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(lambda key, ids: make()(key, ids), KEY, x)

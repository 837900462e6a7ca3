"""Views of text: labels are what the text says, padding is never predicted nor read, draws are as stated."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mtljax.data import views

KEY = jax.random.key(5)
V, MASK, LENGTH = 12, 1, 7
rng = np.random.default_rng(0)
LENGTHS = np.array([7, 5, 2, 1, 0, 3])
PADDED = np.where(np.arange(LENGTH) < LENGTHS[:, None], rng.integers(2, V, (6, LENGTH)), 0).astype(np.int32)
# The same with rubbish beyond the ends, and lengths that say where these are.
TEXT = views.Text(np.where(PADDED == 0, 3, PADDED), LENGTHS)
COUNTS = np.arange(V) ** 2
VIEWS = {
    "next_token": views.next_token,
    "masked_tokens": lambda **k: views.masked_tokens(V, MASK, select=views.subset(0.4), **k),
    "cbow": lambda **k: views.cbow(2, **k),
    "skip_gram": lambda **k: views.skip_gram(2, 3, COUNTS, **k),
}


def fits(counts, probabilities):
    return stats.chisquare(counts, np.asarray(probabilities) * np.sum(counts)).pvalue > 1e-6


# One compiled function for all: compiling is what takes the time.
EVERY = jax.jit(
    lambda key, padded, text: {
        name: (make()(key, padded), make(padding=None)(key, text)) for name, make in VIEWS.items()
    }
)


def equal(a, b):
    return all((x == y).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_lengths_say_what_padding_says_keys_decide_and_nothing_leaves_the_device():
    found, again, others = (jax.device_get(EVERY(key, PADDED, TEXT)) for key in (KEY, KEY, jax.random.key(6)))
    assert "callback" not in str(EVERY.trace(KEY, PADDED, TEXT).jaxpr)
    for name, (by_padding, by_length) in found.items():
        inputs, labels, mask = by_padding
        np.testing.assert_array_equal(by_length[1] < 0, labels < 0)
        np.testing.assert_array_equal(by_length[2], mask)
        np.testing.assert_array_equal(mask, (labels >= 0).reshape(6, -1).any(1))
        np.testing.assert_array_equal(mask, LENGTHS > 1)
        assert labels.dtype == jnp.int32
        assert {leaf.dtype for leaf in jax.tree.leaves(inputs)} <= {jnp.dtype(jnp.int32), jnp.dtype(bool)}
        assert equal(again[name][0], by_padding)
        assert equal(others[name][0], by_padding) == (name == "next_token")


def test_next_token_is_the_next_one():
    inputs, labels, _ = EVERY(KEY, PADDED, TEXT)["next_token"][0]
    np.testing.assert_array_equal(inputs, PADDED)
    expected = [
        [*row[1:length], *[-1] * (LENGTH - max(length - 1, 0))] for row, length in zip(PADDED, LENGTHS, strict=True)
    ]
    np.testing.assert_array_equal(labels, expected)


def test_hidden_tokens_are_the_labels_and_the_others_stay():
    many = np.tile(PADDED, (400, 1))
    view = jax.jit(views.masked_tokens(V, MASK, select=views.subset(0.4), special=(2,)))
    inputs, labels, _ = (np.asarray(each) for each in view(KEY, many))
    chosen = labels >= 0
    np.testing.assert_array_equal(labels[chosen], many[chosen])
    np.testing.assert_array_equal(inputs[~chosen], many[~chosen])
    assert not np.isin(many[chosen], [0, 2]).any()
    # Of n tokens round(0.4 n), at least one and never all.
    n = ((many != 0) & (many != 2)).sum(1)
    np.testing.assert_array_equal(chosen.sum(1), np.select([n < 2], [0], np.clip(np.floor(0.4 * n + 0.5), 1, n - 1)))
    # Every eligible position of the whole row alike.
    first = chosen[::6]
    assert fits(first.sum(0)[many[0] != 2], np.full((many[0] != 2).sum(), 1 / (many[0] != 2).sum()))

    # 80 / 10 / 10, where a random token is the same by chance once in nine.
    drawn = 9
    is_mask, is_same = inputs[chosen] == MASK, inputs[chosen] == many[chosen]
    counts = [is_mask.sum(), is_same.sum(), (~is_mask & ~is_same).sum()]
    assert fits(counts, [0.8, 0.1 + 0.1 / drawn, 0.1 * (drawn - 1) / drawn])
    random = inputs[chosen][~is_mask & ~is_same]
    assert set(random) == set(range(3, V))


@pytest.mark.slow
def test_replacing_by_one_thing_alone():
    many = np.tile(PADDED[:1], (200, 1))
    makers = [views.masked_tokens(V, MASK, replace=replace) for replace in np.eye(3).tolist()]
    found = jax.device_get(jax.jit(lambda key: [view(key, many)[:2] for view in makers])(KEY))
    mask, random, same = (inputs[labels >= 0] for inputs, labels in found)
    assert (mask == MASK).all()
    np.testing.assert_array_equal(same, many[found[2][1] >= 0])
    assert fits(np.bincount(random, minlength=V)[2:], np.full(V - 2, 1 / (V - 2)))


def test_spans_leave_the_context_that_they_say():
    expected = {"start": "##...__", "middle": ".##..__", "end": "...##__", "ends": "#...#__"}
    eligible = np.arange(7)[None, :] < np.array([[5], [1], [0]])
    found = jax.jit(lambda: {at: views.span(0.4, at=at)(KEY, eligible) for at in expected})()
    for at, chosen in jax.device_get(found).items():
        marks = np.where(eligible[0], np.where(chosen[0], "#", "."), "_")
        assert "".join(marks) == expected[at], at
        assert not chosen[1:].any()


def test_a_span_anywhere_begins_anywhere():
    eligible = np.ones((1000, 6), bool)
    chosen = np.asarray(jax.jit(views.span(1 / 3))(KEY, eligible))
    starts = chosen.argmax(1)
    np.testing.assert_array_equal(chosen, (np.arange(6) >= starts[:, None]) & (np.arange(6) < starts[:, None] + 2))
    assert fits(np.bincount(starts), np.full(5, 1 / 5))


def test_context_is_the_words_within_the_window_of_the_sentence():
    (tokens, present), labels, _ = (jax.device_get(e) for e in jax.jit(views.cbow(2, shrink=False))(KEY, PADDED))
    for b, length in enumerate(LENGTHS):
        for t in range(LENGTH):
            around = [t - 2, t - 1, t + 1, t + 2]
            there = [0 <= s < length and t < length for s in around]
            assert present[b, t].tolist() == there
            assert tokens[b, t].tolist() == [PADDED[b, s] if ok else 0 for s, ok in zip(around, there, strict=True)]
            assert labels[b, t] == (PADDED[b, t] if any(there) else -1)


def test_a_shrinking_window_is_uniform_over_its_sizes():
    (_, present), _, _ = jax.jit(views.cbow(3))(KEY, np.full((1500, 7), 4))
    middle = np.asarray(present)[:, 3]
    np.testing.assert_array_equal(middle, middle[:, ::-1])  # alike on both sides
    reach = middle[:, 3:].sum(1)
    np.testing.assert_array_equal(middle[:, 3:], np.arange(3) < reach[:, None])
    assert fits(np.bincount(reach)[1:], [1 / 3] * 3)


def test_skip_gram_pairs_are_neighbors_and_negatives_follow_the_counts():
    many = np.tile(PADDED, (300, 1))
    view = jax.jit(views.skip_gram(2, 3, np.where(COUNTS == 0, 99, COUNTS), shrink=False))
    (centers, candidates), targets, _ = jax.device_get(view(KEY, many))
    t, offset = np.divmod(np.arange(LENGTH * 4), 4)
    other = t + np.array([-2, -1, 1, 2])[offset]
    length = np.tile(LENGTHS, 300)[:, None]
    there = (other >= 0) & (other < length) & (t < length)
    np.testing.assert_array_equal(targets[..., 0] == 1, there)
    np.testing.assert_array_equal(centers, np.where(there, many[:, t], 0))
    np.testing.assert_array_equal(candidates[..., 0], np.where(there, many[:, other.clip(0, LENGTH - 1)], 0))

    negatives, judged = candidates[..., 1:], targets[..., 1:]
    hit = negatives == candidates[..., :1]
    np.testing.assert_array_equal(judged, np.where(there[..., None] & ~hit, 0, -1))
    weights = COUNTS[1:] ** 0.75
    counts = np.bincount(negatives[there].ravel(), minlength=V)
    assert counts[0] == 0  # the padding, whatever its count
    assert fits(counts[1:], weights / weights.sum())
    assert not negatives[~there].any()

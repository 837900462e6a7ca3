"""Views of language models: `next_token`, and `masked_tokens` with its choices of positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from mtljax.checks import check_callable, check_choice, check_count, check_number, expect, found
from mtljax.data.views.tokens import IGNORED, check_padding, like, read
from mtljax.sharing.frames.network import is_sequence
from mtljax.types import Array, Key

TextView = Callable[[Key, Any], tuple[Any, Array, Array]]
Select = Callable[[Key, Array], Array]
At = Literal["start", "middle", "end", "ends", "anywhere"]


def next_token(*, padding: int | None = 0) -> TextView:
    """Predict every token from the tokens before it: the label at position t is token t + 1.

    The network must be causal: its output at t may depend only on tokens up to t.

    Bengio, Ducharme, Vincent and Jauvin, "A neural probabilistic language model", JMLR 3, 2003.

    Args:
        padding: the padding id; None if texts come with lengths.

    Returns:
        View `(key, x) -> (x, labels int32 [B, L], mask bool [B])` of tokens `[B, L]` or `Text`. The label is -1 where
        there is no next token; the mask is False for rows without any label. The key is not used.

    Raises:
        TypeError, ValueError: (by the view) as `tokens.read`.

    Example:
        >>> inputs, labels, mask = next_token()(jax.random.key(0), jnp.array([[5, 7, 6, 0]]))
        >>> labels.tolist(), mask.tolist()
        ([[7, 6, -1, -1]], [True])
    """
    check_padding("next_token", padding)

    def view(key: Key, x: Any) -> tuple[Any, Array, Array]:
        tokens, present = read("next_token", x, padding)
        both = present[:, :-1] & present[:, 1:]
        labels = jnp.where(both, tokens[:, 1:].astype(jnp.int32), IGNORED)
        labels = jnp.pad(labels, ((0, 0), (0, 1)), constant_values=IGNORED)
        return x, labels, (labels != IGNORED).any(1)

    return view


def subset(rate: float = 0.15) -> Select:
    """Choose positions for `masked_tokens` anywhere: `round(rate * n)` of n tokens, at least 1 and at most n - 1.

    All sets of that size are equally probable. A row with fewer than two tokens has no chosen position, since no
    context would be left.

    Args:
        rate: share of the tokens, between 0 and 1; the default is BERT's.

    Returns:
        `(key, eligible bool [B, L]) -> chosen bool [B, L]`.

    Raises:
        ValueError: a rate outside 0 to 1.

    Example:
        >>> subset(0.5)(jax.random.key(0), jnp.array([[True, True, True, True, False]])).sum(1).tolist()
        [2]
    """
    rate = check_number("subset", "rate", rate, above=0, below=1)

    def select(key: Key, eligible: Array) -> Array:
        draws = jnp.where(eligible, jax.random.uniform(key, eligible.shape), jnp.inf)
        return jnp.argsort(jnp.argsort(draws, axis=1), axis=1) < _count(rate, eligible)[:, None]

    return select


def span(rate: float, *, at: At = "anywhere") -> Select:
    """Choose neighbouring positions for `masked_tokens`, as many as `subset` chooses.

    * `"end"`: the last tokens; the context is on their left;
    * `"start"`: the first tokens; the context is on their right;
    * `"middle"`: the tokens in the middle; the context is on both sides;
    * `"ends"`: all tokens except a span in the middle; the context is this span;
    * `"anywhere"`: a span that starts at a uniformly random position.

    Args:
        rate: share of the tokens, between 0 and 1.
        at: one of the names above. If the rest has odd length, its left part is the shorter one.

    Returns:
        `(key, eligible bool [B, L]) -> chosen bool [B, L]`. Only eligible positions count as neighbours.

    Raises:
        ValueError: a rate outside 0 to 1, an unknown place.

    Example:
        >>> select = span(0.5, at="end")
        >>> select(jax.random.key(0), jnp.array([[True, True, True, True, False]])).tolist()
        [[False, False, True, True, False]]
    """
    rate = check_number("span", "rate", rate, above=0, below=1)
    places = ("start", "middle", "end", "ends", "anywhere")
    check_choice("span", "at", at, places)

    def select(key: Key, eligible: Array) -> Array:
        hidden, size = _count(rate, eligible), jnp.sum(eligible, axis=1)
        length = size - hidden if at == "ends" else hidden
        spare = size - length
        if at == "anywhere":
            first = jax.random.randint(key, spare.shape, 0, spare + 1)
        else:
            first = {"start": jnp.zeros_like(spare), "end": spare}.get(at, spare // 2)
        order = jnp.cumsum(eligible, axis=1) - 1
        inside = (order >= first[:, None]) & (order < (first + length)[:, None])
        return eligible & (~inside if at == "ends" else inside)

    return select


def masked_tokens(
    vocabulary: int,
    mask_id: int,
    *,
    select: Select | None = None,
    replace: tuple[float, float, float] = (0.8, 0.1, 0.1),
    special: tuple[int, ...] = (),
    padding: int | None = 0,
) -> TextView:
    """Predict hidden tokens: chosen tokens are replaced, and the labels are the original tokens.

    Each chosen token independently becomes `mask_id`, or a random token, or stays as it is. So the network cannot rely
    on `mask_id` to mark the positions that it predicts.

    Devlin, Chang, Lee and Toutanova, "BERT: pre-training of deep bidirectional transformers for language
    understanding", NAACL 2019.

    Args:
        vocabulary: number of token ids.
        mask_id: the id that replaces a hidden token.
        select: chooses the positions to predict, `(key, eligible bool [B, L]) -> bool [B, L]`: `subset(rate)` (default,
            with BERT's 0.15), `span(rate, at=...)`, or a function of your own. Chosen positions that are not eligible
            are dropped.
        replace: probabilities of `mask_id`, of a random token and of the token itself; they sum to 1.
        special: ids that are never predicted and never drawn, but may be inputs (such as [CLS] and [SEP]).
        padding: the padding id; None if texts come with lengths. It is never predicted and never drawn.

    Returns:
        View `(key, x) -> (inputs like x, labels int32 [B, L], mask bool [B])` of tokens `[B, L]` or `Text`; the label
        is -1 where no token is predicted, the mask False for rows without predictions. Random tokens are uniform over
        all ids except `mask_id`, `special` and `padding`.

    Raises:
        TypeError: ids that are not integers; from the view, as `tokens.read`, or ids of a type too small for
            `mask_id`.
        ValueError: ids outside the vocabulary, a `mask_id` that is `padding`, no id left to draw, probabilities that
            are not three or do not sum to 1; from the view, as `tokens.read`, or a selection of another shape or type.

    Example:
        >>> view = masked_tokens(10, 1, select=span(0.5, at="end"), replace=(1, 0, 0))
        >>> inputs, labels, mask = view(jax.random.key(0), jnp.array([[5, 7, 6, 8, 0]]))
        >>> inputs.tolist(), labels.tolist()
        ([[5, 7, 1, 1, 0]], [[-1, -1, 6, 8, -1]])
    """
    vocabulary = check_count("masked_tokens", "vocabulary", vocabulary)
    check_padding("masked_tokens", padding)
    never = {check_count("masked_tokens", "mask_id", mask_id, least=0)}
    if mask_id == padding:
        raise ValueError(f"masked_tokens: mask_id must differ from padding, found {mask_id} for both")
    expect(is_sequence(special), "masked_tokens", "special", "a sequence of token ids", special, TypeError)
    never |= {check_count("masked_tokens", "special", each, least=0) for each in special}
    outside = sorted(each for each in never if each >= vocabulary)
    if outside:
        raise ValueError(f"masked_tokens: id {outside[0]} is outside the vocabulary of {vocabulary}")
    expected = "three probabilities that sum to 1"
    shares = np.asarray(check_number("masked_tokens", "replace", replace, least=0, most=1, shape=("P",)))
    sound = len(shares) == 3 and math.isclose(shares.sum(), 1, rel_tol=1e-6)
    expect(sound, "masked_tokens", "replace", expected, replace, ValueError)
    drawn = np.setdiff1d(np.arange(vocabulary), [*never, -1 if padding is None else padding])
    if not len(drawn):
        raise ValueError(f"masked_tokens: vocabulary must have ids to draw, found none left of {vocabulary}")
    select = subset() if select is None else check_callable("masked_tokens", "select", select)

    def view(key: Key, x: Any) -> tuple[Any, Array, Array]:
        tokens, present = read("masked_tokens", x, padding)
        if vocabulary - 1 > jnp.iinfo(tokens.dtype).max:
            raise TypeError(f"masked_tokens: {tokens.dtype} cannot hold ids up to {vocabulary - 1}")
        eligible = present & ~jnp.isin(tokens, jnp.asarray([*special], tokens.dtype)) if special else present
        where, kind, which = jax.random.split(key, 3)
        chosen = select(where, eligible)
        if chosen.shape != tokens.shape or chosen.dtype != jnp.bool_:
            raise ValueError(f"masked_tokens: select must return bool {tokens.shape}, found {found(chosen)}")
        chosen = chosen & eligible
        draw = jax.random.uniform(kind, tokens.shape)
        random = jnp.asarray(drawn)[jax.random.randint(which, tokens.shape, 0, len(drawn))].astype(tokens.dtype)
        new = jnp.where(draw < replace[0], jnp.asarray(mask_id, tokens.dtype), random)
        # Compared from the upper end, so that (1, 0, 0) keeps no token, however the sum is rounded.
        new = jnp.where(draw >= 1 - replace[2], tokens, new)
        labels = jnp.where(chosen, tokens.astype(jnp.int32), IGNORED)
        return like(x, jnp.where(chosen, new, tokens)), labels, chosen.any(1)

    return view


def _count(rate: float, eligible: Array) -> Array:
    """The number of positions to hide per row, `[B]`."""
    size = jnp.sum(eligible, axis=1)
    return jnp.clip(jnp.floor(rate * size + 0.5).astype(size.dtype), jnp.minimum(1, size - 1), size - 1).clip(0)

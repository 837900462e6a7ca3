"""Vocabularies, which number words, characters or labels; for data sets of text."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Hashable, Iterable

import numpy as np

from mtljax.checks import check_count, expect


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A numbered list: reserved entries first, then the values seen in the data.

    A value that is spelled like a reserved entry never gets the number of the reserved entry.

    Attributes:
        values: the values seen, each once.
        reserved: names of the entries before the values, such as `"<padding>"`; for people to read.
        unknown: number of every value outside the vocabulary: the number of a reserved entry, or a negative number in
            a vocabulary of labels, which have no class for it.

    Raises:
        ValueError: a repeated value, or `unknown` that is neither the number of a reserved entry nor negative.

    Example:
        >>> words = Vocabulary(("the", "cat"), reserved=("<padding>", "<unknown>"), unknown=1)
        >>> len(words), words.encode(["cat", "dog"]).tolist(), words.entries[3]
        (4, [3, 1], 'cat')
    """

    values: tuple[Hashable, ...]
    reserved: tuple[str, ...] = ()
    unknown: int = -1

    def __post_init__(self) -> None:
        expect(isinstance(self.values, tuple), "Vocabulary", "values", "a tuple", self.values, TypeError)
        strings = isinstance(self.reserved, tuple) and all(isinstance(entry, str) for entry in self.reserved)
        expect(strings, "Vocabulary", "reserved", "a tuple of strings", self.reserved, TypeError)
        expect(
            len(self.numbers) == len(self.values), "Vocabulary", "values", "values that differ", self.values, ValueError
        )
        whole = isinstance(self.unknown, int | np.integer) and not isinstance(self.unknown, bool)
        expect(whole, "Vocabulary", "unknown", "an integer", self.unknown, TypeError)
        expected = f"the number of one of the reserved entries {self.reserved} or negative"
        expect(self.unknown < len(self.reserved), "Vocabulary", "unknown", expected, self.unknown, ValueError)

    @property
    def entries(self) -> tuple[Hashable, ...]:
        """The reserved entry or value of each number."""
        return (*self.reserved, *self.values)

    @functools.cached_property
    def numbers(self) -> dict[Hashable, int]:
        """The number of each value."""
        return {value: number for number, value in enumerate(self.values, start=len(self.reserved))}

    def __len__(self) -> int:
        return len(self.reserved) + len(self.values)

    def encode(self, values: Iterable[Hashable]) -> np.ndarray:
        """The numbers of the values, int32 `[n]`; `unknown` for a value outside the vocabulary."""
        return np.array([self.numbers.get(value, self.unknown) for value in values], np.int32)


def build_vocabulary(
    values: Iterable[Hashable], *, unknown: int, min_count: int = 1, reserved: tuple[str, ...] = ()
) -> Vocabulary:
    """The vocabulary of the training data: the most frequent values first, ties in sorted order.

    Pass training data only: a word that only test sentences have must stay unknown.

    Args:
        values: every occurrence, such as all words of all training sentences.
        unknown: number of every value outside the vocabulary, as in `Vocabulary`.
        min_count: a value that occurs less often is left out, so that training has unknown values too. At least 1.
        reserved: entries before the values.

    Returns:
        `Vocabulary`, which does not depend on the order of `values`.

    Raises:
        ValueError: `min_count` below 1, no value that occurs often enough, or `unknown` as for `Vocabulary`.

    Example:
        >>> build_vocabulary("banana", unknown=0, min_count=2, reserved=("?",)).entries
        ('?', 'a', 'n')
    """
    expect(isinstance(values, Iterable), "build_vocabulary", "values", "several values", values, TypeError)
    check_count("build_vocabulary", "min_count", min_count)
    counts = collections.Counter(values)
    kept = sorted((-count, value) for value, count in counts.items() if count >= min_count)  # pyright: ignore[reportArgumentType]
    if not kept:
        raise ValueError(f"build_vocabulary: values must hold a value that occurs {min_count} times, found none")
    return Vocabulary(tuple(value for _, value in kept), reserved=reserved, unknown=unknown)

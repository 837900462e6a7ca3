"""Vocabularies and batches of sentences of any Universal Dependencies treebank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mtljax.checks import check_count, expect
from mtljax.data.sets.ud import tags
from mtljax.data.sets.ud.conllu import Sentence
from mtljax.data.vocabulary import Vocabulary, build_vocabulary
from mtljax.losses.tokens import PADDING, UNSEEN
from mtljax.sharing.frames.network import is_sequence
from mtljax.types import Batch

_RESERVED = ("<padding>", "<unknown>", "<mask>")
_UNKNOWN = _RESERVED.index("<unknown>")
_INPUTS = ("characters", "words")
_TASKS = ("deprel", "head_offset", "lemma", "noun_phrase", "ufeats", "upos", "verb_phrase", "xpos")
_FEATURE = "feats_"  # before a morphological feature's name in a task's name
_ABSENT = "none"


def sentence_vocabularies(
    sentences: Sequence[Sentence], *, min_count: int = 2, max_offset: int = 20
) -> dict[str, Vocabulary]:
    """Vocabularies of words, of characters and of each task's classes, from training sentences.

    `load_ud_english` describes the tasks.

    Args:
        sentences: the sentences of the training split only.
        min_count: words and characters that occur less often are unknown. At least 1.
        max_offset: a head at a larger distance counts as this distance. At least 1.

    Returns:
        `"words"`, in lower case, and `"characters"`, which begin with padding, unknown and mask. By task the
        classes, with `UNSEEN` as their `unknown`: the classes that occur, most frequent first; `"none"` and the values
        that occur for a single feature; all offsets from `-max_offset` to `max_offset`; O, B and I for phrases. A
        treebank without lemmas has no `"lemma"`.

    Raises:
        ValueError: `min_count` or `max_offset` below 1, or no word or character that occurs `min_count` times.

    Example:
        >>> from mtljax.data.sets.ud.conllu import Token
        >>> went = Sentence("1", "He went", (Token("He", "he", "PRON", "PRP", "Number=Sing", 2, "nsubj"),
        ...                                  Token("went", "go", "VERB", "VBD", "Tense=Past", 0, "root")))
        >>> vocabularies = sentence_vocabularies([went], min_count=1)
        >>> vocabularies["words"].entries, vocabularies["feats_Tense"].entries
        (('<padding>', '<unknown>', '<mask>', 'he', 'went'), ('none', 'Past'))
    """
    check_count("sentence_vocabularies", "max_offset", max_offset)
    check_count("sentence_vocabularies", "min_count", min_count)
    _check_sentences("sentence_vocabularies", sentences)
    forms, labels = _forms(sentences), _labels(sentences)
    values: dict[str, list[str]] = {}
    for feats in labels["ufeats"]:
        for name, value in tags.morphology(feats).items():
            values.setdefault(name, []).append(value)
    closed = {
        "head_offset": tuple(range(-max_offset, max_offset + 1)),
        "noun_phrase": tags.CHUNK_TAGS,
        "verb_phrase": tags.CHUNK_TAGS,
    } | {_FEATURE + name: (_ABSENT, *build_vocabulary(found, unknown=UNSEEN).values) for name, found in values.items()}

    def of_inputs(found: Iterable[str]) -> Vocabulary:
        return build_vocabulary(found, unknown=_UNKNOWN, min_count=min_count, reserved=_RESERVED)

    vocabularies = {"characters": of_inputs("".join(forms)), "words": of_inputs(map(str.lower, forms))}
    for task in sorted({*_TASKS, *closed}):
        if task in closed:
            vocabularies[task] = Vocabulary(closed[task], unknown=UNSEEN)
        elif found := [label for label in labels[task] if label is not None]:
            vocabularies[task] = build_vocabulary(found, unknown=UNSEEN)
    return vocabularies


def sentence_batch(
    sentences: Sequence[Sentence],
    vocabularies: Mapping[str, Vocabulary],
    *,
    max_length: int = 64,
    max_characters: int = 16,
) -> Batch:
    """Sentences as one padded batch, with one label per word in every task that has a vocabulary.

    `load_ud_english` describes inputs and targets.

    Args:
        sentences: at most N sentences; sentences longer than `max_length` become several examples.
        vocabularies: from `sentence_vocabularies`: `"words"`, `"characters"` and some or all tasks.
        max_length: words per example, at least 1.
        max_characters: letters per word, at least 2.

    Returns:
        `Batch` of NumPy arrays: inputs `words` `[N, L]`, `characters` `[N, L, C]` and `length` `[N]`, targets
        `[N, L]`, all int32, and masks bool `[N]`.

    Raises:
        ValueError: no sentences, or a sentence without words; `max_length` or `max_characters` too small; a missing
            vocabulary, or one of an unknown task.

    Example:
        >>> from mtljax.data.sets.ud.conllu import Token
        >>> went = Sentence("1", "He went", (Token("He", "he", "PRON", "PRP", "Number=Sing", 2, "nsubj"),
        ...                                  Token("went", "go", "VERB", "VBD", "Tense=Past", 0, "root")))
        >>> batch = sentence_batch([went], sentence_vocabularies([went], min_count=1), max_length=3)
        >>> batch.inputs["words"].tolist(), batch.targets["feats_Tense"].tolist()
        ([[3, 4, 0]], [[0, 1, -1]])
    """
    expect(isinstance(vocabularies, Mapping), "sentence_batch", "vocabularies", "a dict", vocabularies, TypeError)
    _check_sentences("sentence_batch", sentences)
    check_count("sentence_batch", "max_length", max_length)
    check_count("sentence_batch", "max_characters", max_characters, least=2)
    tasks = sorted(set(vocabularies) - set(_INPUTS))
    missing = [name for name in _INPUTS if name not in vocabularies]
    strange = [name for name in tasks if name not in _TASKS and not name.startswith(_FEATURE)]
    if missing or strange:
        raise ValueError(
            f"sentence_batch: vocabularies must have {list(_INPUTS)} and tasks, found none of {missing}, and {strange}"
        )
    expect(len(sentences) > 0, "sentence_batch", "sentences", "at least one", sentences, ValueError)
    empty = next((sentence.sent_id for sentence in sentences if not sentence.tokens), None)
    if empty is not None:
        raise ValueError(f"sentence_batch: sentences must have a word or more each, found none in {empty!r}")
    lengths = np.concatenate([_parts(len(sentence.tokens), max_length) for sentence in sentences])
    rows = np.repeat(np.arange(len(lengths)), lengths)
    columns = np.concatenate([np.arange(length) for length in lengths])

    def padded(flat: np.ndarray, fill: int) -> np.ndarray:
        """An array `[N, L, ...]` of one entry per word."""
        array = np.full((len(lengths), max_length, *flat.shape[1:]), fill, np.int32)
        array[rows, columns] = flat
        return array

    forms, labels = _forms(sentences), _labels(sentences)
    spelt = _spelt(forms, vocabularies["characters"], max_characters)
    inputs = {
        "characters": padded(spelt, 0),
        "length": lengths.astype(np.int32),
        "words": padded(vocabularies["words"].encode(map(str.lower, forms)), 0),
    }
    kinds, kind = np.unique(labels["ufeats"], return_inverse=True)
    morphologies = [tags.morphology(feats) for feats in kinds.tolist()]
    targets = {}
    for task in tasks:
        vocabulary, found = vocabularies[task], labels.get(task, [])
        if task.startswith(_FEATURE):
            name = task.removeprefix(_FEATURE)
            numbers = vocabulary.encode(each.get(name, _ABSENT) for each in morphologies)[kind]
        elif task == "head_offset":
            ends: Any = vocabulary.values[0], vocabulary.values[-1]
            numbers = vocabulary.encode(np.clip(found, *ends).tolist())
        else:
            numbers = np.where([label is None for label in found], PADDING, vocabulary.encode(found))
        targets[task] = padded(numbers, PADDING)
    return Batch(inputs, targets, {task: (target != PADDING).any(1) for task, target in targets.items()})


def _check_sentences(where: str, sentences: Any) -> None:
    known = is_sequence(sentences) and all(isinstance(sentence, Sentence) for sentence in sentences)
    expect(known, where, "sentences", "a sequence of Sentence", sentences, TypeError)


def _forms(sentences: Sequence[Sentence]) -> list[str]:
    return [token.form for sentence in sentences for token in sentence.tokens]


def _labels(sentences: Sequence[Sentence]) -> dict[str, list[Any]]:
    """The label of every word in each of `_TASKS`, sentence after sentence; None for a missing label."""
    tokens = [token for sentence in sentences for token in sentence.tokens]
    scripts = {
        (form, lemma): None if lemma == "_" != form else tags.lemma_script(form, lemma)
        for form, lemma in {(token.form, token.lemma) for token in tokens}
    }
    return {
        "deprel": [token.deprel for token in tokens],
        "head_offset": [offset for sentence in sentences for offset in tags.head_offsets(sentence.tokens)],
        "lemma": [scripts[token.form, token.lemma] for token in tokens],
        "noun_phrase": [tag for sentence in sentences for tag in tags.noun_chunks(sentence.tokens)],
        "ufeats": [token.feats for token in tokens],
        "upos": [token.upos for token in tokens],
        "verb_phrase": [tag for sentence in sentences for tag in tags.verb_chunks(sentence.tokens)],
        "xpos": [token.xpos for token in tokens],
    }


def _parts(length: int, limit: int) -> np.ndarray:
    """Lengths of the parts of a sentence: as few parts as possible, of lengths as equal as possible."""
    number = -(-length // limit)
    return length // number + (np.arange(number) < length % number)


def _spelt(forms: Sequence[str], vocabulary: Vocabulary, size: int) -> np.ndarray:
    """Numbers of each word's letters `[n, size]`: only the first and the last letters of a longer word."""
    distinct = {form: number for number, form in enumerate(dict.fromkeys(forms))}
    table = np.zeros((len(distinct), size), np.int32)
    for form, number in distinct.items():
        kept = form if len(form) <= size else form[: size // 2] + form[size // 2 - size :]
        table[number, : len(kept)] = vocabulary.encode(kept)
    return table[[distinct[form] for form in forms]]

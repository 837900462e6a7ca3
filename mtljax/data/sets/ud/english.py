"""The data set Universal Dependencies English-EWT: sentences from the web, with 27 tasks per word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mtljax.checks import check_count, expect
from mtljax.data.sets import raw
from mtljax.data.sets.frame import Frame
from mtljax.data.sets.prepared import prepare
from mtljax.data.sets.ud.batches import sentence_batch, sentence_vocabularies
from mtljax.data.sets.ud.conllu import UPOS, Sentence, Token, read_conllu
from mtljax.data.vocabulary import Vocabulary
from mtljax.types import Batch

_URL = "https://raw.githubusercontent.com/UniversalDependencies/UD_English-EWT/r2.10/en_ewt-ud-{}.conllu"
_FILES = {"train": "train", "validation": "dev", "test": "test"}  # by split
_COLUMNS = ("form", "lemma", "upos", "xpos", "feats", "deprel")

_DESCRIPTION = """
The English Web Treebank of Universal Dependencies, release 2.10: weblogs, newsgroups, e-mails, reviews and answers,
split into sentences and words, with manual lemmas, parts of speech, morphological features and dependency trees.

16,621 sentences, 254,821 words. Multi-word tokens are given as their words. The empty nodes and relations of the
enhanced graph and the last column (spacing, corrections) are left out.
"""

_CITATION = """
@inproceedings{silveira2014gold,
  author = {Silveira, Natalia and Dozat, Timothy and de Marneffe, Marie-Catherine and Bowman, Samuel and
            Connor, Miriam and Bauer, John and Manning, Christopher D.},
  title = {A Gold Standard Dependency Corpus for {E}nglish},
  booktitle = {Proceedings of the Ninth International Conference on Language Resources and Evaluation (LREC)},
  year = {2014}
}
"""


class UdEnglish(Frame):
    """TFDS builder of UD English-EWT 2.10, one sentence per row; `load_ud_english` makes tasks of it.

    Features, as in the files: `sent_id` and `text`; and per word, in arrays `[length]`, `form`, `lemma`, `upos`,
    `xpos`, `feats`, `deprel` (text) and `head` (int32, counted from 1, 0 for the root). Splits: `train`, `validation`
    (the publisher's "dev") and `test`, in the publisher's order.

    Data: N. Silveira et al., A Gold Standard Dependency Corpus for English, LREC 2014; Universal Dependencies 2.10,
    CC BY-SA 4.0.

    Example:
        >>> UdEnglish.VERSION
        Version('1.0.0')
    """

    RELEASE_NOTES = {"1.0.0": "Universal Dependencies 2.10."}

    def _info(self) -> tfds.core.DatasetInfo:
        # Tensor, not Sequence(Text): the same arrays, prepared in half the time.
        columns = {name: tfds.features.Tensor(shape=(None,), dtype=np.str_) for name in _COLUMNS}
        return self.describe(
            {
                "sent_id": tfds.features.Text(),
                "text": tfds.features.Text(),
                **columns,
                "head": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            },
            description=_DESCRIPTION,
            homepage="https://universaldependencies.org/treebanks/en_ewt/",
            citation=_CITATION,
            license="CC BY-SA 4.0, as the publisher states",
            metadata=tfds.core.MetadataDict(upos=list(UPOS)),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        paths = raw.fetch(dl_manager, "ud_english_ewt", [_URL.format(file) for file in _FILES.values()])
        return {split: self._generate_examples(path) for split, path in zip(_FILES, paths, strict=True)}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, sentence in enumerate(read_conllu(path)):
            row: dict[str, Any] = {"sent_id": sentence.sent_id, "text": sentence.text}
            for name in _COLUMNS:
                row[name] = np.array([getattr(token, name) for token in sentence.tokens], object)
            row["head"] = np.array([token.head for token in sentence.tokens], np.int32)
            yield key, row


def load_ud_english(
    data_dir: str | Path | None = None,
    *,
    vocabularies: Mapping[str, Vocabulary] | None = None,
    max_length: int = 64,
    max_characters: int = 16,
) -> dict[str, Batch]:
    """Universal Dependencies English-EWT 2.10 with 27 tasks, each with one label per word.

    12,543 training, 2,001 validation and 2,077 test sentences (204,578, 25,149 and 25,094 words), split by the
    publisher. For N examples of at most L = `max_length` words of at most C = `max_characters` letters, `inputs` are

    * `words` int32 `[N, L]`: numbers of the words in lower case; 0 is padding, 1 unknown, 2 is for masking;
    * `characters` int32 `[N, L, C]`: numbers of the letters as written, with the same three special numbers. A longer
      word keeps its first `C // 2` letters and its last letters, which hold its ending;
    * `length` int32 `[N]`: number of words.

    A longer sentence becomes several examples: as few parts as possible, of lengths as equal as possible. No word is
    dropped, so accuracies are over all words. Labels are those of the whole sentence.

    `targets` are int32 `[N, L]`, numbers of `ud_vocabularies`. `PADDING` (-1) is behind the last word and at words
    without a label. `UNSEEN` (-2) is a label that the training split does not have; `token_accuracy` counts it as an
    error. Suitable losses are `mtljax.losses.token_cross_entropy` and others that accept `PADDING`.

    * `upos` (17), `xpos` (50): parts of speech, universal and English;
    * `ufeats` (170): all morphological features of the word as one class;
    * `feats_Number` and 18 more: one feature per task. Class 0 is `none`: the word does not have the feature. All
      features of a word are right if all 19 tasks are. For labels of only the words that have the feature, use
      `where(label > 0, label - 1, minimum(label, PADDING))`;
    * `deprel` (49): relation to the head;
    * `head_offset` (41): signed distance to the head, positive to the right, 0 for the root; more than 20 counts as 20;
    * `lemma` (570): `LemmaScript` from the word to its lemma. Parts of a misspelt word (`goeswith`) have no label;
    * `noun_phrase`, `verb_phrase` (3): `O`, `B`, `I` as in `noun_chunks` and `verb_chunks`.

    `mask[task]` is False where a whole example has no label.

    Args:
        data_dir: folder of prepared data; None is TFDS's own, `~/tensorflow_datasets`.
        vocabularies: from `ud_vocabularies`; None makes them with its defaults.
        max_length: words per example, at least 1.
        max_characters: letters per word, at least 2.

    Returns:
        `Batch` by split: `"train"`, `"validation"`, `"test"`, NumPy arrays.

    Raises:
        ValueError: `max_length`, `max_characters` or `vocabularies` as for `sentence_batch`; a damaged file.
        FileNotFoundError: data that are not prepared yet and cannot be downloaded.

    Data: N. Silveira et al., A Gold Standard Dependency Corpus for English, LREC 2014; Universal Dependencies 2.10,
    CC BY-SA 4.0.

    Example:
        >>> splits = load_ud_english("/tmp/tfds")  # doctest: +SKIP
        >>> splits["test"].targets["upos"].shape  # doctest: +SKIP
        (2082, 64)
    """
    check_count("load_ud_english", "max_length", max_length)
    check_count("load_ud_english", "max_characters", max_characters, least=2)
    if vocabularies is not None:
        expect(isinstance(vocabularies, Mapping), "load_ud_english", "vocabularies", "a dict", vocabularies, TypeError)
    builder = prepare("load_ud_english", UdEnglish, data_dir)
    splits = {split: _sentences(builder, split) for split in _FILES}
    known = sentence_vocabularies(splits["train"]) if vocabularies is None else vocabularies
    return {
        split: sentence_batch(found, known, max_length=max_length, max_characters=max_characters)
        for split, found in splits.items()
    }


def ud_vocabularies(
    data_dir: str | Path | None = None, *, min_count: int = 2, max_offset: int = 20
) -> dict[str, Vocabulary]:
    """Vocabularies of UD English-EWT: words, characters and every task's classes, from the training split only.

    `"words"` (8,867 by default, in lower case) and `"characters"` (105) begin with padding, unknown and mask. The
    vocabulary of a task has exactly the classes of the training split, and `UNSEEN` for every other label. So
    `len(vocabularies["upos"])` is the number of outputs of a head. To load fewer tasks, leave them out of the dict.

    Args:
        data_dir: as in `load_ud_english`.
        min_count: words and characters that occur less often are unknown. At least 1.
        max_offset: a head at a larger distance counts as this distance. At least 1.

    Returns:
        `Vocabulary` by name.

    Raises:
        ValueError: `min_count` or `max_offset` below 1; a damaged file.
        FileNotFoundError: as `load_ud_english`.

    Example:
        >>> vocabularies = ud_vocabularies("/tmp/tfds")  # doctest: +SKIP
        >>> vocabularies["feats_Tense"].entries  # doctest: +SKIP
        ('none', 'Past', 'Pres')
    """
    check_count("ud_vocabularies", "min_count", min_count)
    check_count("ud_vocabularies", "max_offset", max_offset)
    builder = prepare("ud_vocabularies", UdEnglish, data_dir)
    return sentence_vocabularies(_sentences(builder, "train"), min_count=min_count, max_offset=max_offset)


def _sentences(builder: Any, split: str) -> list[Sentence]:
    source = builder.as_data_source(split)
    sentences = []
    for row in source.__getitems__(list(range(len(source)))):
        columns = [[value.decode() for value in row[name]] for name in _COLUMNS]
        form, lemma, upos, xpos, feats, deprel = columns
        tokens = map(Token, form, lemma, upos, xpos, feats, row["head"].tolist(), deprel)
        sentences.append(Sentence(row["sent_id"].decode(), row["text"].decode(), tuple(tokens)))
    return sentences

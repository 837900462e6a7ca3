"""UD English-EWT: a tiny treebank of the same format, tagged by hand; and the numbers of the real one."""

from __future__ import annotations

import numpy as np
import pytest

from mtljax.data.sets import raw
from mtljax.data.sets.ud.batches import sentence_batch, sentence_vocabularies
from mtljax.data.sets.ud.conllu import Sentence, Token
from mtljax.data.sets.ud.english import UdEnglish, load_ud_english, ud_vocabularies
from mtljax.data.sets.ud.tags import LemmaScript, apply_lemma_script
from mtljax.data.vocabulary import Vocabulary, build_vocabulary
from mtljax.losses import PADDING, UNSEEN

URLS = {
    split: next(url for url in raw.registered() if url.endswith(f"en_ewt-ud-{file}.conllu"))
    for split, file in {"train": "train", "validation": "dev", "test": "test"}.items()
}
SENTENCES = {
    "train": [
        "The the DET DT Definite=Def 2 det|cats cat NOUN NNS Number=Plur 3 nsubj"
        "|slept sleep VERB VBD Tense=Past 0 root",
        "the the DET DT Definite=Def 2 det|cat cat NOUN NN Number=Sing 3 nsubj|sleeps sleep VERB VBZ Tense=Pres 0 root"
        "|well well ADV RB _ 3 advmod",
    ],
    "validation": [
        "mice mouse NOUN NNS Number=Dual 2 nsubj|sleep sleep VERB VBP Tense=Pres 0 root|of off ADV RB _ 2 advmod"
        "|ten _ X GW _ 3 goeswith|the the DET DT Definite=Def 6 det|Cats cat NOUN NNS Number=Plur 2 obl"
    ],
    "test": ["cats cat NOUN NNS Number=Plur 0 root"],
}


def conllu(sentences):
    lines = []
    for number, sentence in enumerate(sentences):
        words = sentence.split("|")
        lines += [f"# sent_id = {number}", f"# text = {' '.join(word.split()[0] for word in words)}"]
        for position, word in enumerate(words, start=1):
            lines.append("\t".join([str(position), *word.split(), "_", "_"]))
        lines.append("")
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture
def published(fake_raw, tmp_path):
    """The tiny treebank, where raw files are looked for; and a place to prepare it."""
    fake_raw("ud_english_ewt", {URLS[split]: conllu(found) for split, found in SENTENCES.items()})
    return tmp_path / "tfds"


def test_a_tiny_treebank_from_files_to_labels(published):
    vocabularies = ud_vocabularies(published, min_count=2, max_offset=2)
    assert vocabularies["words"].entries == ("<padding>", "<unknown>", "<mask>", "the")
    assert vocabularies["upos"].entries == ("DET", "NOUN", "VERB", "ADV")
    assert vocabularies["feats_Number"].entries == ("none", "Plur", "Sing")
    assert vocabularies["head_offset"].entries == (-2, -1, 0, 1, 2)
    assert "T" not in vocabularies["characters"].entries and "t" in vocabularies["characters"].entries

    splits = load_ud_english(published, vocabularies=vocabularies, max_length=4, max_characters=4)
    train, validation, test = splits["train"], splits["validation"], splits["test"]
    assert train.inputs["words"].tolist() == [[3, 1, 1, 0], [3, 1, 1, 1]]
    assert train.inputs["length"].tolist() == [3, 4]
    letters = vocabularies["characters"].numbers
    assert train.inputs["characters"][0, 0].tolist() == [1, letters["h"], letters["e"], 0]
    # "sleeps": its first two letters and its last two.
    assert train.inputs["characters"][1, 2].tolist() == [letters[c] for c in "sl"] + [letters["p"], letters["s"]]
    assert train.targets["upos"].tolist() == [[0, 1, 2, PADDING], [0, 1, 2, 3]]
    assert train.targets["head_offset"].tolist() == [[3, 3, 2, PADDING], [3, 3, 2, 1]]
    assert train.targets["feats_Number"].tolist() == [[0, 1, 0, PADDING], [0, 2, 0, 0]]
    assert train.targets["noun_phrase"].tolist() == [[1, 2, 0, PADDING], [1, 2, 0, 0]]
    assert train.targets["verb_phrase"].tolist() == [[0, 0, 1, PADDING], [0, 0, 1, 0]]
    scripts = vocabularies["lemma"].entries
    assert scripts[train.targets["lemma"][0, 1]] == LemmaScript("lower", 0, "", 1, "")

    # Six words in two parts of three; labels that training lacks; a part of a misspelt word has no lemma.
    assert validation.inputs["length"].tolist() == [3, 3]
    assert validation.targets["upos"].tolist() == [[1, 2, 3, PADDING], [UNSEEN, 0, 1, PADDING]]
    assert validation.targets["feats_Number"].tolist() == [[UNSEEN, 0, 0, PADDING], [0, 0, 1, PADDING]]
    assert validation.targets["lemma"][1].tolist() == [PADDING, 0, scripts.index(("lower", 0, "", 1, "")), PADDING]
    assert validation.targets["lemma"][0, 0] == UNSEEN
    # Heads are those of the whole sentence: `Cats` depends on `sleep`, four places to the left, counted as two.
    assert validation.targets["head_offset"].tolist() == [[3, 2, 1, PADDING], [1, 3, 0, PADDING]]
    assert validation.targets["noun_phrase"].tolist() == [[1, 0, 0, PADDING], [0, 1, 2, PADDING]]
    assert all(mask.tolist() == [True] for mask in test.mask.values())
    assert set(train.targets) == set(train.mask) == set(vocabularies) - {"words", "characters"}
    assert {array.dtype for array in [*train.targets.values(), *train.inputs.values()]} == {np.dtype(np.int32)}

    builder = UdEnglish(data_dir=published)
    assert (
        builder.info.file_format.value == "array_record" and "CC BY-SA 4.0" in builder.info.redistribution_info.license
    )
    row = builder.as_data_source("train")[1]
    assert row["text"] == b"the cat sleeps well" and row["form"].tolist()[1] == b"cat"
    assert row["head"].tolist() == [2, 3, 0, 3]


def test_a_file_of_another_format_is_refused_with_its_name(fake_raw, tmp_path):
    files = {URLS[split]: conllu(found) for split, found in SENTENCES.items()}
    place = fake_raw("ud_english_ewt", {**files, URLS["test"]: b"form,lemma\ncats,cat\n\n"})
    with pytest.raises(ValueError, match=rf"{place / 'en_ewt-ud-test.conllu'}, line 1: found 1 columns, expected 10"):
        load_ud_english(tmp_path / "tfds")


def sentence(*forms, lemma="_"):
    """Nouns that all hang on the first of them."""
    tokens = [Token(form, lemma, "NOUN", "NN", "_", min(number, 1), "dep") for number, form in enumerate(forms)]
    return Sentence("s", " ".join(forms), tuple(tokens))


def test_long_sentences_are_cut_into_as_few_equal_parts_as_will_do_and_no_word_is_lost():
    text = [f"w{i}" for i in range(11)]
    vocabularies = sentence_vocabularies([sentence(*text, lemma="w")], min_count=1)
    batch = sentence_batch([sentence(*text, lemma="w"), sentence("w3")], vocabularies, max_length=4)
    assert batch.inputs["length"].tolist() == [4, 4, 3, 1]
    words = batch.inputs["words"][batch.inputs["words"] > 0]
    assert [vocabularies["words"].entries[number] for number in words] == [*text, "w3"]
    # A sentence none of whose words has a lemma is masked for that task alone.
    assert batch.mask["lemma"].tolist() == [True, True, True, False]
    assert batch.mask["upos"].all()


def test_the_only_word_of_a_form_underscore_has_the_lemma_underscore():
    vocabularies = sentence_vocabularies([sentence("_")], min_count=1)
    assert sentence_batch([sentence("_")], vocabularies, max_length=1).targets["lemma"].tolist() == [[0]]


def test_a_treebank_without_lemmas_has_all_other_tasks():
    whole, bare = (sentence_vocabularies([sentence("a", lemma=lemma)], min_count=1) for lemma in ("a", "_"))
    assert set(whole) - set(bare) == {"lemma"}
    assert set(sentence_batch([sentence("a")], bare).targets) == set(bare) - {"words", "characters"}


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            "sentence_batch: max_length must be at least",
            lambda known: sentence_batch([sentence("a")], known, max_length=0),
        ),
        (
            "sentence_batch: max_characters must be at least",
            lambda known: sentence_batch([sentence("a")], known, max_characters=1),
        ),
        ("sentence_batch: sentences must be at least one", lambda known: sentence_batch([], known)),
        (
            "sentence_batch: sentences must have a word or more each, found none in 's'",
            lambda known: sentence_batch([sentence("a"), sentence()], known),
        ),
        (
            r"sentence_batch: vocabularies must have .* none of \['characters'\], and \['speech'\]",
            lambda known: sentence_batch([sentence("a")], {"words": known["words"], "speech": known["upos"]}),
        ),
        (
            "sentence_vocabularies: max_offset must be at least 1, found 0",
            lambda known: sentence_vocabularies([sentence("a")], max_offset=0),
        ),
    ],
)
def test_mistakes_are_refused(message, call):
    with pytest.raises(ValueError, match=message):
        call(sentence_vocabularies([sentence("a", lemma="a")], min_count=1))


def test_a_vocabulary_knows_what_is_frequent_enough_in_a_fixed_order():
    words = build_vocabulary(
        ["b", "a", "c", "a", "b", "<unknown>", "<unknown>"], unknown=0, min_count=2, reserved=("<unknown>",)
    )
    assert words.values == ("<unknown>", "a", "b") and words.entries[0] == words.entries[1] == "<unknown>"
    # The text "<unknown>" is a word like any other, not the entry for unknown words.
    assert words.encode(["<unknown>", "b", "c"]).tolist() == [1, 3, 0] and len(words) == 4
    labels = build_vocabulary(["x"], unknown=UNSEEN)
    assert labels.encode(["x", "y"]).tolist() == [0, UNSEEN] and labels.encode([]).dtype == np.int32
    assert Vocabulary(("p", "q")).encode(["q", "?"]).tolist() == [1, -1]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ("ab", {"unknown": -1, "min_count": 0}, "min_count must be at least 1, found 0"),
        ("ab", {"unknown": -1, "min_count": 2}, "values must hold a value that occurs 2 times, found none"),
        ("", {"unknown": -1}, "values must hold a value that occurs 1 times"),
    ],
)
def test_a_vocabulary_that_would_be_empty_is_refused(values, options, message):
    with pytest.raises(ValueError, match=f"build_vocabulary: {message}"):
        build_vocabulary(values, **options)


def test_entries_of_a_vocabulary_differ_and_hold_the_unknown_one():
    with pytest.raises(ValueError, match=r"Vocabulary: unknown must be .* found 1"):
        build_vocabulary("ab", unknown=1, reserved=("?",))
    with pytest.raises(ValueError, match="Vocabulary: values must be values that differ"):
        Vocabulary(("p", "q", "p"))


@pytest.mark.slow
def test_the_real_treebank_has_the_published_numbers(real_data, tmp_path):
    real_data("ud_english_ewt")
    vocabularies = ud_vocabularies(tmp_path)
    sizes = {name: len(found) for name, found in vocabularies.items()}
    assert {name: sizes[name] for name in ("upos", "xpos", "ufeats", "deprel")} == {
        "upos": 17,
        "xpos": 50,
        "ufeats": 170,
        "deprel": 49,
    }
    assert sum(name.startswith("feats_") for name in sizes) == 19 and len(sizes) == 29
    assert (sizes["lemma"], sizes["head_offset"], sizes["words"], sizes["characters"]) == (570, 41, 8867, 105)

    builder = UdEnglish(data_dir=tmp_path)
    assert {split: info.num_examples for split, info in builder.info.splits.items()} == {
        "train": 12_543,
        "validation": 2_001,
        "test": 2_077,
    }
    splits = load_ud_english(tmp_path, vocabularies=vocabularies)
    words = {split: int(batch.inputs["length"].sum()) for split, batch in splits.items()}
    assert words == {"train": 204_578, "validation": 25_149, "test": 25_094}
    # One sentence each but for the parts of those over 64 words.
    assert {split: len(batch.inputs["length"]) for split, batch in splits.items()} == {
        "train": 12_619,
        "validation": 2_003,
        "test": 2_082,
    }
    for split, batch in splits.items():
        real = np.arange(64) < batch.inputs["length"][:, None]
        assert ((batch.inputs["words"] > 0) == real).all() and (
            batch.inputs["characters"][..., 0] > 0
        ).sum() == real.sum()
        for task, target in batch.targets.items():
            assert target.max() < len(vocabularies[task]) and target.min() >= UNSEEN
            assert ((target != PADDING) == real).all() or task == "lemma"
            assert split != "train" or target.min() == PADDING
    unseen = {split: int((batch.targets["ufeats"] == UNSEEN).sum()) for split, batch in splits.items()}
    assert unseen == {"train": 0, "validation": 18, "test": 2}

    # Labels lead back to the lemmas and heads that the publisher gave, cut sentences or not.
    rows = builder.as_data_source("validation").__getitems__(list(range(2_001)))
    real = np.arange(64) < splits["validation"].inputs["length"][:, None]
    labels = {task: splits["validation"].targets[task][real] for task in ("lemma", "head_offset")}
    forms, lemmas, heads = (np.concatenate([row[name] for row in rows]) for name in ("form", "lemma", "head"))
    places = np.concatenate([np.arange(len(row["head"])) + 1 for row in rows])
    for form, lemma, script in zip(forms, lemmas, labels["lemma"], strict=True):
        assert script < 0 or apply_lemma_script(vocabularies["lemma"].entries[script], form.decode()) == lemma.decode()
    offsets = np.where(heads > 0, np.clip(heads - places, -20, 20), 0)
    np.testing.assert_array_equal(np.take(vocabularies["head_offset"].entries, labels["head_offset"]), offsets)

    # The first sentence of the validation split, read in the file: "From the AP comes this story :".
    first = {
        task: [vocabularies[task].entries[n] for n in t[0, :7]] for task, t in splits["validation"].targets.items()
    }
    assert first["upos"] == ["ADP", "DET", "PROPN", "VERB", "DET", "NOUN", "PUNCT"]
    assert first["head_offset"] == [2, 1, 1, 0, 1, -2, -3]
    assert first["noun_phrase"] == ["O", "B", "I", "O", "B", "I", "O"]
    assert first["verb_phrase"] == ["O", "O", "O", "B", "O", "O", "O"]
    assert first["feats_Tense"] == ["none", "none", "none", "Pres", "none", "none", "none"]
    forms = ["From", "the", "AP", "comes", "this", "story", ":"]
    made = [apply_lemma_script(script, form) for script, form in zip(first["lemma"], forms, strict=True)]
    assert made == ["from", "the", "AP", "come", "this", "story", ":"]

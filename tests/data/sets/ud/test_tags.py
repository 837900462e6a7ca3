"""Labels that follow from a tree, against trees tagged by hand; lemma scripts give every lemma back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtljax.data.sets.ud.conllu import Token, read_conllu
from mtljax.data.sets.ud.tags import (
    LemmaScript,
    apply_lemma_script,
    head_offsets,
    lemma_script,
    morphology,
    noun_chunks,
    verb_chunks,
)


def sentence(text):
    """`form/UPOS/head/deprel` for each word."""
    tokens = []
    for word in text.split():
        form, upos, head, deprel = word.rsplit("/", 3)
        tokens.append(Token(form, form.lower(), upos, "_", "_", int(head), deprel))
    return tokens


def bracketed(tokens, tags):
    """`[the cat] sat`, and a check that I follows B or I."""
    words, inside = [], False
    for token, tag in zip(tokens, tags, strict=True):
        assert tag in "OBI" and (tag != "I" or inside)
        if inside and tag != "I":
            words[-1] += "]"
        words.append(("[" if tag == "B" else "") + token.form)
        inside = tag != "O"
    return " ".join(words) + ("]" if inside else "")


NOUN_PHRASES = [
    # Determiner, adverb of an adjective, co-ordinated adjectives: inside; the preposition: outside.
    (
        "in/ADP/7/case the/DET/7/det very/ADV/4/advmod old/ADJ/7/amod and/CCONJ/6/cc ugly/ADJ/4/conj house/NOUN/0/root",
        "in [the very old and ugly house]",
    ),
    # What follows the noun is outside, and has a chunk of its own.
    (
        "the/DET/2/det king/NOUN/0/root of/ADP/4/case Spain/PROPN/2/nmod who/PRON/6/nsubj left/VERB/2/acl:relcl",
        "[the king] of [Spain] [who] left",
    ),
    # Possessors, with their own determiner and 's, and possessive pronouns.
    (
        "her/PRON/3/nmod:poss old/ADJ/3/amod friend/NOUN/6/nmod:poss 's/PART/3/case red/ADJ/6/amod car/NOUN/0/root",
        "[her old friend 's red car]",
    ),
    # Compounds with a number and a hyphen; names go on to the right of their head.
    (
        "a/DET/5/det 15/NUM/4/nummod -/PUNCT/4/punct year/NOUN/5/compound term/NOUN/0/root "
        "for/ADP/7/case President/PROPN/5/nmod George/PROPN/7/flat Bush/PROPN/7/flat",
        "[a 15 - year term] for [President George Bush]",
    ),
    # Conjoined nouns are two chunks; a quotation mark of a modifier is not left at the chunk's edge.
    (
        'cats/NOUN/0/root and/CCONJ/3/cc dogs/NOUN/1/conj "/PUNCT/6/punct so/ADV/6/advmod called/VERB/7/amod '
        "art/NOUN/1/dep",
        '[cats] and [dogs] " [so called art]',
    ),
    # A modifier apart from its noun: the noun's chunk ends at the gap, and a name beyond it has one of its own.
    ("Bush/PROPN/3/compound he/PRON/4/nsubj men/NOUN/4/obl left/VERB/0/root", "[Bush] [he] [men] left"),
    # Without a nominal no chunk.
    ("the/DET/2/det poor/ADJ/3/nsubj slept/VERB/0/root", "the poor slept"),
]

VERB_PHRASES = [
    (
        "It/PRON/6/nsubj may/AUX/6/aux not/PART/6/advmod have/AUX/6/aux been/AUX/6/aux:pass seen/VERB/0/root",
        "It [may not have been seen]",
    ),
    # An adverb between two members is inside; at the edge it is outside.
    (
        "Now/ADV/4/advmod has/AUX/4/aux probably/ADV/4/advmod gone/VERB/0/root away/ADV/4/advmod",
        "Now [has probably gone] away",
    ),
    ("Did/AUX/3/aux you/PRON/3/nsubj see/VERB/0/root", "[Did] you [see]"),
    # A copula with its auxiliary; the predicate that is a noun is outside, one that is a verb is another chunk.
    (
        "He/PRON/6/nsubj may/AUX/6/aux be/AUX/6/cop a/DET/6/det great/ADJ/6/amod doctor/NOUN/0/root",
        "He [may be] a great doctor",
    ),
    ("She/PRON/3/nsubj is/AUX/3/cop n't/PART/0/root", "She [is] n't"),
    # Infinitives: `to` is inside, and a split one is one chunk.
    (
        "try/VERB/0/root not/PART/5/advmod to/PART/5/mark ever/ADV/5/advmod sleep/VERB/1/xcomp",
        "[try] [not to ever sleep]",
    ),
    # A particle beside its verb is inside; one further on is no verb group by itself.
    ("pick/VERB/0/root up/ADP/1/compound:prt it/PRON/1/obj", "[pick up] it"),
    ("pick/VERB/0/root it/PRON/1/obj up/ADP/1/compound:prt", "[pick] it up"),
    # A participle before its noun is none; `that` is no `to`; an adverb that is a verb joins nothing.
    (
        "retiring/VERB/2/amod jurists/NOUN/4/nsubj that/SCONJ/4/mark say/VERB/0/root please/VERB/6/advmod "
        "go/VERB/4/xcomp",
        "retiring jurists that [say] [please] [go]",
    ),
    ("to/PART/0/root or/CCONJ/1/cc", "to or"),
]


@pytest.mark.parametrize("text, expected", NOUN_PHRASES)
def test_noun_phrases_are_those_marked_by_hand(text, expected):
    tokens = sentence(text)
    assert bracketed(tokens, noun_chunks(tokens)) == expected


@pytest.mark.parametrize("text, expected", VERB_PHRASES)
def test_verb_phrases_are_those_marked_by_hand(text, expected):
    tokens = sentence(text)
    assert bracketed(tokens, verb_chunks(tokens)) == expected


def test_neighboring_chunks_are_told_apart():
    tokens = sentence("give/VERB/0/root him/PRON/1/iobj it/PRON/1/obj")
    assert noun_chunks(tokens) == ["O", "B", "B"]


def test_heads_in_a_circle_are_refused():
    with pytest.raises(ValueError, match=r"noun_chunks: heads must make a tree, found \[2, 1\]"):
        noun_chunks(sentence("a/NOUN/2/dep b/NOUN/1/dep"))
    assert noun_chunks(sentence("a/NOUN/0/root b/NOUN/1/amod c/NOUN/2/amod")) == ["B", "I", "I"]


def test_head_offsets_lead_to_the_head_and_are_zero_at_the_root():
    assert head_offsets(sentence("a/DET/3/det b/ADJ/3/amod c/NOUN/0/root d/VERB/1/acl")) == [2, 1, 0, -3]


def test_morphology_is_a_dict():
    assert morphology("Case=Nom|PronType=Int,Rel") == {"Case": "Nom", "PronType": "Int,Rel"}
    assert morphology("_") == {}


@pytest.mark.parametrize(
    "form, lemma, script",
    [
        ("cities", "city", ("lower", 0, "", 3, "y")),
        ("Walking", "walk", ("lower", 0, "", 3, "")),
        ("The", "the", ("lower", 0, "", 0, "")),
        ("Bush", "Bush", ("keep", 0, "", 0, "")),
        ("BUSH", "Bush", ("title", 0, "", 0, "")),
        ("usa", "USA", ("upper", 0, "", 0, "")),
        ("Enrons", "Enron", ("keep", 0, "", 1, "")),
        ("are", "be", ("lower", 2, "b", 0, "")),
        ("was", "be", ("replace", 0, "", 0, "be")),
        ("unhappier", "happy", ("lower", 2, "", 3, "y")),
        # Of two stretches as long the one further left stays: "ab", not "cd".
        ("abxcd", "cdab", ("lower", 0, "cd", 3, "")),
        ("İ", "i", ("lower", 0, "", 1, "")),  # two characters in lower case
    ],
)
def test_lemma_scripts_are_those_made_by_hand(form, lemma, script):
    assert lemma_script(form, lemma) == script
    assert apply_lemma_script(LemmaScript(*script), form) == lemma


@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_script_gives_its_lemma_back(form, lemma):
    assert apply_lemma_script(lemma_script(form, lemma), form) == lemma


def test_a_script_serves_other_words_and_any_word():
    script = lemma_script("Cities", "city")
    assert [apply_lemma_script(script, form) for form in ("ponies", "as", "")] == ["pony", "y", "y"]
    assert apply_lemma_script(LemmaScript("keep", 2, "a", 2, "b"), "xyz") == "ab"
    with pytest.raises(ValueError, match=r"apply_lemma_script: case must be one of .*, found 'camel'"):
        apply_lemma_script(LemmaScript("camel", 0, "", 0, ""), "x")
    with pytest.raises(ValueError, match="lemma_script: form and lemma must not be empty, found 'a' and ''"):
        lemma_script("a", "")


@pytest.mark.slow
def test_on_the_real_treebank_every_lemma_comes_back_and_every_nominal_is_in_one_chunk(real_data):
    counts = np.zeros(4, int)
    for path in sorted(real_data("ud_english_ewt").glob("*.conllu")):
        for found in read_conllu(path):
            tokens = found.tokens
            for token in tokens:
                assert apply_lemma_script(lemma_script(token.form, token.lemma), token.form) == token.lemma
            nouns, verbs = noun_chunks(tokens), verb_chunks(tokens)
            bracketed(tokens, nouns)
            bracketed(tokens, verbs)
            for token, noun, verb in zip(tokens, nouns, verbs, strict=True):
                assert noun != "O" or token.upos not in {"NOUN", "PROPN", "PRON"}
                assert (
                    verb == "O"
                    or token.upos in {"VERB", "AUX", "PART", "ADV"}
                    or token.deprel
                    in {
                        "advmod",
                        "compound:prt",
                    }
                )
            heads = [position + offset for position, offset in enumerate(head_offsets(tokens), start=1)]
            assert all(h == (t.head or p) for p, (h, t) in enumerate(zip(heads, tokens, strict=True), start=1))
            counts += [len(tokens), nouns.count("B"), verbs.count("B"), 1]
    assert counts.tolist() == [254_821, 67_145, 33_795, 16_621]

"""Labels of words that follow from a Universal Dependencies tree: where the head is, how the lemma is made, phrases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from mtljax.data.sets.ud.conllu import Token

CHUNK_TAGS = ("O", "B", "I")

_CASES: dict[str, Callable[[str], str]] = {
    "lower": str.lower,
    "keep": str,
    "title": lambda form: form[:1].upper() + form[1:].lower(),
    "upper": str.upper,
}

_NOMINAL = {"NOUN", "PROPN", "PRON"}
# What belongs to a noun directly; and what besides belongs to a word that belongs to a noun.
_OF_NOUNS = {"amod", "compound", "det", "det:predet", "flat", "flat:foreign", "goeswith", "nmod:poss", "nummod"}
_OF_MODIFIERS = _OF_NOUNS | {"advmod", "case", "cc", "cc:preconj", "conj", "punct"}

_VERBAL = {"VERB", "AUX"}
_OF_VERBS = {"aux", "aux:pass", "compound:prt", "cop"}
_NOT_PREDICATES = _OF_VERBS | {"amod", "case", "cc", "compound", "det", "fixed", "flat", "goeswith", "mark"}


class LemmaScript(NamedTuple):
    """How a word becomes its lemma; few scripts serve thousands of words, so they are classes to predict.

    Attributes:
        case: what is done to the word first: `"lower"`, `"keep"`, `"title"` (first letter upper, the others lower) or
            `"upper"`; or `"replace"`, where the lemma is `suffix` whatever the word is.
        strip_front: letters then taken off the front.
        prefix: what is put there.
        strip_back: letters taken off the back.
        suffix: what is put there.
    """

    case: str
    strip_front: int
    prefix: str
    strip_back: int
    suffix: str


def lemma_script(form: str, lemma: str) -> LemmaScript:
    """The shortest script that makes the lemma from the word.

    In each of the four cases the longest stretch that word and lemma have in common stays (the leftmost in the word,
    then in the lemma, of several), and what stands before and after it is exchanged. The case with the fewest letters
    taken off and put on is chosen, of equals the first of lower, keep, title, upper, so that `The` and `the` have one
    script. Without any common letter it is a replacement.

    Edit scripts as classes: G. Chrupała, Simple data-driven context-sensitive lemmatization, SEPLN 2006. A common
    stretch that stays: M. Straka, UDPipe 2.0 prototype at CoNLL 2018 UD shared task, CoNLL 2018, whose rules for the
    case are letter by letter, and for what stands before and after it letter by letter too; ours are simpler.

    Args:
        form: the word.
        lemma: its lemma.

    Returns:
        `LemmaScript`, with `apply_lemma_script(script, form) == lemma`.

    Raises:
        ValueError: an empty word or lemma.

    Example:
        >>> lemma_script("Cities", "city")
        LemmaScript(case='lower', strip_front=0, prefix='', strip_back=3, suffix='y')
        >>> lemma_script("went", "go").suffix, lemma_script("was", "be").case
        ('go', 'replace')
    """
    if not form or not lemma:
        raise ValueError(f"lemma_script: form and lemma must not be empty, found {form!r} and {lemma!r}")
    best, cost = LemmaScript("replace", 0, "", 0, lemma), None
    for case, change in _CASES.items():
        changed = change(form)
        length, start, place = _longest_common(changed, lemma)
        edits = len(changed) + len(lemma) - 2 * length
        if length and (cost is None or edits < cost):
            back = len(changed) - start - length
            best, cost = LemmaScript(case, start, lemma[:place], back, lemma[place + length :]), edits
    return best


def apply_lemma_script(script: LemmaScript, form: str) -> str:
    """The lemma that a script makes of a word, any word: of one too short to strip, nothing is left in the middle.

    Args:
        script: from `lemma_script`, of this word or predicted.
        form: the word.

    Returns:
        The lemma.

    Raises:
        ValueError: a `case` that is none of the five.

    Example:
        >>> apply_lemma_script(lemma_script("cities", "city"), "Ponies")
        'pony'
    """
    if script.case == "replace":
        return script.suffix
    if script.case not in _CASES:
        raise ValueError(f"apply_lemma_script: case must be one of {[*_CASES, 'replace']}, found {script.case!r}")
    changed = _CASES[script.case](form)
    end = max(len(changed) - script.strip_back, 0)
    return script.prefix + changed[script.strip_front : end] + script.suffix


def _longest_common(first: str, second: str) -> tuple[int, int, int]:
    """Length of the longest common stretch, and where it begins in each, as far left as can be."""
    for length in range(min(len(first), len(second)), 0, -1):
        for start in range(len(first) - length + 1):
            place = second.find(first[start : start + length])
            if place >= 0:
                return length, start, place
    return 0, 0, 0


def morphology(feats: str) -> dict[str, str]:
    """The morphological features of a word by name; several values of one feature stay one, `Int,Rel`.

    Args:
        feats: `Name=Value|Name=Value`, or `_` for none.

    Returns:
        Values by name.

    Example:
        >>> morphology("Number=Sing|Person=3"), morphology("_")
        ({'Number': 'Sing', 'Person': '3'}, {})
    """
    return {} if feats == "_" else dict(pair.split("=") for pair in feats.split("|"))


def head_offsets(tokens: Sequence[Token]) -> list[int]:
    """How far each word's head stands to its right, `head - position`; 0 for the root, which has no head.

    Args:
        tokens: the words of a sentence.

    Returns:
        One number for each, negative where the head stands to the left.

    Example:
        >>> the = Token("the", "the", "DET", "DT", "_", 2, "det")
        >>> head_offsets([the, Token("cat", "cat", "NOUN", "NN", "_", 0, "root")])
        [1, 0]
    """
    return [token.head - position if token.head else 0 for position, token in enumerate(tokens, start=1)]


def noun_chunks(tokens: Sequence[Token]) -> list[str]:
    """Tags `B` (begin), `I` (inside), `O` (outside) of noun phrases without what follows the noun.

    A chunk has a head h with UPOS NOUN, PROPN or PRON. The members of h are h itself; its dependents by det,
    det:predet, amod, nummod, compound, flat, flat:foreign, goeswith or nmod:poss; and, again and again, the dependents
    of such a member by one of these or by advmod, case, cc, cc:preconj, conj or punct, which brings in `very` of `very
    old house`, `'s` of `the king's house` and `and new` of `old and new houses`, but neither a preposition before h nor
    a clause or phrase after it. The chunk is the longest stretch of neighbouring words around h that are all members,
    less punctuation at its ends.

    Heads are taken from the root downwards, words of equal depth from left to right; one that stands in an earlier
    chunk begins none of its own. So chunks never overlap, every noun, name and pronoun is in one, and nothing else
    (`the poor`, `20 of them`) begins any.

    Args:
        tokens: the words of a sentence, whose heads make a tree.

    Returns:
        A tag for each word.

    Raises:
        ValueError: heads that go in a circle.

    Example:
        >>> rows = ["the DET 4 det", "very ADV 3 advmod", "old ADJ 4 amod", "house NOUN 5 nsubj", "fell VERB 0 root"]
        >>> def token(row):
        ...     form, upos, head, deprel = row.split()
        ...     return Token(form, form, upos, "_", "_", int(head), deprel)
        >>> noun_chunks([token(row) for row in rows])
        ['B', 'I', 'I', 'I', 'O']
    """
    depth = _depths(tokens)
    order = sorted((depth[i], i) for i, token in enumerate(tokens) if token.upos in _NOMINAL)
    chunks: list[range] = []
    taken: set[int] = set()
    for _, head in order:
        if head in taken:
            continue
        first = last = head
        members = _members(tokens, head)
        while first - 1 in members:
            first -= 1
        while last + 1 in members:
            last += 1
        while tokens[first].upos == "PUNCT":
            first += 1
        while tokens[last].upos == "PUNCT":
            last -= 1
        chunks.append(range(first, last + 1))
        taken.update(chunks[-1])
    return _tags(len(tokens), chunks)


def verb_chunks(tokens: Sequence[Token]) -> list[str]:
    """Tags `B`, `I`, `O` of verb groups: a verb with its auxiliaries, `to`, `not`, particle and adverbs between them.

    Each word p that is no amod, aux, aux:pass, case, cc, compound, compound:prt, cop, det, fixed, flat, goeswith or
    mark of another has as members p itself where its UPOS is VERB or AUX; its dependents by aux, aux:pass, cop or
    compound:prt; and those by advmod or mark whose UPOS is PART (`not`, `to`). Its dependents by advmod that are
    neither PART nor VERB nor AUX are links. A chunk is a longest stretch of neighbouring members and links, less links
    at its ends, that has a VERB or an AUX in it; no two overlap.

    So `may not have been seen` is one chunk; `Did you see` has two; in `is a doctor` it is `is`; in `pick it up` it is
    `pick`; and a participle before its noun (`retiring judges`) has none.

    Args:
        tokens: the words of a sentence.

    Returns:
        A tag for each word.

    Example:
        >>> rows = ["He PRON 5 nsubj", "may AUX 5 aux", "not PART 5 advmod", "soon ADV 5 advmod", "go VERB 0 root"]
        >>> def token(row):
        ...     form, upos, head, deprel = row.split()
        ...     return Token(form, form, upos, "_", "_", int(head), deprel)
        >>> verb_chunks([token(row) for row in rows])
        ['O', 'B', 'I', 'I', 'I']
    """
    members = {i: {i} for i, token in enumerate(tokens) if token.upos in _VERBAL}
    links: dict[int, set[int]] = {}
    for i, token in enumerate(tokens):
        if token.deprel in _OF_VERBS or (token.deprel in ("advmod", "mark") and token.upos == "PART"):
            members.setdefault(token.head - 1, set()).add(i)
        elif token.deprel == "advmod" and token.upos not in _VERBAL:
            links.setdefault(token.head - 1, set()).add(i)
    chunks = []
    for predicate, own in members.items():
        if tokens[predicate].deprel in _NOT_PREDICATES:
            continue
        for stretch in _stretches(own | links.get(predicate, set())):
            core = [i for i in stretch if i in own]
            if any(tokens[i].upos in _VERBAL for i in core):
                chunks.append(range(core[0], core[-1] + 1))
    return _tags(len(tokens), chunks)


def _depths(tokens: Sequence[Token]) -> list[int]:
    """How many steps it is from each word to the root."""
    depths = []
    for token in tokens:
        depth = 0
        while token.head:
            depth, token = depth + 1, tokens[token.head - 1]
            if depth == len(tokens):
                raise ValueError(f"noun_chunks: heads must make a tree, found {[token.head for token in tokens]}")
        depths.append(depth)
    return depths


def _members(tokens: Sequence[Token], head: int) -> set[int]:
    members, todo = {head}, [head]
    while todo:
        parent = todo.pop()
        relations = _OF_NOUNS if parent == head else _OF_MODIFIERS
        found = [i for i, token in enumerate(tokens) if token.head == parent + 1 and token.deprel in relations]
        members.update(found)
        todo.extend(found)
    return members


def _stretches(positions: Iterable[int]) -> list[list[int]]:
    """Sorted positions, cut where one is missing."""
    stretches: list[list[int]] = []
    for i in sorted(positions):
        if stretches and stretches[-1][-1] == i - 1:
            stretches[-1].append(i)
        else:
            stretches.append([i])
    return stretches


def _tags(length: int, chunks: Iterable[range]) -> list[str]:
    tags = ["O"] * length
    for chunk in chunks:
        tags[chunk.start : chunk.stop] = ["B"] + ["I"] * (len(chunk) - 1)
    return tags

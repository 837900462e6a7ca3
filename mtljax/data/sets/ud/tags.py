"""Labels of words made of a Universal Dependencies tree: offsets of heads, edit scripts of lemmas, phrases."""

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
# Relations of a noun's own dependents; then further relations of those dependents' dependents.
_OF_NOUNS = {"amod", "compound", "det", "det:predet", "flat", "flat:foreign", "goeswith", "nmod:poss", "nummod"}
_OF_MODIFIERS = _OF_NOUNS | {"advmod", "case", "cc", "cc:preconj", "conj", "punct"}

_VERBAL = {"VERB", "AUX"}
_OF_VERBS = {"aux", "aux:pass", "compound:prt", "cop"}
_NOT_PREDICATES = _OF_VERBS | {"amod", "case", "cc", "compound", "det", "fixed", "flat", "goeswith", "mark"}


class LemmaScript(NamedTuple):
    """An edit script from a word to its lemma; thousands of words need few scripts, so a script is a class to predict.

    Attributes:
        case: the first operation: `"lower"`, `"keep"`, `"title"` (first letter upper, the others lower) or `"upper"`;
            or `"replace"`, which makes `suffix` the lemma of every word.
        strip_front: number of letters removed at the front.
        prefix: letters added at the front.
        strip_back: number of letters removed at the back.
        suffix: letters added at the back.
    """

    case: str
    strip_front: int
    prefix: str
    strip_back: int
    suffix: str


def lemma_script(form: str, lemma: str) -> LemmaScript:
    """The shortest script that makes the lemma from the word.

    For each of the four cases, the longest common substring of word and lemma stays (of several, the leftmost in the
    word, then in the lemma). The letters before and after it are replaced. The case that removes and adds the fewest
    letters is chosen; of ties, the first of lower, keep, title, upper, so that `The` and `the` have the same script.
    Without a common letter the script is a replacement.

    Edit scripts as classes: G. Chrupała, Simple data-driven context-sensitive lemmatization, SEPLN 2006. A common
    substring that stays: M. Straka, UDPipe 2.0 prototype at CoNLL 2018 UD shared task, CoNLL 2018.

    Departures: Straka's rules for case, prefix and suffix work letter by letter; the rules here are simpler.

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
    """The lemma that a script makes of a word. If the word is too short to strip, its middle is empty.

    Args:
        script: from `lemma_script`, of this word or predicted.
        form: the word.

    Returns:
        The lemma.

    Raises:
        ValueError: a `case` that is not one of the five.

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
    """Length of the longest common substring, and its leftmost start in each string."""
    for length in range(min(len(first), len(second)), 0, -1):
        for start in range(len(first) - length + 1):
            place = second.find(first[start : start + length])
            if place >= 0:
                return length, start, place
    return 0, 0, 0


def morphology(feats: str) -> dict[str, str]:
    """The morphological features of a word by name; several values of one feature stay one string, `Int,Rel`.

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
    """The offset of each word's head, `head - position`; 0 for the root, which has no head.

    Args:
        tokens: the words of a sentence.

    Returns:
        One number per word, negative if the head is on the left.

    Example:
        >>> the = Token("the", "the", "DET", "DT", "_", 2, "det")
        >>> head_offsets([the, Token("cat", "cat", "NOUN", "NN", "_", 0, "root")])
        [1, 0]
    """
    return [token.head - position if token.head else 0 for position, token in enumerate(tokens, start=1)]


def noun_chunks(tokens: Sequence[Token]) -> list[str]:
    """Tags `B` (begin), `I` (inside), `O` (outside) of noun phrases, without phrases that follow the noun.

    A chunk has a head h with UPOS NOUN, PROPN or PRON. The members of h are h itself; its dependents by det,
    det:predet, amod, nummod, compound, flat, flat:foreign, goeswith or nmod:poss; and, recursively, the dependents of
    such a member by one of these relations or by advmod, case, cc, cc:preconj, conj or punct. So `very` of `very old
    house`, `'s` of `the king's house` and `and new` of `old and new houses` are members, but not a preposition before h
    and not a clause or phrase after h. The chunk is the longest sequence of neighbouring members around h, without
    punctuation at its ends.

    Heads are processed from the root downwards, words of equal depth from left to right. A noun in an earlier chunk
    does not begin a chunk. So chunks never overlap, every noun, name and pronoun is in one chunk, and other words
    (`the poor`, `20 of them`) do not begin chunks.

    Args:
        tokens: the words of a sentence, whose heads make a tree.

    Returns:
        One tag per word.

    Raises:
        ValueError: heads that form a cycle.

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

    Let p be a word that is not an amod, aux, aux:pass, case, cc, compound, compound:prt, cop, det, fixed, flat,
    goeswith or mark of another word. The members of p are p itself if its UPOS is VERB or AUX; its dependents by aux,
    aux:pass, cop or compound:prt; and its dependents by advmod or mark with UPOS PART (`not`, `to`). Its dependents by
    advmod with other UPOS than PART, VERB and AUX are links. A chunk is a longest sequence of neighbouring members and
    links with a VERB or an AUX in it, without links at its ends. Chunks do not overlap.

    So `may not have been seen` is one chunk; `Did you see` has two chunks; the chunk of `is a doctor` is `is`; the
    chunk of `pick it up` is `pick`; a participle before its noun (`retiring judges`) is not in a chunk.

    Args:
        tokens: the words of a sentence.

    Returns:
        One tag per word.

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
    """The number of steps from each word to the root."""
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
    """Sorted positions, split at gaps."""
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

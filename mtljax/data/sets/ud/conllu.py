"""CoNLL-U, the file format of Universal Dependencies; a damaged line is an error, not a wrong label.

This reader replaces the `conllu` package: it saves a dependency, and its errors name file and line number where the
package would return damaged values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

UPOS = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
    *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
)
_COLUMNS = 10
_FEATURES = re.compile(r"_|[^\s=|]+=[^\s=|]+(\|[^\s=|]+=[^\s=|]+)*")


class Token(NamedTuple):
    """A syntactic word: seven of its ten columns, as in the file; `_` means no value.

    Attributes:
        form: the word as written.
        lemma: its base form; `_` if there is none, unless the form is `_` itself.
        upos: universal part of speech, one of `UPOS`.
        xpos: the treebank's own part of speech.
        feats: morphological features `Name=Value|Name=Value`.
        head: position of the word it depends on, counted from 1; 0 for the root.
        deprel: relation to the head.
    """

    form: str
    lemma: str
    upos: str
    xpos: str
    feats: str
    head: int
    deprel: str


class Sentence(NamedTuple):
    """A sentence and its tree.

    Attributes:
        sent_id: its name, from the comment `# sent_id = `.
        text: the text before tokenization, from the comment `# text = `.
        tokens: its syntactic words.
    """

    sent_id: str
    text: str
    tokens: tuple[Token, ...]


def read_conllu(path: Path) -> Iterator[Sentence]:
    r"""The sentences of a CoNLL-U file, in order (https://universaldependencies.org/format.html).

    Syntactic words (`1`, `2`, ...) are kept. Multi-word tokens (`1-2 didn't`), empty nodes (`1.1`) of the enhanced
    graph, and the columns DEPS and MISC are left out. The positions of multi-word tokens and empty nodes are checked.

    Args:
        path: the file.

    Yields:
        `Sentence`.

    Raises:
        ValueError: with file and line number: text that is not UTF-8, a line without ten columns, a column that is
            empty, positions that do not count up, an unknown part of speech, features that are not `Name=Value` with
            each name once, a head outside the sentence, heads that do not make a tree with one root, `root` for another
            relation, a sentence without `sent_id`, `text` or words, a file that ends within a sentence.

    Example:
        >>> import tempfile
        >>> words = "1 Go go VERB VB _ 0 root _ _\n2 ! ! PUNCT . _ 1 punct _ _\n".replace(" ", "\t")
        >>> path = Path(tempfile.mkdtemp()) / "two.conllu"
        >>> _ = path.write_text("# sent_id = a\n# text = Go!\n" + words)
        >>> next(read_conllu(path))
        Traceback (most recent call last):
        ...
        ValueError: ...two.conllu, line 4: the file ends within a sentence, expected an empty line after it
        >>> _ = path.write_text(path.read_text() + "\n")
        >>> [(token.form, token.upos, token.head) for token in next(read_conllu(path)).tokens]
        [('Go', 'VERB', 0), ('!', 'PUNCT', 1)]
    """
    with path.open("rb") as file:
        block: list[str] = []
        number = 0
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8").removesuffix("\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, line {number}: not UTF-8 ({error})") from error
            if line:
                block.append(line)
            else:
                yield _sentence(block, path, number - len(block))
                block = []
        if block:
            raise ValueError(f"{path}, line {number}: the file ends within a sentence, expected an empty line after it")


def _sentence(lines: list[str], path: Path, first: int) -> Sentence:
    """The sentence of one block of lines; `first` is the number of its first line."""
    comments: dict[str, str] = {}
    tokens: list[Token] = []
    places: list[int] = []  # line numbers of the tokens
    empty, covered = 0, 0  # empty nodes since the last word; last word of the last multi-word token

    for number, line in enumerate(lines, start=first):
        where = f"{path}, line {number}"
        if line.startswith("#"):
            if tokens:
                raise ValueError(f"{where}: a comment within a sentence")
            name, _, value = line[1:].partition("=")
            comments[name.strip()] = value.strip()
            continue
        columns = line.split("\t")
        if len(columns) != _COLUMNS:
            raise ValueError(f"{where}: found {len(columns)} columns, expected {_COLUMNS} with tabs between them")
        if not all(columns):
            raise ValueError(f"{where}: column {columns.index('') + 1} is empty, expected a value or _")
        position = columns[0]
        if position == str(len(tokens) + 1):
            tokens.append(_token(columns, where))
            places.append(number)
            empty = 0
        elif position == f"{len(tokens)}.{empty + 1}":
            empty += 1
        elif re.fullmatch(rf"{len(tokens) + 1}-\d+", position) and covered <= len(tokens):
            covered = int(position.split("-")[1])
            if covered <= len(tokens) + 1:
                raise ValueError(f"{where}: multi-word token {position}, expected two words or more")
        else:
            raise ValueError(f"{where}: found position {position!r} after word {len(tokens)}")

    where = f"{path}, line {first}"
    if not tokens:
        raise ValueError(f"{where}: found a sentence without words")
    if covered > len(tokens):
        raise ValueError(f"{where}: a multi-word token reaches to word {covered} of {len(tokens)}")
    for name in ("sent_id", "text"):
        if not comments.get(name):
            raise ValueError(f"{where}: found a sentence without the comment '# {name} = ...'")
    _check_tree(tokens, path, places)
    return Sentence(comments["sent_id"], comments["text"], tuple(tokens))


def _token(columns: list[str], where: str) -> Token:
    _, form, lemma, upos, xpos, feats, head, deprel, _, _ = columns
    if upos not in UPOS:
        raise ValueError(f"{where}: found part of speech {upos!r}, expected one of {', '.join(UPOS)}")
    if not _FEATURES.fullmatch(feats):
        raise ValueError(f"{where}: found features {feats!r}, expected _ or Name=Value|Name=Value")
    names = [pair.partition("=")[0] for pair in feats.split("|")]
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: found features {feats!r}, expected each name once")
    if not re.fullmatch(r"\d+", head):
        raise ValueError(f"{where}: found head {head!r}, expected a position")
    if deprel == "_":
        raise ValueError(f"{where}: found no relation to the head")
    return Token(form, lemma, upos, xpos, feats, int(head), deprel)


def _check_tree(tokens: list[Token], path: Path, places: list[int]) -> None:
    """Raise unless there is one root, from which every word can be reached."""
    roots = [position for position, token in enumerate(tokens, start=1) if token.head == 0]
    if len(roots) != 1:
        raise ValueError(f"{path}, line {places[0]}: the sentence has {len(roots)} roots, expected 1")
    reached = {0}
    for token, place in zip(tokens, places, strict=True):
        where = f"{path}, line {place}"
        if token.head > len(tokens):
            raise ValueError(f"{where}: found head {token.head}, but the sentence has {len(tokens)} words")
        if (token.head == 0) != (token.deprel == "root"):
            raise ValueError(
                f"{where}: found relation {token.deprel!r} to head {token.head}, expected root for head 0 alone"
            )
    for position in range(1, len(tokens) + 1):
        trail: list[int] = []
        while position not in reached:
            if position in trail:
                circle = sorted(trail[trail.index(position) :])
                place = places[circle[0] - 1]
                raise ValueError(f"{path}, line {place}: the heads of the words {circle} form a cycle, expected a tree")
            trail.append(position)
            position = tokens[position - 1].head
        reached.update(trail)

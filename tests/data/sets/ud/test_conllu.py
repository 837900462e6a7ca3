"""CoNLL-U: words kept, everything else checked; what is damaged raises with file and line."""

from __future__ import annotations

import pytest

from mtljax.data.sets.ud.conllu import UPOS, read_conllu

GOOD = """\
# newdoc id = d
# sent_id = d-1
# text = I don't = know.
1 I I PRON PRP Case=Nom|Number=Sing 4 nsubj 4:nsubj _
2-3 don't _ _ _ _ _ _ _ _
2 do do AUX VBP Mood=Ind 4 aux 4:aux _
3 n't not PART RB _ 4 advmod 4:advmod _
4 know know VERB VB VerbForm=Inf 0 root 0:root SpaceAfter=No
4.1 _ it PRON PRP _ _ _ 4:obj _
4.2 so so ADV RB _ _ _ 4:advmod _
5 . . PUNCT . _ 4 punct 4:punct _

# sent_id = d-2
# text = ___
1 _ _ PUNCT NFP PronType=Int,Rel 0 root 0:root _

"""


def written(tmp_path, text, columns="\t"):
    lines = (line if line.startswith("#") else line.replace(" ", columns) for line in text.split("\n"))
    path = tmp_path / "file.conllu"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_words_are_kept_and_multi_word_tokens_empty_nodes_and_comments_left_out(tmp_path):
    first, second = read_conllu(written(tmp_path, GOOD))
    assert (first.sent_id, first.text) == ("d-1", "I don't = know.")
    assert [token.form for token in first.tokens] == ["I", "do", "n't", "know", "."]
    assert first.tokens[2] == ("n't", "not", "PART", "RB", "_", 4, "advmod")
    assert first.tokens[0].feats == "Case=Nom|Number=Sing" and first.tokens[3].head == 0
    assert (second.tokens[0].form, second.tokens[0].lemma) == ("_", "_")


def test_an_empty_node_may_stand_before_the_first_word(tmp_path):
    text = GOOD.replace("1 I I", "0.1 so so ADV RB _ _ _ 4:advmod _\n1 I I", 1)
    assert [token.form for token in next(read_conllu(written(tmp_path, text))).tokens][:2] == ["I", "do"]


@pytest.mark.parametrize(
    "old, new, line, message",
    [
        ("4:nsubj _", "4:nsubj", 4, "found 9 columns, expected 10"),
        ("1 I I PRON", "1  I PRON", 4, "column 2 is empty"),
        ("3 n't not", "4 n't not", 7, "found position '4' after word 2"),
        ("1 I I", "2 I I", 4, "found position '2' after word 0"),
        ("4.2 so", "4.3 so", 10, "found position '4.3' after word 4"),
        ("2-3 don't", "3-4 don't", 5, "found position '3-4' after word 1"),
        ("2-3 don't", "2-2 don't", 5, "multi-word token 2-2, expected two words or more"),
        ("2-3 don't", "2-9 don't", 1, "reaches to word 9 of 5"),
        ("2 do do", "2-3 x _ _ _ _ _ _ _ _\n2 do do", 6, "found position '2-3' after word 1"),
        ("3 n't", "3-4 x _ _ _ _ _ _ _ _\n3 n't", 7, "found position '3-4' after word 2"),
        ("PRON PRP Case", "NNP PRP Case", 4, "found part of speech 'NNP', expected one of ADJ, ADP"),
        ("Mood=Ind", "Mood", 6, "found features 'Mood'"),
        ("Mood=Ind", "Mood=Ind|", 6, "found features"),
        ("Mood=Ind", "Mood=Ind|Mood=Imp", 6, "found features 'Mood=Ind|Mood=Imp', expected each name once"),
        ("4 aux 4", "x aux 4", 6, "found head 'x'"),
        ("4 aux 4", "-1 aux 4", 6, "found head '-1'"),
        ("4 aux 4", "6 aux 4", 6, "found head 6, but the sentence has 5 words"),
        ("4 aux 4", "4 _ 4", 6, "found no relation to the head"),
        ("4 aux 4", "0 root 4", 4, "the sentence has 2 roots, expected 1"),
        ("0 root 0:root S", "1 root 0:root S", 4, "the sentence has 0 roots, expected 1"),
        ("0 root 0:root S", "0 dep 0:root S", 8, "found relation 'dep' to head 0"),
        ("4 aux 4", "4 root 4", 6, "found relation 'root' to head 4"),
        ("4 aux 4", "2 aux 4", 6, r"the heads of the words \[2\] form a cycle"),
        ("# sent_id = d-1\n", "", 1, "without the comment '# sent_id = ...'"),
        ("# text = ___\n", "", 13, "without the comment '# text = ...'"),
        ("2-3 don't", "# late = yes\n2-3 don't", 5, "a comment within a sentence"),
        ("5 . . PUNCT . _ 4 punct 4:punct _\n\n", "5 . . PUNCT . _ 4 punct 4:punct _\n\n\n", 13, "without words"),
        ("root 0:root _\n\n", "root 0:root _\n", 15, "the file ends within a sentence"),
        ("root 0:root _\n\n", "root 0:", 15, "the file ends within a sentence"),
    ],
)
def test_what_is_damaged_raises_with_file_and_line(tmp_path, old, new, line, message):
    assert GOOD.count(old) == 1
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ValueError, match=rf"file\.conllu, line {line}: .*{message}"):
        list(read_conllu(path))


@pytest.mark.parametrize("head, line, circle", [(2, 6, r"\[2, 3\]"), (3, 7, r"\[3\]")])
def test_a_circle_is_found_without_the_words_that_lead_into_it(tmp_path, head, line, circle):
    text = GOOD.replace("4 aux 4", "3 aux 4").replace("_ 4 advmod 4", f"_ {head} advmod 4")
    with pytest.raises(ValueError, match=rf"line {line}: the heads of the words {circle} form a cycle"):
        list(read_conllu(written(tmp_path, text)))


def test_text_that_is_not_utf8_and_columns_without_tabs_raise(tmp_path):
    with pytest.raises(ValueError, match=r"file\.conllu, line 4: found 1 columns, expected 10 with tabs"):
        list(read_conllu(written(tmp_path, GOOD, columns=" ")))
    path = tmp_path / "latin.conllu"
    path.write_bytes(b"# sent_id = caf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.conllu, line 1: not UTF-8"):
        list(read_conllu(path))


def test_there_are_seventeen_parts_of_speech():
    assert len(UPOS) == len(set(UPOS)) == 17

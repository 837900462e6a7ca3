"""The tagger: nothing leaks into next-token or masked-token prediction, and the whole run writes its table."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mtljax
from examples import tagging
from mtljax.data.sets import raw
from mtljax.data.vocabulary import Vocabulary
from mtljax.losses import PADDING

ROWS = ["one at a time", "jointly", "jointly, next token", "jointly, masked token", "jointly, both"]
WORDS, LETTERS, LENGTH = 30, 20, 6
BOTH = ("masked_token", "next_token")


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tagging, "WIDTH", 4)
        patch.setattr(tagging, "CHARACTERS", 3)
        patch.setattr(tagging, "COMMON", 10)
        yield


@pytest.fixture(scope="module")
def vocabularies():
    sizes = {"words": WORDS, "characters": LETTERS, "upos": 3, "xpos": 4, "ufeats": 5}
    return {name: Vocabulary(tuple(range(size))) for name, size in sizes.items()}


def batch_of(words, letters):
    words = jnp.asarray(words)
    targets = {task: jnp.where(words > 0, 0, PADDING) for task in tagging.TAGS}
    inputs = {"words": words, "characters": jnp.asarray(letters), "length": jnp.sum(words > 0, 1).astype(jnp.int32)}
    return mtljax.Batch(inputs, targets, {task: jnp.ones(len(words), bool) for task in tagging.TAGS})


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    words = rng.integers(tagging.FIRST, WORDS, (2, LENGTH)).astype(np.int32)
    letters = rng.integers(1, LETTERS, (2, LENGTH, 3)).astype(np.int32)
    words[1, 4:] = 0
    letters[1, 4:] = 0
    return batch_of(words, letters)


@pytest.fixture(scope="module")
def with_both():
    """`f(batch, key)`: the batch with both self-supervised tasks; compiled once, which is cheaper than each piece."""
    return jax.jit(lambda batch, key: tagging.with_self_supervision(batch, key, BOTH))


@pytest.fixture(scope="module")
def tagger(vocabularies, batch, with_both):
    """The row with both self-supervised tasks: outputs by task, without dropout, of a batch and hidden places."""
    model, _, extra = tagging.contestants(vocabularies)["jointly, both"]
    assert extra == BOTH
    full = with_both(batch, jax.random.key(0))
    # Any parameters will do, and these need not be compiled. Larger ones saturate gates, so that nothing comes through.
    rng = np.random.default_rng(0)
    params, state = jax.eval_shape(model.init, jax.random.key(0), full.inputs)
    params = jax.tree.map(lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype), params)
    assert not jax.tree.leaves(state)
    return jax.jit(lambda inputs: model.apply(params, state, inputs)[0])


def test_next_token_prediction_does_not_see_the_answer_and_tagging_sees_both_sides(tagger, batch, with_both):
    def outputs(words, letters):
        return jax.device_get(tagger(with_both(batch_of(words, letters), jax.random.key(0)).inputs))

    words, letters = np.asarray(batch.inputs["words"]), np.asarray(batch.inputs["characters"])
    before = outputs(words, letters)
    for place in (2, 5):
        # Another word at this place, which is the answer at the one before.
        other_words, other_letters = words.copy(), letters.copy()
        other_words[0, place] = tagging.FIRST + (words[0, place] + 1 - tagging.FIRST) % (WORDS - tagging.FIRST)
        other_letters[0, place] = letters[0, place] % (LETTERS - 1) + 1
        after = outputs(other_words, other_letters)
        np.testing.assert_array_equal(after["next_token"][0, :place], before["next_token"][0, :place])
        assert (after["next_token"][0, place:] != before["next_token"][0, place:]).any(-1).all()
        assert (after["upos"][0] != before["upos"][0]).any(-1).all()
        np.testing.assert_array_equal(after["upos"][1], before["upos"][1])


def test_masked_token_prediction_does_not_see_what_is_hidden(tagger, batch, with_both):
    # Everything that the model gets for this task is in `hidden`; where a word is, neither it nor a letter is left.
    inputs = jax.device_get(with_both(batch, jax.random.key(3)).inputs)
    words, letters, hidden = inputs["words"], inputs["characters"], inputs["hidden"]
    places = hidden["words"] != words
    assert 0 < places.sum() < 6 and not places[words == 0].any()
    assert (hidden["words"][places] == tagging.MASK).all() and (hidden["characters"][places] == tagging.MASK).all()
    np.testing.assert_array_equal(hidden["characters"][~places], letters[~places])
    before = tagger(inputs)["masked_token"]
    # The sentence as it was is not seen by this task: change it all, and nothing changes.
    shuffled = {**inputs, "words": words[:, ::-1], "characters": letters[:, ::-1]}
    np.testing.assert_array_equal(tagger(shuffled)["masked_token"], before)


def test_what_stands_behind_the_last_word_has_no_label_and_changes_no_word(tagger, batch, with_both):
    made = jax.device_get(with_both(batch, jax.random.key(3)))
    behind = np.arange(LENGTH) >= made.inputs["length"][:, None]
    assert behind.sum() == 2 and all((target[behind] == PADDING).all() for target in made.targets.values())

    def rubbish(array):
        return np.where(behind.reshape(behind.shape + (1,) * (array.ndim - 2)), 5, array) if array.ndim > 1 else array

    before, after = jax.device_get((tagger(made.inputs), tagger(jax.tree.map(rubbish, made.inputs))))
    for task, found in after.items():
        np.testing.assert_array_equal(found[~behind], before[task][~behind])


def test_the_answers_are_the_next_word_and_the_hidden_word(batch, with_both):
    made = jax.device_get(with_both(batch, jax.random.key(3)))
    words = made.inputs["words"]
    places = made.inputs["hidden"]["words"] != words
    answers = np.where((words >= 3) & (words < 13), words - 3, PADDING)
    expected = np.concatenate([answers[:, 1:], np.full((2, 1), PADDING)], 1)
    np.testing.assert_array_equal(made.targets["next_token"], expected)
    np.testing.assert_array_equal(made.targets["masked_token"], np.where(places, answers, PADDING))
    for task in BOTH:
        np.testing.assert_array_equal(made.mask[task], (made.targets[task] >= 0).any(1))
    assert set(made.targets) == {*tagging.TAGS, *BOTH}
    assert tagging.with_self_supervision(batch, jax.random.key(3), ()).inputs.keys() == batch.inputs.keys()


def test_every_row_trains_the_tags_and_what_it_names(vocabularies):
    contestants = tagging.contestants(vocabularies)
    assert list(contestants) == ROWS
    assert [extra for _, _, extra in contestants.values()] == [(), (), ("next_token",), ("masked_token",), BOTH]
    start, _ = tagging.make_run(*contestants["jointly, next token"], 10)
    tasks = jax.eval_shape(start, jax.random.key(0)).params.tasks
    assert sorted(tasks) == sorted({*tagging.TAGS, "next_token"})


def test_buckets_hold_every_sentence_once_an_epoch_without_cutting_a_word(monkeypatch):
    monkeypatch.setattr(tagging, "BUCKETS", ((3, 4), (6, 2)))
    lengths = np.array([1, 2, 3, 3, 4, 5, 6, 6])
    words = np.where(np.arange(6) < lengths[:, None], 10 * lengths[:, None] + np.arange(6), 0).astype(np.int32)
    data = batch_of(words, np.zeros((8, 6, 3), np.int32))
    stream = tagging.bucketed(jax.device_get(data), seed=0)
    first, second, _, fourth = (next(stream) for _ in range(4))
    assert first.inputs["words"].shape == (4, 3) and second.inputs["characters"].shape == (2, 6, 3)
    assert sorted(first.inputs["length"]) == [1, 2, 3, 3]
    assert sorted([*second.inputs["length"], *fourth.inputs["length"]]) == [4, 5, 6, 6]
    assert (((first.inputs["words"] > 0).sum(1)) == first.inputs["length"]).all()


@pytest.mark.parametrize("steps, seeds", [(0, 3), (10, 1)])
def test_too_few_steps_or_seeds_are_refused_before_anything_is_written(steps, seeds, tmp_path):
    with pytest.raises(SystemExit, match=f"found {steps} and {seeds}"):
        tagging.main(steps=steps, seeds=seeds, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_writes_a_table_and_a_plot_and_says_where(fake_treebank, tmp_path, capsys, monkeypatch):
    chosen = ["jointly", "jointly, both"]  # compiling is what takes the time
    everything = tagging.contestants
    monkeypatch.setattr(tagging, "contestants", lambda known: {name: everything(known)[name] for name in chosen})
    monkeypatch.setattr(tagging, "MAX_LENGTH", 6)
    monkeypatch.setattr(tagging, "BUCKETS", ((3, 2), (6, 2)))
    monkeypatch.setattr(tagging, "EVALUATED", 4)
    monkeypatch.setattr(tagging, "LEARNING_RATE", 0.03)
    tagging.main(steps=60, seeds=2, out=tmp_path)
    printed = capsys.readouterr().out
    table = (tmp_path / "table.md").read_text()
    assert table in printed
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:] == chosen
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    for row in results.values():
        assert row["words_per_second"] > 0 and row["parameters"] > 0
        # A word's tag is a function of the word here: learnt by heart, and counted over words.
        assert min(map(min, row["accuracy"].values())) > 90
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert printed.splitlines()[-1] == str(tmp_path / "plot.png")


@pytest.fixture
def fake_treebank(tmp_path, monkeypatch):
    """A treebank of two nouns and two verbs, whose files stand where raw ones are looked for."""
    import hashlib

    words = {"dog": "NOUN NN Number=Sing", "cats": "NOUN NNS Number=Plur", "sees": "VERB VBZ Tense=Pres"}
    rng = np.random.default_rng(0)
    table = {}
    place = tmp_path / "raw" / "ud_english_ewt"
    place.mkdir(parents=True)
    for url, known in raw.registered().items():
        if "UD_English-EWT" not in url:
            continue
        lines = []
        for number in range(16):
            forms = rng.choice(list(words), size=1 + number % 6)
            lines += [f"# sent_id = {number}", f"# text = {' '.join(forms)}"]
            for i, form in enumerate(forms):
                tree = "0 root" if i == 0 else "1 dep"
                lines.append("\t".join([str(i + 1), form, form, *f"{words[form]} {tree} _ _".split()]))
            lines.append("")
        content = ("\n".join(lines) + "\n").encode()
        (place / known.name).write_bytes(content)
        table[url] = raw.Registered(len(content), hashlib.sha256(content).hexdigest(), known.name)
    monkeypatch.setattr(raw, "registered", lambda: table)
    monkeypatch.setattr(raw, "roots", lambda: [tmp_path / "raw"])
